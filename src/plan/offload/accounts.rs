//! What a placement takes of both memories: sizes and sums. What is worth it is decided elsewhere.

use super::super::parts::{self, CutBlock, Level};
use super::super::{GpuMemory, Memory, Tier};
use super::{Part, Problem};
use crate::gguf::{Index, Place};
use crate::units::Bytes;

/// What belongs to no block.
pub(super) struct Outside {
    /// The tensor of the output matrix: one of its own, or the embedding's.
    pub(super) output: Option<usize>,
    /// Its bytes.
    pub(super) output_len: Bytes,
    /// The final norm, and what else comes after the blocks.
    pub(super) others: Bytes,
    /// What comes before them, for which the CPU is good enough: rows are looked up.
    pub(super) embedding: Bytes,
    /// The largest tensor.
    pub(super) largest: Bytes,
}

impl Outside {
    pub(super) fn of(index: &Index) -> Outside {
        let tensors = &index.tensors;
        let named = |name: &str| tensors.iter().position(|t| t.name == name);
        let output = named("output.weight").or_else(|| named("token_embd.weight"));
        let mut outside = Outside {
            output,
            output_len: output.map(|t| tensors[t].len).unwrap_or_default(),
            others: Bytes::ZERO,
            embedding: Bytes::ZERO,
            largest: Bytes::ZERO,
        };
        for (i, tensor) in tensors.iter().enumerate() {
            match tensor.place {
                Place::Block(..) => continue,
                Place::Embedding => outside.embedding += tensor.len,
                Place::Output if output == Some(i) => {}
                Place::Output => outside.others += tensor.len,
            }
            outside.largest = outside.largest.max(tensor.len);
        }
        outside
    }
}

/// Blocks as they are cut, with what each needs.
pub(super) struct Cut {
    pub(super) blocks: Vec<CutBlock>,
    pub(super) sizes: Vec<Sizes>,
}

/// What a block needs. (bytes)
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// The largest of its units, in a slot.
    pub(super) slot: Bytes,
    /// All of its units, in RAM.
    pub(super) host: Bytes,
    /// Its feed-forward network.
    pub(super) ffn: Bytes,
}

/// What is decided before the blocks get their tiers.
#[derive(Clone, Copy)]
pub(super) struct Draft<'a> {
    pub(super) cut: &'a Cut,
    pub(super) part: Part,
    /// Whether the output matrix is in the GPU's memory.
    pub(super) output_here: bool,
    pub(super) n_ubatch: u32,
    pub(super) n_slots: usize,
}

impl Problem<'_> {
    pub(super) fn cut(&self, level: Level) -> Cut {
        let blocks = parts::cut_all(self.index, level, true, self.abilities.left);
        let size = |block: &CutBlock| {
            let units = || block.units.iter().map(|u| (self.abilities.slot_size)(&u.tensors));
            Sizes {
                slot: units().max().unwrap_or_default(),
                host: units().sum(),
                ffn: block.ffn.iter().map(|&t| self.index.tensors[t].len).sum(),
            }
        };
        let sizes = blocks.iter().map(size).collect();
        Cut { blocks, sizes }
    }

    /// Room for the largest unit that streams.
    pub(super) fn slot(&self, cut: &Cut, tiers: &[Tier]) -> Bytes {
        let sizes = cut.sizes.iter().zip(tiers);
        let streams = sizes.filter(|(_, t)| matches!(t, Tier::Host | Tier::Streamed));
        streams.map(|(s, _)| s.slot).max().unwrap_or_default()
    }

    pub(super) fn gpu_memory(&self, draft: Draft<'_>, tiers: &[Tier]) -> GpuMemory {
        let Draft { cut, part, output_here, n_ubatch, n_slots } = draft;
        let Outside { output_len, others, .. } = self.outside;
        let outside = if output_here { others + output_len } else { others };
        let mut memory = GpuMemory {
            budget: self.vram,
            outside,
            slots: self.slot(cut, tiers) * n_slots as u64,
            context: self.gpu_needs.context.at(self.wish.ctx, n_ubatch),
            driver: self.gpu_needs.driver.at(self.wish.ctx, n_ubatch),
            ..GpuMemory::default()
        };
        for ((block, sizes), tier) in cut.blocks.iter().zip(&cut.sizes).zip(tiers) {
            match (tier, part) {
                (Tier::Resident, _) => memory.blocks += block.len.saturating_sub(block.left),
                (Tier::Cpu, Part::Whole) => {}
                (Tier::Cpu, Part::Ffn) => {
                    memory.blocks += block.len.saturating_sub(sizes.ffn + block.left);
                }
                (Tier::Host | Tier::Streamed, _) => memory.blocks += block.kept,
            }
            if *tier == Tier::Cpu {
                memory.visiting = memory.visiting.max(block.largest);
            }
        }
        if !output_here {
            memory.visiting = memory.visiting.max(output_len);
        }
        if shares(draft, tiers) {
            memory.context += self.gpu_needs.shared[1];
        }
        memory
    }

    pub(super) fn memory(&self, draft: Draft<'_>, tiers: &[Tier]) -> Memory {
        let Draft { cut, part, output_here, n_ubatch, .. } = draft;
        let Outside { output_len, embedding, largest, .. } = self.outside;
        let outside = if output_here { embedding } else { embedding + output_len };
        let shared = if shares(draft, tiers) { self.gpu_needs.shared[0] } else { Bytes::ZERO };
        let mut memory = Memory {
            budget: self.ram,
            process: self.needs.process,
            outside,
            context: self.needs.context.at(self.wish.ctx, n_ubatch) + shared,
            ..Memory::default()
        };
        // libllama reads a tensor into RAM before it is the GPU's.
        let mut largest = largest;
        for ((block, sizes), tier) in cut.blocks.iter().zip(&cut.sizes).zip(tiers) {
            if (*tier, part) != (Tier::Cpu, Part::Whole) {
                memory.blocks += block.left;
            }
            match (tier, part) {
                (Tier::Resident, _) => {}
                (Tier::Cpu, Part::Whole) => memory.blocks += block.len,
                (Tier::Cpu, Part::Ffn) => memory.blocks += sizes.ffn,
                (Tier::Host, _) => memory.host += sizes.host,
                (Tier::Streamed, _) => memory.staging = self.gpu_needs.staging,
            }
            if matches!(tier, Tier::Resident | Tier::Cpu) {
                largest = largest.max(block.largest);
            }
        }
        if tiers.contains(&Tier::Host) {
            // What is at home in RAM comes from the disk once, the same way.
            memory.staging = self.gpu_needs.staging;
        }
        memory.loading = largest + self.needs.read_ahead;
        memory
    }
}

/// Whether the CPU computes a part of the model.
fn shares(draft: Draft<'_>, tiers: &[Tier]) -> bool {
    !draft.output_here || tiers.contains(&Tier::Cpu)
}
