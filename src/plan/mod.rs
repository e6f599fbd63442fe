//! Who lives where: a pure function from (index, machine, wishes) to a placement. No clock, no IO, no FFI.

use crate::gguf::Index;
use crate::units::Bytes;

/// Whether blocks stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamMode {
    /// As many as do not fit.
    #[default]
    Auto,
    /// All of them, even if they fit; for tests and measurements.
    Always,
    /// None; what does not fit is the system's problem.
    Never,
}

/// What streams together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What people call it: `block 17`.
    pub name: String,
    /// Indices into [`Index::tensors`], in file order.
    pub tensors: Vec<usize>,
    /// Sum of their bytes.
    pub len: Bytes,
}

/// Where everything will live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The units that stream, in order of computation; everything else is resident.
    pub streamed: Vec<Unit>,
    /// Units in memory at once.
    pub n_slots: usize,
    /// Tokens of context.
    pub n_ctx: u32,
    /// Tokens per pass over the streamed units.
    pub n_ubatch: u32,
}

/// A unit for each block of the model.
pub fn block_units(index: &Index) -> Vec<Unit> {
    index
        .blocks
        .iter()
        .map(|b| Unit {
            name: format!("block {}", b.place()),
            tensors: b.tensors.clone(),
            len: b.len,
        })
        .collect()
}
