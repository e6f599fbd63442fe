//! How the next token is chosen: libllama's chain of samplers, from plain settings.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ggml_sys as sys;

use super::llama::{Context, Token, Vocab};
use super::result::{Error, not_null};

/// How tokens are chosen, in this order: bans, penalties, top-k, top-p, min-p, temperature, draw.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SamplerSettings {
    /// 0: the most likely token, always; higher: more variety.
    pub temp: f32,
    /// Keep the k most likely; 0: all.
    pub top_k: i32,
    /// Keep the most likely ones that together have this probability; 1: all.
    pub top_p: f32,
    /// Drop those less likely than this times the most likely; 0: none.
    pub min_p: f32,
    /// Divide the logits of recent tokens by this; 1: no.
    pub repeat_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: i32,
    /// Never choose a token that would end the answer.
    pub ignore_eos: bool,
    /// Seed; chosen by the clock if there is none.
    pub seed: Option<u32>,
}

impl Default for SamplerSettings {
    fn default() -> SamplerSettings {
        SamplerSettings {
            temp: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            ignore_eos: false,
            seed: None,
        }
    }
}

impl SamplerSettings {
    /// The seed, from the clock if nobody set one.
    fn seed(&self) -> u32 {
        let by_clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |d| d.subsec_nanos() ^ d.as_secs() as u32)
        };
        self.seed.unwrap_or_else(by_clock)
    }
}

/// A chain of libllama's samplers.
#[derive(Debug)]
pub struct Sampler(NonNull<sys::llama_sampler>);

// SAFETY: a sampler may move between threads; its methods take `&mut self`.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Builds the chain for a vocabulary.
    pub fn new(params: &SamplerSettings, vocab: Vocab<'_>) -> Result<Sampler, Error> {
        super::init();
        let n_vocab = i32::try_from(vocab.len()).unwrap_or(i32::MAX);
        let bans = if params.ignore_eos { bans(vocab) } else { Vec::new() };
        // SAFETY: each sampler is made with plain numbers in libllama's ranges (checked where the settings are read) and
        // handed over to the chain, which frees it.
        unsafe {
            let chain =
                sys::llama_sampler_chain_init(sys::llama_sampler_chain_params { no_perf: true });
            let sampler = Sampler(not_null("building the sampler", chain)?);
            let add = |s| sys::llama_sampler_chain_add(chain, s);
            if !bans.is_empty() {
                let n = i32::try_from(bans.len()).unwrap_or(i32::MAX);
                add(sys::llama_sampler_init_logit_bias(n_vocab, n, bans.as_ptr()));
            }
            #[expect(clippy::float_cmp, reason = "exactly 1 means off")]
            if params.repeat_penalty != 1.0 && params.repeat_last_n != 0 {
                let (last_n, repeat) = (params.repeat_last_n, params.repeat_penalty);
                add(sys::llama_sampler_init_penalties(n_vocab, last_n, repeat, 0.0, 0.0));
            }
            if params.temp <= 0.0 {
                add(sys::llama_sampler_init_greedy());
                return Ok(sampler);
            }
            if params.top_k > 0 {
                add(sys::llama_sampler_init_top_k(params.top_k));
            }
            if params.top_p < 1.0 {
                add(sys::llama_sampler_init_top_p(params.top_p, 1));
            }
            if params.min_p > 0.0 {
                add(sys::llama_sampler_init_min_p(params.min_p, 1));
            }
            add(sys::llama_sampler_init_temp(params.temp));
            add(sys::llama_sampler_init_dist(params.seed()));
            Ok(sampler)
        }
    }

    /// Chooses the next token from `context`'s logits and remembers it.
    pub fn sample(&mut self, context: &mut Context) -> Result<Token, Error> {
        // A NaN would fail an assert inside libllama; it comes from damaged weights.
        if context.logits()?.iter().any(|l| l.is_nan()) {
            return Err(Error::Invalid(
                "the model computed 'not a number': its weights are damaged".into(),
            ));
        }
        // SAFETY: valid handles, and the last batch left logits.
        Ok(unsafe { sys::llama_sampler_sample(self.0.as_ptr(), context.ptr.as_ptr(), -1) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: ours, and not part of another chain.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

/// Every token that ends an answer, made impossible.
fn bans(vocab: Vocab<'_>) -> Vec<sys::llama_logit_bias> {
    let tokens = 0..Token::try_from(vocab.len()).unwrap_or(Token::MAX);
    tokens
        .filter(|&t| vocab.is_eog(t))
        .map(|token| sys::llama_logit_bias { token, bias: f32::NEG_INFINITY })
        .collect()
}
