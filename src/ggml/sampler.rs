//! How the next token is chosen: libllama's chain of samplers, from plain settings, and a grammar that the text must fit.
#![allow(unsafe_code)]

mod chain;
mod settings;

use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

use ggml_sys as sys;

use super::llama::{Token, Vocab};
use super::result::Error;
use chain::Raw;
pub use settings::{Dry, Mirostat, SamplerSettings};

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
    /// How many of the last tokens matter.
    memory: usize,
    /// The vocabulary with its logits: used by each draw, and kept so that none allocates.
    candidates: Vec<sys::llama_token_data>,
}

// SAFETY: a sampler may move between threads; its methods take `&mut self`.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Builds the chain for a vocabulary.
    pub fn new(params: &SamplerSettings, vocab: Vocab<'_>) -> Result<Sampler, Error> {
        super::init();
        let chain = chain::chain(params, vocab)?;
        Ok(Sampler { chain, grammar: None, memory: params.memory(), candidates: Vec::new() })
    }

    /// Remembers `prompt` as what was said before: penalties hold for its last tokens, too.
    pub fn recall(&mut self, prompt: &[Token], vocab: Vocab<'_>) {
        let begin = prompt.len() - self.memory.min(prompt.len());
        for &token in prompt[begin..].iter().filter(|&&token| vocab.contains(token)) {
            // SAFETY: a valid sampler, and a token of the vocabulary.
            unsafe { sys::llama_sampler_accept(self.chain.0.as_ptr(), token) };
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
        // SAFETY: samplers move entries, and the array's beginning, only within `candidates`, which nothing has touched since.
        Ok(unsafe { (*array.data.add(chosen)).id })
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
