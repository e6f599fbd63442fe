//! How the next token is chosen: libllama's chain of samplers, from plain settings, and a grammar that the text must fit.
#![allow(unsafe_code)]

mod chain;
mod settings;

use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

use ggml_sys as sys;

use super::model::Token;
use super::result::Error;
use super::vocab::Vocab;
use crate::os::process::thread_time;
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
    /// What the last one took, but for the search for it.
    last: Duration,
    /// What was spent on the next one's search so far.
    searched: Duration,
}

impl Grammar {
    /// Whether it takes, with what is not counted yet, so much time that other texts would suffer.
    fn is_too_slow(&self, took: Duration) -> bool {
        self.spent + took > SPARE_TIME + TIME_PER_TOKEN * self.n_tokens
    }
}

/// What a grammar may take of the processor's time: so much for each token, and some once.
const TIME_PER_TOKEN: Duration = Duration::from_millis(500);
const SPARE_TIME: Duration = Duration::from_secs(5);
/// A text whose tokens take less is quick.
const QUICK: Duration = Duration::from_millis(5);
/// Tokens of which a grammar is asked at once, at first.
const FEW: usize = 16;

/// A chain of libllama's samplers.
#[derive(Debug)]
pub struct Sampler {
    chain: Raw,
    grammar: Option<Grammar>,
    /// How many of the last tokens matter.
    memory: usize,
    /// The vocabulary with its logits: used by each draw, and kept so that none allocates.
    candidates: Vec<sys::llama_token_data>,
    /// Of how many of them the grammar was asked, while it is asked of all.
    sifted: Option<usize>,
}

// SAFETY: a sampler may move between threads; its methods take `&mut self`.
unsafe impl Send for Sampler {}

impl Sampler {
    /// Builds the chain for a vocabulary.
    pub fn new(params: &SamplerSettings, vocab: Vocab<'_>) -> Result<Sampler, Error> {
        super::init();
        let chain = chain::chain(params, vocab)?;
        let memory = params.memory();
        Ok(Sampler { chain, grammar: None, memory, candidates: Vec::new(), sifted: None })
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
    /// libllama does not understand the grammar, or would come to no end with it.
    pub fn obey(&mut self, grammar: &str, root: &str, vocab: Vocab<'_>) -> Result<(), Error> {
        let wrong = || Error::Invalid("the grammar makes no sense".into());
        super::grammar::gbnf::read(grammar)?;
        let grammar = CString::new(grammar).map_err(|_| wrong())?;
        let root = CString::new(root).map_err(|_| wrong())?;
        // SAFETY: a valid vocabulary that outlives the sampler (the context holds its model), and C strings.
        let raw = unsafe {
            sys::llama_rs_sampler_init_grammar(vocab.as_ptr(), grammar.as_ptr(), root.as_ptr())
        };
        let raw = Raw(NonNull::new(raw).ok_or_else(wrong)?);
        let zero = Duration::ZERO;
        self.grammar = Some(Grammar { raw, spent: zero, n_tokens: 0, last: zero, searched: zero });
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
    /// Logits that are not numbers, or a grammar that no token fits or that takes too much time.
    pub fn propose(&mut self, logits: &[f32]) -> Result<Token, Error> {
        if let Some(token) = self.guess(logits)? {
            return Ok(token);
        }
        loop {
            if let Some(token) = self.search(logits, Duration::MAX)? {
                return Ok(token);
            }
        }
    }

    /// Draws a token, and checks whether it may come: that is cheap, and checking the whole vocabulary is not. None if it may not:
    /// then [`Sampler::search`] is next.
    ///
    /// # Errors
    ///
    /// Logits that are not numbers.
    pub fn guess(&mut self, logits: &[f32]) -> Result<Option<Token>, Error> {
        // A NaN would fail an assert inside libllama; it comes from damaged weights.
        if logits.iter().any(|l| l.is_nan()) {
            return Err(Error::Invalid(
                "the model computed 'not a number': its weights are damaged".into(),
            ));
        }
        self.sifted = None;
        self.fill(logits);
        let token = self.draw()?;
        let begun = thread_time();
        let fits = self.allows(token);
        if let Some(grammar) = &mut self.grammar {
            grammar.last = thread_time().saturating_sub(begun);
            grammar.spent += grammar.last;
            grammar.searched = Duration::ZERO;
        }
        Ok(fits.then_some(token))
    }

    /// Draws from the tokens that may come, after a guess that may not. None while there is more to ask the grammar than it answers in
    /// `time`: it is to be called again, with the same logits.
    ///
    /// # Errors
    ///
    /// A grammar that no token fits, or that takes too much time.
    pub fn search(&mut self, logits: &[f32], time: Duration) -> Result<Option<Token>, Error> {
        let begun = thread_time();
        let mut sifted = self.sifted.unwrap_or_else(|| {
            self.fill(logits);
            0
        });
        let mut few = FEW;
        while sifted < self.candidates.len() {
            let took = thread_time().saturating_sub(begun);
            if took > time || self.is_searched_too_long(took) {
                break;
            }
            let end = self.candidates.len().min(sifted + few);
            self.sift(sifted, end);
            (sifted, few) = (end, few * 2);
        }
        let took = thread_time().saturating_sub(begun);
        let too_long = self.is_searched_too_long(took);
        if let Some(grammar) = &mut self.grammar {
            grammar.spent += took;
            grammar.searched += took;
        }
        if too_long {
            return Err(too_slow());
        }
        if sifted < self.candidates.len() {
            self.sifted = Some(sifted);
            return Ok(None);
        }
        self.sifted = None;
        let token = self.draw()?;
        match self.allows(token) {
            true => Ok(Some(token)),
            false => Err(Error::Unfit("no token fits the format that was asked for")),
        }
    }

    /// Whether the next token is to be expected at once, unless it must be searched for: there is no grammar, or it was quick.
    pub fn is_quick(&self) -> bool {
        self.grammar.as_ref().is_none_or(|g| g.n_tokens > 0 && g.last < QUICK)
    }

    /// What the last token took, with the search for it.
    pub fn last_took(&self) -> Duration {
        self.grammar.as_ref().map_or(Duration::ZERO, |g| g.last + g.searched)
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

    /// Whether the search for a token, with what it just took, is longer than all texts may wait.
    fn is_searched_too_long(&self, took: Duration) -> bool {
        self.grammar.as_ref().is_some_and(|grammar| grammar.is_too_slow(took))
    }

    /// Takes all tokens as candidates.
    fn fill(&mut self, logits: &[f32]) {
        let ids = 0..Token::try_from(logits.len()).unwrap_or(Token::MAX);
        let entry = |(id, &logit): (Token, &f32)| sys::llama_token_data { id, logit, p: 0.0 };
        self.candidates.clear();
        self.candidates.extend(ids.zip(logits).map(entry));
    }

    /// Makes those of some candidates impossible that the grammar does not allow: it looks at each by itself.
    fn sift(&mut self, begin: usize, end: usize) {
        let Some(grammar) = &self.grammar else { return };
        let mut array = array(&mut self.candidates[begin..end]);
        // SAFETY: a valid sampler, and an array of which it changes the logits.
        unsafe { sys::llama_sampler_apply(grammar.raw.0.as_ptr(), &raw mut array) };
    }

    /// Draws from the candidates.
    fn draw(&mut self) -> Result<Token, Error> {
        let mut array = array(&mut self.candidates);
        // SAFETY: valid samplers, and an array that they may reorder and shorten.
        unsafe { sys::llama_sampler_apply(self.chain.0.as_ptr(), &raw mut array) };
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
            let took = thread_time().saturating_sub(begun);
            grammar.spent += took;
            grammar.last += took;
            grammar.n_tokens += 1;
            if grammar.is_too_slow(Duration::ZERO) {
                return Err(too_slow());
            }
        }
        match status {
            sys::LLAMA_RS_STATUS_OK => Ok(()),
            _ => Err(Error::Unfit("the grammar came to no end")),
        }
    }
}

fn too_slow() -> Error {
    Error::Unfit("the format that was asked for takes too long to check")
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
