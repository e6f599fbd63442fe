//! How the next token is chosen: libllama's chain of samplers, from plain settings, and a grammar that the text must fit.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

use ggml_sys as sys;

use super::llama::{Token, Vocab};
use super::result::{Error, not_null};

/// How tokens are chosen, in this order: biases, penalties, top-k, top-p, min-p, temperature, draw.
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
    /// Taken from the logits of recent tokens for each time that they occur; 0: no.
    pub frequency_penalty: f32,
    /// Taken from the logits of recent tokens; 0: no.
    pub presence_penalty: f32,
    /// How many tokens are recent.
    pub repeat_last_n: i32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(Token, f32)>,
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
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            logit_bias: Vec::new(),
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

    #[expect(clippy::float_cmp, reason = "exactly 1 and exactly 0 mean off")]
    fn penalises(&self) -> bool {
        let off = self.repeat_penalty == 1.0
            && self.frequency_penalty == 0.0
            && self.presence_penalty == 0.0;
        !off && self.repeat_last_n != 0
    }
}

/// One of libllama's samplers, or a chain of them.
#[derive(Debug)]
struct Raw(NonNull<sys::llama_sampler>);

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: ours, and not part of a chain.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

/// What a text must fit, and what it costs to see to that.
#[derive(Debug)]
struct Grammar {
    raw: Raw,
    /// Time that the processor spent on it.
    spent: Duration,
    /// Tokens that came.
    n_tokens: u32,
}

impl Grammar {
    /// Whether it takes so much time that other texts would suffer.
    fn is_too_slow(&self) -> bool {
        self.spent > SPARE_TIME + TIME_PER_TOKEN * self.n_tokens
    }
}

/// What a grammar may take of the processor's time: so much for each token, and some once.
const TIME_PER_TOKEN: Duration = Duration::from_millis(500);
const SPARE_TIME: Duration = Duration::from_secs(5);

/// Time that this thread has computed: unlike a clock on the wall, it does not care what else runs.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// A chain of libllama's samplers.
#[derive(Debug)]
pub struct Sampler {
    chain: Raw,
    grammar: Option<Grammar>,
    /// The vocabulary with its logits: used by each draw, and kept so that none allocates.
    candidates: Vec<sys::llama_token_data>,
}

// SAFETY: a sampler may move between threads; its methods take `&mut self`.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Builds the chain for a vocabulary.
    pub fn new(params: &SamplerSettings, vocab: Vocab<'_>) -> Result<Sampler, Error> {
        super::init();
        let n_vocab = i32::try_from(vocab.len()).unwrap_or(i32::MAX);
        let biases = biases(params, vocab);
        // SAFETY: each sampler is made with plain numbers in libllama's ranges (checked where the settings are read) and
        // handed over to the chain, which frees it.
        unsafe {
            let chain =
                sys::llama_sampler_chain_init(sys::llama_sampler_chain_params { no_perf: true });
            let raw = Raw(not_null("building the sampler", chain)?);
            let sampler = Sampler { chain: raw, grammar: None, candidates: Vec::new() };
            let add = |s| sys::llama_sampler_chain_add(chain, s);
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

    /// Lets only pass what fits `grammar` (GBNF) from its rule `root` on.
    ///
    /// # Errors
    ///
    /// libllama does not understand the grammar.
    pub fn obey(&mut self, grammar: &str, root: &str, vocab: Vocab<'_>) -> Result<(), Error> {
        let wrong = || Error::Invalid("the grammar makes no sense".into());
        if !super::grammar::counts_up(grammar) {
            return Err(wrong());
        }
        let grammar = CString::new(grammar).map_err(|_| wrong())?;
        let root = CString::new(root).map_err(|_| wrong())?;
        // SAFETY: a valid vocabulary that outlives the sampler (the context holds its model), and C strings.
        let raw = unsafe {
            sys::llama_rs_sampler_init_grammar(vocab.as_ptr(), grammar.as_ptr(), root.as_ptr())
        };
        let raw = Raw(NonNull::new(raw).ok_or_else(wrong)?);
        self.grammar = Some(Grammar { raw, spent: Duration::ZERO, n_tokens: 0 });
        Ok(())
    }

    /// Chooses the next token from the logits of a vocabulary, and remembers it.
    ///
    /// # Errors
    ///
    /// As [`Sampler::propose`] and [`Sampler::accept`].
    pub fn choose(&mut self, logits: &[f32]) -> Result<Token, Error> {
        let token = self.propose(logits)?;
        self.accept(token)?;
        Ok(token)
    }

    /// Draws a token from the logits of a vocabulary, without remembering it; its generator goes on.
    ///
    /// # Errors
    ///
    /// Logits that are not numbers, or a grammar that no token fits.
    pub fn propose(&mut self, logits: &[f32]) -> Result<Token, Error> {
        // A NaN would fail an assert inside libllama; it comes from damaged weights.
        if logits.iter().any(|l| l.is_nan()) {
            return Err(Error::Invalid(
                "the model computed 'not a number': its weights are damaged".into(),
            ));
        }
        let begun = thread_time();
        let mut token = self.draw(logits, false)?;
        // Checking one token is cheap, checking the whole vocabulary is not.
        if !self.allows(token) {
            token = self.draw(logits, true)?;
            if !self.allows(token) {
                return Err(Error::Unfit("no token fits the format that was asked for"));
            }
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.spent += thread_time().saturating_sub(begun);
        }
        Ok(token)
    }

    /// Whether a grammar restricts it.
    pub fn has_grammar(&self) -> bool {
        self.grammar.is_some()
    }

    /// How many of `tokens`, one after the other, the grammar would let come next; all where there is none. It changes nothing.
    pub fn would_allow(&self, tokens: &[Token]) -> usize {
        let Some(grammar) = &self.grammar else { return tokens.len() };
        // SAFETY: a valid sampler; the copy is ours.
        let copy = unsafe { sys::llama_sampler_clone(grammar.raw.0.as_ptr()) };
        let Some(raw) = NonNull::new(copy).map(Raw) else { return 0 };
        for (i, &token) in tokens.iter().enumerate() {
            // SAFETY: a valid sampler, and a token that it allows.
            let fits = allowed_by(&raw, token)
                && unsafe { sys::llama_rs_sampler_accept(raw.0.as_ptr(), token) }
                    == sys::LLAMA_RS_STATUS_OK;
            if !fits {
                return i;
            }
        }
        tokens.len()
    }

    /// Draws from all tokens, or from those that the grammar allows.
    fn draw(&mut self, logits: &[f32], by_grammar: bool) -> Result<Token, Error> {
        let ids = 0..Token::try_from(logits.len()).unwrap_or(Token::MAX);
        let entry = |(id, &logit): (Token, &f32)| sys::llama_token_data { id, logit, p: 0.0 };
        self.candidates.clear();
        self.candidates.extend(ids.zip(logits).map(entry));
        let mut array = array(&mut self.candidates);
        let grammar = self.grammar.as_ref().filter(|_| by_grammar);
        // SAFETY: valid samplers, and an array that they may reorder and shorten.
        unsafe {
            if let Some(grammar) = grammar {
                sys::llama_sampler_apply(grammar.raw.0.as_ptr(), &raw mut array);
            }
            sys::llama_sampler_apply(self.chain.0.as_ptr(), &raw mut array);
        }
        let chosen = usize::try_from(array.selected).ok().filter(|&i| i < array.size);
        let chosen = chosen.ok_or(Error::Failed { what: "choosing a token" })?;
        // The samplers move entries only within the array.
        Ok(self.candidates[chosen].id)
    }

    /// Whether the grammar, if there is one, lets `token` come next.
    fn allows(&self, token: Token) -> bool {
        self.grammar.as_ref().is_none_or(|grammar| allowed_by(&grammar.raw, token))
    }

    /// Remembers a token that was proposed last.
    ///
    /// # Errors
    ///
    /// A token that the grammar forbids; one that comes to no end, or takes too much time.
    pub fn accept(&mut self, token: Token) -> Result<(), Error> {
        // libllama aborts on what a grammar forbids.
        if !self.allows(token) {
            return Err(Error::Invalid("no token fits the format that was asked for".into()));
        }
        let begun = thread_time();
        // SAFETY: valid samplers, and a token of the vocabulary; C++'s exceptions end inside.
        let status = unsafe {
            sys::llama_sampler_accept(self.chain.0.as_ptr(), token);
            match &self.grammar {
                Some(grammar) => sys::llama_rs_sampler_accept(grammar.raw.0.as_ptr(), token),
                None => sys::LLAMA_RS_STATUS_OK,
            }
        };
        if let Some(grammar) = &mut self.grammar {
            grammar.spent += thread_time().saturating_sub(begun);
            grammar.n_tokens += 1;
            if grammar.is_too_slow() {
                return Err(Error::Unfit("the format that was asked for takes too long to check"));
            }
        }
        match status {
            sys::LLAMA_RS_STATUS_OK => Ok(()),
            _ => Err(Error::Unfit("the grammar came to no end")),
        }
    }
}

/// Whether a grammar lets `token` come next.
fn allowed_by(grammar: &Raw, token: Token) -> bool {
    let mut one = [sys::llama_token_data { id: token, logit: 1.0, p: 0.0 }];
    let mut array = array(&mut one);
    // SAFETY: a valid sampler, and an array of one.
    unsafe { sys::llama_sampler_apply(grammar.0.as_ptr(), &raw mut array) };
    one[0].logit > f32::NEG_INFINITY
}

fn array(of: &mut [sys::llama_token_data]) -> sys::llama_token_data_array {
    sys::llama_token_data_array {
        data: of.as_mut_ptr(),
        size: of.len(),
        selected: -1,
        sorted: false,
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
