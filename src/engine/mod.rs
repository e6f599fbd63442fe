//! A model that talks: [`Engine`] is a loaded model, [`Session`] one timeline of it. The commands use nothing below this seam.

pub mod bench;
pub mod chat;
mod error;
mod generate;
mod load;
pub mod planning;
pub mod quantize;
mod resident;
mod session;
pub mod template;
mod text;
pub mod tokenizer;

pub use error::Error;
pub use generate::{Answer, Finish, generate};
pub use load::{Engine, LoadOptions, Vocab};
pub use session::Session;

pub use crate::ggml::{SamplerSettings, Token};
pub use crate::plan::StreamMode;
pub use crate::stream::{Monitor, Progress, Trace};
