//! Who lives where: a pure function from (index, machine, needs, wishes) to a placement of every block, and the arithmetic of
//! what that placement will cost. No clock, no IO, no FFI: everything measured is handed in.
//!
//! `solve` decides. It works on a `problem` (the numbers of `machine`, with what can be told of the model once), lists the ways to place
//! it, has the promising ones worked out by `way` into a `draft`, which knows what it takes of each memory, and lets `estimate` judge the
//! plan that comes of it, by playing a pass through (`pipeline`). `parts` cuts blocks into what streams together, `cut` chooses which of that does, `experts` is what streams by
//! expert, `further` what GPUs hold besides the one that weights stream to. `pattern` tells libllama, `drafts` foresees what drafts bring, `report` shows. `golden` is a table of plans, for those who
//! change how they are made.

mod areas;
mod cut;
mod draft;
pub mod drafts;
pub mod estimate;
pub mod experts;
mod further;
#[cfg(test)]
mod golden;
mod limits;
pub mod machine;
mod parts;
mod pattern;
mod pipeline;
mod problem;
mod refusal;
pub mod report;
mod solve;
mod touched;
mod way;

pub use areas::Areas;
pub use drafts::{Foreseen, Gain, Habit, gain};
pub use estimate::{
    Bottleneck, Course, Estimate, Speed, computing_seconds, conversation, course, estimate,
    pass_seconds,
};
pub use experts::{ExpertBlock, ExpertRoom, Experts, OnDevice, Seen};
pub use machine::{
    Beside, ContextCost, Cost, Further, Gpu, GpuNeeds, Kind, MOST_FURTHER, Machine, Needs, Rates,
    Wish,
};
pub use refusal::{Pool, Refusal};
pub use solve::solve;
pub use touched::{Touched, share};

use std::collections::HashSet;
use std::ops::Range;

use crate::gguf::{Block, Index, Place};
use crate::units::Bytes;

/// What the device that computes says of a model's tensors, which are indices into [`Index::tensors`].
#[derive(Clone, Copy)]
pub struct Abilities<'a> {
    /// How large a slot must be to hold some of them.
    pub slot_size: &'a dyn Fn(&[usize]) -> Bytes,
    /// What so many slots for the experts of a block take, whose stacks these are; `None` where experts do not stream one by one.
    pub expert_region: &'a dyn Fn(&[usize], u64) -> Option<ExpertRoom>,
    /// Those of its blocks that a GPU cannot compute with: they live in RAM, and the CPU computes with them.
    pub left: &'a HashSet<usize>,
}

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
    /// In the memory of what computes it, for good: the GPU's, or RAM where the CPU computes.
    Resident,
    /// In RAM, computed by the CPU, while a GPU computes the rest; its attention may be resident all the same.
    Cpu,
    /// In RAM, and in a slot of the GPU while it is computed with.
    Host,
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
    /// Bytes of its block that are resident and computed with before it, and after the unit before it.
    pub before: Bytes,
}

/// A block and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which block.
    pub place: Place,
    /// Where it lives: of a block that is cut into parts, those that are not resident. Its small tensors always are.
    pub tier: Tier,
    /// Its bytes.
    pub len: Bytes,
    /// Those that stream.
    pub streamed: Bytes,
    /// Whether some of its parts stream, and others are resident.
    pub partly: bool,
    /// Those that the CPU computes with while a GPU computes the rest; none but in [`Tier::Cpu`].
    pub by_cpu: Bytes,
    /// Those besides that the GPU cannot compute with, and the CPU does.
    pub left: Bytes,
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
    /// Blocks that the CPU computes, and the small tensors of blocks that are cut into parts.
    pub blocks: Bytes,
    /// All slots, and the pool of experts.
    pub slots: Bytes,
    /// Blocks that a GPU gets from here in each pass.
    pub host: Bytes,
    /// What is read from disk passes through this on its way to a GPU.
    pub staging: Bytes,
    /// KV cache and compute buffers at the context and batch of the plan.
    pub context: Bytes,
    /// What loading takes beside the weights, and gives back before the context is filled.
    pub loading: Bytes,
}

impl Memory {
    /// The most that is in use at any time.
    pub fn peak(&self) -> Bytes {
        let lasting = self.process + self.outside + self.blocks + self.slots + self.host;
        lasting + self.staging + self.context.max(self.loading)
    }
}

/// What a GPU's memory is used for. (bytes)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GpuMemory {
    /// What may be used.
    pub budget: Bytes,
    /// The output matrix, where it lives there.
    pub outside: Bytes,
    /// Resident blocks, and the small tensors of those that stream.
    pub blocks: Bytes,
    /// All slots, and the pool of experts.
    pub slots: Bytes,
    /// KV cache and compute buffers.
    pub context: Bytes,
    /// What driver and kernels take for themselves.
    pub driver: Bytes,
    /// Room for a tensor of the CPU's blocks, which prompts bring here.
    pub visiting: Bytes,
}

impl GpuMemory {
    /// The most that is in use at any time.
    pub fn peak(&self) -> Bytes {
        let GpuMemory { outside, blocks, slots, context, driver, visiting, .. } = *self;
        outside + blocks + slots + context + driver + visiting
    }
}

/// A further GPU, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBy {
    /// Which of [`Gpu::further`] it is.
    pub number: usize,
    /// The blocks, whole and in a row: indices into [`Plan::blocks`].
    pub blocks: Range<usize>,
    /// What its memory is used for.
    pub memory: GpuMemory,
}

/// Where everything will live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every block once, in order of computation.
    pub blocks: Vec<Placed>,
    /// The units that stream, in order of computation.
    pub streamed: Vec<Unit>,
    /// What of them streams by expert where few are used.
    pub experts: Option<Experts>,
    /// What the CPU computes with while a GPU computes the rest: indices into [`crate::gguf::Index::tensors`].
    pub by_cpu: Vec<usize>,
    /// Whether the output matrix is one of those.
    pub output_by_cpu: bool,
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
    /// What the GPU's memory is used for, if one computes.
    pub gpu: Option<GpuMemory>,
    /// What of the context in RAM is keys and values of blocks that a GPU computes: the CPU computes attention then.
    pub kept_in_ram: Bytes,
    /// Further GPUs that hold blocks. The first has the last blocks and what comes after them, each other the blocks before; the streams
    /// are all to the other GPU.
    pub further: Vec<HeldBy>,
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
            before: Bytes::ZERO,
        };
        let placed = |b: &Block| Placed {
            place: b.place(),
            tier: Tier::Streamed,
            len: b.len,
            streamed: b.len,
            partly: false,
            by_cpu: Bytes::ZERO,
            left: Bytes::ZERO,
        };
        Plan {
            blocks: index.blocks.iter().map(placed).collect(),
            streamed: index.blocks.iter().enumerate().map(unit).collect(),
            experts: None,
            by_cpu: Vec::new(),
            output_by_cpu: false,
            n_slots: 2,
            slot: Bytes::ZERO,
            n_ctx,
            n_ubatch: 1,
            memory: Memory::default(),
            gpu: None,
            kept_in_ram: Bytes::ZERO,
            further: Vec::new(),
            promised: false,
        }
    }

    /// A plan that keeps all of a model where it is computed with.
    pub fn whole(index: &Index, n_ctx: u32) -> Plan {
        let hollow = Plan::hollow(index, n_ctx);
        let stays = |b: Placed| Placed { tier: Tier::Resident, streamed: Bytes::ZERO, ..b };
        let blocks = hollow.blocks.into_iter().map(stays).collect();
        Plan { blocks, streamed: Vec::new(), ..hollow }
    }

    /// The bytes of all units that stream: what a pass brings to the slots.
    pub fn streamed_bytes(&self) -> Bytes {
        self.streamed.iter().map(|u| u.len).sum()
    }

    /// The bytes of the units that are on disk: what a pass reads.
    pub fn disk_bytes(&self) -> Bytes {
        let on_disk = |u: &&Unit| self.blocks[u.block].tier == Tier::Streamed;
        self.streamed.iter().filter(on_disk).map(|u| u.len).sum()
    }

    /// What a token reads of the units on disk if no expert of it is there yet: all of a unit, or its experts' share of stacks.
    pub fn cold_bytes_per_token(&self) -> Bytes {
        self.token_bytes(1.0)
    }

    /// What a token is expected to read.
    pub fn bytes_per_token(&self) -> Bytes {
        let misses = self.experts.as_ref().map_or(1.0, |experts| 1.0 - experts.expected_hits());
        self.token_bytes(misses)
    }

    fn token_bytes(&self, misses: f64) -> Bytes {
        let on_disk = |u: &&Unit| self.blocks[u.block].tier == Tier::Streamed;
        let read = |unit: &Unit| match &self.experts {
            Some(experts) => touched::share(unit.len, experts.touched(unit, misses)),
            None => unit.len,
        };
        self.streamed.iter().filter(on_disk).map(read).sum()
    }

    /// How many blocks live in `tier`, those among them of which only parts stream.
    pub fn count(&self, tier: Tier) -> usize {
        self.blocks.iter().filter(|b| b.tier == tier).count()
    }

    /// The bytes of the blocks that live in `tier`, the resident parts of the others counted as resident.
    pub fn bytes(&self, tier: Tier) -> Bytes {
        let share = |b: &Placed| match (b.tier == tier, tier) {
            (true, Tier::Host | Tier::Streamed) => b.streamed,
            (true, Tier::Resident | Tier::Cpu) => b.len,
            (false, Tier::Resident) if b.streamed > Bytes::ZERO => b.len.saturating_sub(b.streamed),
            (false, _) => Bytes::ZERO,
        };
        self.blocks.iter().map(share).sum()
    }

    /// The further GPU that holds block `i`, if one does.
    pub fn held_by(&self, i: usize) -> Option<&HeldBy> {
        self.further.iter().find(|held| held.blocks.contains(&i))
    }

    /// How many blocks live whole on the GPU that others stream to, or in RAM where the CPU computes.
    pub fn count_here(&self) -> usize {
        self.count(Tier::Resident)
            - self.further.iter().map(|held| held.blocks.len()).sum::<usize>()
    }

    /// The bytes of what is resident there, blocks and parts of blocks.
    pub fn bytes_here(&self) -> Bytes {
        let held = self.further.iter().flat_map(|held| &self.blocks[held.blocks.clone()]);
        self.bytes(Tier::Resident).saturating_sub(held.map(|b| b.len).sum())
    }

    /// Of how many blocks some parts stream, and others are resident.
    pub fn count_partly(&self) -> usize {
        self.blocks.iter().filter(|b| b.partly).count()
    }
}
