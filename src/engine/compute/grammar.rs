//! What an answer must fit.

use crate::engine::Error;
use crate::engine::loaded::Engine;
use crate::ggml::{Sampler, SamplerSettings};

/// A grammar in libllama's form (GBNF).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// Its rules.
    pub rules: String,
    /// The rule that the text must fit.
    pub root: String,
}

impl Engine {
    /// Whether a grammar makes sense.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if not.
    pub fn check_grammar(&self, grammar: &Grammar) -> Result<(), Error> {
        let loaded = self.loaded();
        let vocab = loaded.model.vocab();
        let sampler = Sampler::new(&SamplerSettings::default(), vocab);
        let obeyed = sampler.and_then(|mut s| s.obey(&grammar.rules, &grammar.root, vocab));
        obeyed.map_err(|error| Error::Request(error.to_string()))
    }
}
