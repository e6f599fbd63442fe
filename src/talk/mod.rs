//! Between people's words and a model's tokens: conversations to prompts (templates), texts to tokens and back (tokenizers), and where
//! an answer's text ends (stop words, whole characters). It loads no model and computes nothing.

pub mod ask;
pub mod chat;
mod error;
pub mod first;
mod hush;
mod ids;
pub mod marks;
mod message;
pub mod pair;
pub mod speech;
mod stop;
pub mod template;
pub mod thinking;
pub mod tokenizer;
pub mod tools;
mod utf8;
mod vocab;

pub use error::Error;
pub use message::{Message, Role};
pub use stop::StopWords;
pub use utf8::Utf8Stream;
pub use vocab::Vocab;
