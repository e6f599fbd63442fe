//! What an answer must fit.

use serde_json::Value;

use crate::engine::Error;
use crate::engine::loaded::Engine;
use crate::ggml::{Sampler, SamplerSettings, SchemaGrammar, grammar_of_schema};

/// A grammar in libllama's form (GBNF).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grammar {
    /// Its rules.
    pub rules: String,
    /// The rule that the text must fit.
    pub root: String,
    /// What they were to hold it to, and do not.
    pub loose: Vec<String>,
}

impl Grammar {
    /// Rules whose root is called so.
    pub fn of(rules: String) -> Grammar {
        Grammar { rules, root: "root".to_owned(), loose: Vec::new() }
    }

    /// The grammar of what fits a JSON schema.
    ///
    /// # Errors
    ///
    /// There is none, or, where it must be `strict`, none that holds a text to all of it.
    pub fn of_schema(schema: &Value, strict: bool) -> Result<Grammar, Error> {
        let made = grammar_of_schema(schema);
        let made = if strict { made.and_then(SchemaGrammar::strictly) } else { made };
        let made = made.map_err(|error| Error::Request(error.to_string()))?;
        let loose = made.warnings();
        Ok(Grammar { loose, ..Grammar::of(made.rules) })
    }
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
