//! Why the engine could not do what it was asked: one sentence, and what to do about it.

use crate::gguf::Index;
use crate::{ggml, gguf, plan, source, stream, talk};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a model that can be run.
    #[error(transparent)]
    File(#[from] gguf::Error),
    /// The weights' files could not be opened for streaming.
    #[error(transparent)]
    Open(#[from] source::OpenError),
    /// libllama or ggml refused.
    #[error("model '{model}': {error}")]
    Ggml {
        /// The file.
        model: String,
        /// What was refused.
        error: ggml::Error,
    },
    /// The weights could not be read.
    #[error("model '{model}': {error}")]
    Load {
        /// The file.
        model: String,
        /// Why.
        error: source::ReadError,
    },
    /// Streaming failed.
    #[error("model '{model}': {error}")]
    Stream {
        /// The file.
        model: String,
        /// Why.
        error: stream::Error,
    },
    /// The device that was asked for is not there.
    #[error("device '{wanted}': {why}")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// Why not.
        why: String,
        /// The devices that there are.
        there: String,
        /// What airrun would have to be built with.
        build: Option<&'static str>,
    },
    /// A model that is not made to write text.
    #[error("model '{model}': it is {what}")]
    NotForText {
        /// The file.
        model: String,
        /// What it is.
        what: &'static str,
    },
    /// A head in a file of its own where a model is wanted.
    #[error("model '{model}': it is a head that drafts for another model")]
    HeadAlone {
        /// The file.
        model: String,
    },
    /// A model cannot draft for another.
    #[error("draft '{model}': {why}")]
    Draft {
        /// Its file.
        model: String,
        /// Why not.
        why: String,
    },
    /// No placement fits the memory.
    #[error("model '{model}': {refusal}")]
    Plan {
        /// The file.
        model: String,
        /// What is missing, and what would fit.
        refusal: plan::Refusal,
    },
    /// The file has no tokenizer, and text was to be turned into tokens.
    #[error("model '{model}': the file has no tokenizer")]
    NoTokenizer {
        /// The file.
        model: String,
    },
    /// Text could not be turned into tokens.
    #[error(transparent)]
    Tokenizer(#[from] talk::Error),
    /// The chat template does not end, or takes memory without end.
    #[error(transparent)]
    Template(#[from] talk::template::TemplateError),
    /// More tokens than the context has room for.
    #[error("the prompt is too long: {tokens} tokens, and the context has room for {room}")]
    ContextTooSmall {
        /// Tokens there are.
        tokens: usize,
        /// Tokens there is room for, the first token of an answer excepted.
        room: usize,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} is not in the vocabulary, which has {n_vocab} tokens")]
    NoSuchToken {
        /// The token.
        token: i32,
        /// The size of the vocabulary.
        n_vocab: usize,
    },
    /// Nothing to run.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A request that cannot be served as it is.
    #[error("{0}")]
    Request(String),
    /// A computation for several texts failed; this one was among them.
    #[error("{0}")]
    Failed(String),
    /// Somebody asked to stop before there was a result.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::File(error) => error.hint().to_owned(),
            Error::Ggml { error: ggml::Error::NoMemory { .. }, .. } => {
                "a smaller context (-c) needs less memory".to_owned()
            }
            Error::Stream { error: stream::Error::Read { .. }, .. } => {
                "check the disk and the file; what was said so far is kept".to_owned()
            }
            Error::Load { .. } => "check the disk and the file".to_owned(),
            Error::NoDevice { there, build, .. } => {
                let make = build
                    .map(|b| format!("; `make {b}` builds one that does"))
                    .filter(|_| *build != Some("metal"));
                format!("there is {there}{}", make.unwrap_or_default())
            }
            Error::HeadAlone { model } => {
                format!("name the other model, and this file behind it: --draft {model}")
            }
            Error::NotForText { .. } => "airrun runs models that continue a text".to_owned(),
            Error::Plan { refusal, .. } => refusal.hint(),
            Error::NoTokenizer { .. } => "--tokenizer tokenizer.json gives it one; \
                 `airrun logits MODEL --tokens 1,2,3` runs a model without"
                .to_owned(),
            Error::ContextTooSmall { tokens, .. } => {
                format!("make the context larger: -c {}", tokens + 256)
            }
            Error::Tokenizer(error) => error.hint()?.to_owned(),
            Error::EmptyPrompt => "give a prompt as an argument or on stdin".to_owned(),
            Error::Template(error) => error.hint().to_owned(),
            _ => return None,
        })
    }
}

/// The first file's path, for messages.
pub(super) fn model_name(index: &Index) -> String {
    index.files.first().map_or_else(String::new, |f| f.path.display().to_string())
}

/// Wraps an error of ggml with the model's name.
pub(super) fn ggml_error(index: &Index) -> impl Fn(ggml::Error) -> Error {
    move |error| match error {
        ggml::Error::Unfit(why) => Error::Request(why.to_owned()),
        error => Error::Ggml { model: model_name(index), error },
    }
}
