//! Why a text could not become tokens: one sentence.

use std::path::PathBuf;

/// Why a tokenizer could not be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A tokenizer of the user's own that cannot be used.
    #[error("tokenizer '{}': {why}", path.display())]
    Own {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The model's own refuses.
    #[error("model 'the tokenizer': {0}")]
    Model(#[from] crate::ggml::Error),
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Own { .. } => Some("give the tokenizer.json that was published with the model"),
            Error::Model(_) => None,
        }
    }
}
