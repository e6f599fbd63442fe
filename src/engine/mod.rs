//! A model that talks: [`Engine`] is a loaded model, [`Session`] one timeline of it. The commands use nothing below this seam.

pub mod batch;
pub mod bench;
pub mod chat;
pub mod devices;
pub mod embed;
mod error;
mod generate;
mod layout;
mod load;
mod loading;
mod needs;
mod options;
pub mod planning;
pub mod quantize;
mod rates;
mod resident;
mod session;
mod stop;
pub mod template;
mod text;
pub mod tokenizer;
mod vocab;

pub use devices::{DeviceChoice, GpuBackend};
pub use error::Error;
pub use generate::{Answer, Finish, generate};
pub use load::Engine;
pub use options::LoadOptions;
pub use session::Session;
pub use stop::StopWords;
pub use vocab::Vocab;

pub use crate::ggml::{SamplerSettings, Token, Verbosity, grammar_of_schema, set_verbosity};
pub use crate::plan::{StreamMode, Tier};
pub use crate::stream::{Monitor, Progress, Trace, UnitState};
