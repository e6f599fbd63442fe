//! The stream device: a ggml device that wraps a ggml device and brings each unit's weights to it just in time.
//!
//! libllama believes that it has a GPU with room for the whole model. When it hands over a graph, the device cuts it into
//! runs that need one unit's weights each, and computes run after run on the wrapped device, while the reader fills the other
//! slot:
//!
//! ```text
//! reader   | fill A: 1   | fill B: 2   | fill A: 3   | fill B: 4  ...
//! compute  |  (wait)     | run 1 in A  | run 2 in B  | run 3 in A ...
//! ```
//!
//! A device with memory of its own has a third actor, the copy queue, which brings what was read, or what RAM holds, to the slots.
//!
//! Where bytes are is all that changes; what is computed never does. `split`, `slots` and `chunks` are pure, `exec` is the loop,
//! `memory` is what it asks of slots, `host` and `device` are the two kinds of them, `outside` serves who
//! computes elsewhere, `experts` are what streams one by one, `vtable` is what C sees. `monitor` and `trace` only tell what happens.

mod chunks;
mod device;
mod exec;
pub mod experts;
mod host;
mod memory;
#[cfg(test)]
mod mock;
pub mod monitor;
mod outside;
pub mod passes;
pub mod slots;
pub mod split;
mod staging;
mod tables;
pub mod trace;
mod vtable;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub use monitor::{Monitor, Progress, UnitState};
pub use split::Unit;
pub use trace::Trace;
pub use vtable::StreamDevice;

use crate::ggml;
use crate::source::{Extent, ReadError, WeightSource};
use crate::units::{Bytes, MIB};

/// Where the bytes of a unit are between the passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In the model's files: read for every pass.
    #[default]
    Disk,
    /// In pinned host memory, read once, during the first pass; for devices with memory of their own.
    Ram,
}

/// What streams together: a block, or a part of one.
#[derive(Clone, Debug)]
pub struct UnitSpec {
    /// What people call it: `block 17`.
    pub name: String,
    /// What to read into a slot. Where slots are host memory, each extent is read straight to its place, and is best aligned for
    /// O_DIRECT; elsewhere it is copied there, and need not be.
    pub extents: Arc<[Extent]>,
    /// Stretches of the slot that are to be zero: what the device's kernels read beyond the end of a tensor. Where slots are host
    /// memory, there are none.
    pub zeros: Arc<[Range<u64>]>,
    /// Bytes of slot it takes.
    pub size: Bytes,
    /// Where its bytes come from in each pass.
    pub home: Home,
}

/// Where a streamed tensor is found once its unit is in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightPlace {
    /// Its unit.
    pub unit: Unit,
    /// Bytes from the start of the slot.
    pub offset: u64,
}

/// How what is read passes through the host's memory to a device with memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staging {
    /// What is read at a time; a multiple of [`crate::source::DIRECT_ALIGN`].
    pub chunk: Bytes,
    /// How many reads are under way at a time, and how many buffers of a chunk's size there are at most.
    pub n_buffers: usize,
}

impl Default for Staging {
    /// Chunks long enough for the link, and short enough that a unit's copies begin long before its last read; as many as a disk
    /// needs to be busy while some are being copied from.
    fn default() -> Staging {
        Staging { chunk: MIB * 4, n_buffers: 8 }
    }
}

/// What a stream device is made of.
#[derive(Debug)]
pub struct Config {
    /// The device that computes. Units are read straight into its memory if that is the host's, and copied there by a queue of
    /// their own if it is not.
    pub inner: ggml::Device,
    /// Its threads.
    pub threads: Arc<ggml::Threadpool>,
    /// Everything that streams.
    pub units: Vec<UnitSpec>,
    /// The streamed tensors by name.
    pub weights: HashMap<String, WeightPlace>,
    /// Where their bytes come from.
    pub source: Arc<dyn WeightSource>,
    /// Which of them stream by expert, where few are used.
    pub experts: Option<experts::ExpertsSpec>,
    /// How many units are in memory at once; at least two, so that one is read while another is computed with.
    pub n_slots: usize,
    /// Of no matter where slots are host memory.
    pub staging: Staging,
    /// Told of every step; its flag ends a computation.
    pub monitor: Arc<Monitor>,
}

/// Why a computation with streamed weights failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The weights of a unit could not be read.
    #[error("{unit}: {error}")]
    Read {
        /// Which unit.
        unit: String,
        /// Why.
        error: ReadError,
    },
    /// A single step needs more units than there are slots.
    #[error("one step of this model needs {units} at once, and there are {slots} slots")]
    TooFewSlots {
        /// Their names.
        units: String,
        /// Slots there are.
        slots: usize,
    },
    /// A panic: what the device was about is in an unknown state, and it computes no more.
    #[error("internal error: {0}; the model has to be opened again")]
    Panicked(String),
    /// A router chose an expert that is not there.
    #[error(
        "{block}: its router chose expert {expert}, and there are {count}: the model computes nonsense"
    )]
    NoSuchExpert {
        /// Whose.
        block: String,
        /// What it chose.
        expert: i32,
        /// How many there are.
        count: usize,
    },
    /// Something wanted bytes that no streamed tensor has.
    #[error("tensor '{0}' has no such bytes, or does not stream")]
    OutsideRun(String),
    /// The wrapped device failed.
    #[error(transparent)]
    Ggml(#[from] ggml::Error),
    /// Memory for the slots could not be had.
    #[error("cannot allocate {n_slots} slots of {size}: {message}")]
    NoMemory {
        /// Slots asked for.
        n_slots: usize,
        /// Bytes of each.
        size: Bytes,
        /// The system's message.
        message: String,
    },
}
