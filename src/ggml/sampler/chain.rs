//! A chain of libllama's samplers, built from settings.

use std::ffi::{CString, c_char};
use std::ptr::NonNull;

use ggml_sys as sys;

use super::settings::SamplerSettings;
use crate::ggml::Token;
use crate::ggml::result::{Error, not_null};
use crate::ggml::vocab::Vocab;

/// One of libllama's samplers, or a chain of them.
#[derive(Debug)]
pub(super) struct Raw(pub(super) NonNull<sys::llama_sampler>);

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: ours, and not part of a chain.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

/// Tokens over which mirostat 1 estimates, as its paper does.
const MIROSTAT_TOKENS: i32 = 100;

/// The chain that `params` ask for.
pub(super) fn chain(params: &SamplerSettings, vocab: Vocab<'_>) -> Result<Raw, Error> {
    let n_vocab = i32::try_from(vocab.len()).unwrap_or(i32::MAX);
    // SAFETY: plain parameters.
    let chain =
        unsafe { sys::llama_sampler_chain_init(sys::llama_sampler_chain_params { no_perf: true }) };
    let raw = Raw(not_null("building the sampler", chain)?);
    let seed = params.seed();
    // SAFETY: samplers that were just made with numbers in libllama's ranges (checked where the settings are read), handed over to
    // the chain, which frees them.
    let add = |sampler| unsafe { sys::llama_sampler_chain_add(chain, sampler) };
    // SAFETY: plain numbers, and arrays that are as long as said and live during the calls.
    unsafe {
        let biases = biases(params, vocab);
        if !biases.is_empty() {
            let n = i32::try_from(biases.len()).unwrap_or(i32::MAX);
            add(sys::llama_sampler_init_logit_bias(n_vocab, n, biases.as_ptr()));
        }
        if params.penalises() {
            let SamplerSettings { repeat_last_n, repeat_penalty, .. } = *params;
            let (often, once) = (params.frequency_penalty, params.presence_penalty);
            let n = repeat_last_n;
            add(sys::llama_sampler_init_penalties(n_vocab, n, repeat_penalty, often, once));
        }
        if params.dry.is_on() && !vocab.is_none() {
            add(dry(params, vocab));
        }
        if params.temp <= 0.0 {
            add(sys::llama_sampler_init_greedy());
            return Ok(raw);
        }
        let warmth = || {
            let (range, exponent) = (params.dynatemp_range, params.dynatemp_exponent);
            sys::llama_sampler_init_temp_ext(params.temp, range, exponent)
        };
        if let Some(mirostat) = params.mirostat {
            let (tau, eta) = (mirostat.tau, mirostat.eta);
            add(warmth());
            add(match mirostat.version {
                1 => sys::llama_sampler_init_mirostat(n_vocab, seed, tau, eta, MIROSTAT_TOKENS),
                _ => sys::llama_sampler_init_mirostat_v2(seed, tau, eta),
            });
            return Ok(raw);
        }
        if params.top_n_sigma > 0.0 {
            add(sys::llama_sampler_init_top_n_sigma(params.top_n_sigma));
        }
        if params.top_k > 0 {
            add(sys::llama_sampler_init_top_k(params.top_k));
        }
        if params.typical_p < 1.0 {
            add(sys::llama_sampler_init_typical(params.typical_p, 1));
        }
        if params.top_p < 1.0 {
            add(sys::llama_sampler_init_top_p(params.top_p, 1));
        }
        if params.min_p > 0.0 {
            add(sys::llama_sampler_init_min_p(params.min_p, 1));
        }
        if params.xtc_probability > 0.0 {
            let (often, threshold) = (params.xtc_probability, params.xtc_threshold);
            add(sys::llama_sampler_init_xtc(often, threshold, 1, seed));
        }
        add(warmth());
        add(sys::llama_sampler_init_dist(seed));
    }
    Ok(raw)
}

/// The sampler that penalises repeated passages.
fn dry(params: &SamplerSettings, vocab: Vocab<'_>) -> *mut sys::llama_sampler {
    let dry = &params.dry;
    // What has a NUL byte, or nothing, breaks nothing.
    let texts = dry.breakers.iter().filter(|text| !text.is_empty());
    let texts: Vec<CString> = texts.filter_map(|text| CString::new(text.as_str()).ok()).collect();
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    // SAFETY: a valid vocabulary with a tokenizer, and C strings that live during the call.
    unsafe {
        sys::llama_sampler_init_dry(
            vocab.as_ptr(),
            dry.multiplier,
            dry.base,
            dry.allowed_length,
            dry.reach(),
            pointers.as_mut_ptr(),
            pointers.len(),
        )
    }
}

/// What is added to logits; every token that ends an answer is made impossible if so wanted.
fn biases(params: &SamplerSettings, vocab: Vocab<'_>) -> Vec<sys::llama_logit_bias> {
    let known = params.logit_bias.iter().filter(|(token, _)| vocab.contains(*token));
    let mut biases: Vec<_> =
        known.map(|&(token, bias)| sys::llama_logit_bias { token, bias }).collect();
    if params.ignore_eos {
        let tokens = 0..Token::try_from(vocab.len()).unwrap_or(Token::MAX);
        let ends = tokens.filter(|&t| vocab.is_eog(t));
        biases.extend(ends.map(|token| sys::llama_logit_bias { token, bias: f32::NEG_INFINITY }));
    }
    biases
}
