//! Who lives where: a pure function from (index, machine, needs, wishes) to a placement of every block, and the arithmetic of
//! what that placement will cost. No clock, no IO, no FFI: everything measured is handed in.
//!
//! `machine` holds the numbers that come in, `parts` cuts blocks into what streams together, `solve` decides, `pattern`
//! tells libllama, `estimate` predicts, `report` shows.

pub mod estimate;
pub mod machine;
mod parts;
mod pattern;
pub mod report;
mod solve;

pub use estimate::{Bottleneck, Estimate, Speed, Touched, estimate};
pub use machine::{ContextCost, Cost, Kind, Machine, Needs, Rates, Wish};
pub use solve::{Refusal, solve};

use crate::gguf::{Block, Index, Place};
use crate::units::Bytes;

/// Whether blocks stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamMode {
    /// As many as do not fit.
    #[default]
    Auto,
    /// All of them, even if they fit, in the least memory; for tests and measurements.
    Always,
    /// None; what does not fit is refused.
    Never,
}

/// Where a block lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// In RAM, as an ordinary CPU layer: filled once, never evicted.
    Resident,
    /// On disk, and in a slot while it is computed with.
    Streamed,
}

/// What streams together: a block, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What people call it: `block 17`, `block 17 (ffn)`.
    pub name: String,
    /// The block that it belongs to: an index into [`crate::gguf::Index::blocks`].
    pub block: usize,
    /// Indices into [`crate::gguf::Index::tensors`], in file order.
    pub tensors: Vec<usize>,
    /// Sum of their bytes.
    pub len: Bytes,
}

/// A block and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which block.
    pub place: Place,
    /// Where it lives. The small tensors of a streamed block that is cut into parts are resident all the same.
    pub tier: Tier,
    /// Its bytes.
    pub len: Bytes,
}

/// What the RAM is used for. (bytes)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// What may be used.
    pub budget: Bytes,
    /// The program, the vocabulary, the model's description.
    pub process: Bytes,
    /// Embedding, output, and whatever else belongs to no block.
    pub outside: Bytes,
    /// Resident blocks, and the small tensors of blocks that are cut into parts.
    pub blocks: Bytes,
    /// All slots.
    pub slots: Bytes,
    /// KV cache and compute buffers at the context and batch of the plan.
    pub context: Bytes,
    /// What loading takes beside the weights, and gives back before the context is filled.
    pub loading: Bytes,
}

impl Memory {
    /// The most that is in use at any time.
    pub fn peak(&self) -> Bytes {
        let lasting = self.process + self.outside + self.blocks + self.slots;
        lasting + self.context.max(self.loading)
    }
}

/// Where everything will live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every block once, in order of computation.
    pub blocks: Vec<Placed>,
    /// The units that stream, in order of computation; everything else is resident.
    pub streamed: Vec<Unit>,
    /// Units in memory at once.
    pub n_slots: usize,
    /// Room for one unit.
    pub slot: Bytes,
    /// Tokens of context.
    pub n_ctx: u32,
    /// Tokens per pass over the streamed units.
    pub n_ubatch: u32,
    /// What the RAM is used for.
    pub memory: Memory,
    /// Whether the budget was given by the user, and thus is a promise.
    pub promised: bool,
}

impl Plan {
    /// A plan that streams every block, whatever it takes: what a model is described to ggml with, to ask what it needs.
    pub fn hollow(index: &Index, n_ctx: u32) -> Plan {
        let unit = |(block, b): (usize, &Block)| Unit {
            name: b.title(),
            block,
            tensors: b.tensors.clone(),
            len: b.len,
        };
        let placed = |b: &Block| Placed { place: b.place(), tier: Tier::Streamed, len: b.len };
        Plan {
            blocks: index.blocks.iter().map(placed).collect(),
            streamed: index.blocks.iter().enumerate().map(unit).collect(),
            n_slots: 2,
            slot: Bytes::ZERO,
            n_ctx,
            n_ubatch: 1,
            memory: Memory::default(),
            promised: false,
        }
    }

    /// The bytes of all streamed units: what a pass reads.
    pub fn streamed_bytes(&self) -> Bytes {
        self.streamed.iter().map(|u| u.len).sum()
    }

    /// How many blocks live in `tier`.
    pub fn count(&self, tier: Tier) -> usize {
        self.blocks.iter().filter(|b| b.tier == tier).count()
    }
}
