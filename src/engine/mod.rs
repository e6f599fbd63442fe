//! A loaded model: [`Engine`] is opened by `open`, and computed with by `compute` ([`Session`] is one timeline of it). The commands use nothing below this seam.

pub mod bench;
mod clock;
mod compute;
pub mod devices;
mod error;
mod experience;
mod habits;
mod loaded;
mod open;
mod pace;
pub mod quantize;
mod threads;
mod warm;

pub use clock::Clock;
pub use compute::batch;
pub use compute::batch::Finish;
pub use compute::draft;
pub use compute::embed;
pub use compute::generate::{Answer, Ask, generate};
pub use compute::grammar::Grammar;
pub use compute::session::Session;
pub use compute::shelf::Shelf;
pub use devices::{DeviceChoice, GpuBackend};
pub use error::Error;
pub use loaded::Engine;
pub use open::compare;
pub use open::options::{Draft, LoadOptions};
pub use open::planning::ContextRoom;
pub use pace::{Course, Pace, Reading};

/// Where a model would live, and what that costs, without loading it.
pub mod planning {
    pub use super::open::forecast::{Forecast, forecast, measured_plan, plan};
    pub use super::open::planning::{ContextRoom, Planned};
}

pub use crate::ggml::{
    Dry, KvHome, KvType, Mirostat, Recall, Rope, RopeScaling, SamplerSettings, Token, Verbosity,
    check_grammar_text, knows_architecture, set_verbosity,
};
pub use crate::gguf::Index;
pub use crate::plan::{Foreseen, StreamMode, Tier};
pub use crate::stream::experts;
pub use crate::stream::{Monitor, Progress, Trace, UnitState};
