//! What a model is to be loaded with, as the commands say it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::devices::DeviceChoice;
use crate::plan::StreamMode;
use crate::stream::Monitor;
use crate::units::Bytes;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What computes.
    pub device: DeviceChoice,
    /// Whether blocks stream.
    pub stream: StreamMode,
    /// Tokens of context that each sequence may have; 0 is what the model was trained for.
    pub ctx: Option<u32>,
    /// Sequences that are computed at once; 1 for a [`Session`](super::Session), more for a [`batch`](super::batch). Room
    /// is made for four of full length at most, which they share.
    pub sequences: u32,
    /// Compute threads; the machine's cores if nothing is said.
    pub threads: Option<u32>,
    /// Tokens per pass.
    pub ubatch: Option<u32>,
    /// RAM that may be used.
    pub ram: Option<Bytes>,
    /// Device memory that may be used.
    pub vram: Option<Bytes>,
    /// Lets ggml repack resident weights for this CPU.
    pub repack: bool,
    /// Takes also models that make vectors of texts.
    pub embedding: bool,
    /// A `tokenizer.json` to be used instead of the file's tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Keeps blocks that stream from RAM there. Without, they are read for every pass all the same: for tests, and to measure.
    pub keep: bool,
    /// Where others see how far it is; a monitor serves one model.
    pub monitor: Option<Arc<Monitor>>,
}

/// Tokens of a text whose vector is made that are read at a time: each gives logits, too, which take room and which nobody wants.
pub(in crate::engine) const VECTOR_TOKENS: u32 = 32;

/// Sequences whose full context is in the plan. There may be more: few texts are long at the same time.
const FULL_SEQUENCES: u32 = 4;

impl LoadOptions {
    /// Tokens of a batch that give logits: one of each text that is written, or some of one whose vector is made.
    pub(in crate::engine) fn outputs(&self) -> u32 {
        self.sequences.max(if self.embedding { VECTOR_TOKENS } else { 1 })
    }

    /// Into how many contexts of full length the context is divided.
    pub(in crate::engine) fn shares(&self) -> u32 {
        self.sequences.clamp(1, FULL_SEQUENCES)
    }
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: DeviceChoice::Auto,
            stream: StreamMode::Auto,
            ctx: None,
            sequences: 1,
            threads: None,
            ubatch: None,
            ram: None,
            vram: None,
            repack: true,
            embedding: false,
            tokenizer: None,
            keep: true,
            monitor: None,
        }
    }
}
