//! What further GPUs hold beside the one that weights stream to: the last blocks of a model, whole and for good, with their keys and
//! values and with what comes after the blocks. The first of them has the last blocks, each other those before, so that activations cross
//! once for each. What is left is planned for as with one GPU.

use std::ops::Range;

use super::cut::Cut;
use super::machine::{Further, MOST_FURTHER};
use super::{GpuMemory, HeldBy};
use crate::gguf::Index;
use crate::units::Bytes;

/// What further GPUs hold of a draft.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// How many blocks each of them holds.
    counts: [usize; MOST_FURTHER],
    /// What that takes of its memory.
    memory: [GpuMemory; MOST_FURTHER],
}

impl Held {
    /// How many blocks they hold together.
    pub(super) fn n(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The bytes of the blocks that each holds.
    pub(super) fn bytes(&self) -> [Bytes; MOST_FURTHER] {
        self.memory.map(|memory| memory.blocks)
    }

    /// Those that hold some of `n_blocks` blocks, that with the last ones first.
    pub(super) fn by(&self, n_blocks: usize) -> Vec<HeldBy> {
        let mut end = n_blocks;
        let mut of = |(number, (&count, &memory)): (usize, (&usize, &GpuMemory))| {
            let blocks: Range<usize> = end - count..end;
            end = blocks.start;
            HeldBy { number, blocks, memory }
        };
        let all = self.counts.iter().zip(&self.memory).enumerate();
        all.filter(|(_, (count, _))| **count > 0).map(&mut of).collect()
    }
}

/// What may be used of further GPUs' memory for a model: none of it, where libllama could not be told which blocks are theirs. It counts
/// blocks from 0 on, all of them in one row.
pub(super) fn usable(index: &Index, budgets: Further<Bytes>) -> Further<Bytes> {
    let blocks = || index.blocks.iter();
    let in_a_row = blocks().enumerate().all(|(i, b)| usize::try_from(b.number) == Ok(i));
    let of_one_stack = blocks().all(|b| b.stack == index.blocks[0].stack);
    let n = index.arch_uint("block_count").unwrap_or(blocks().len() as u64);
    if in_a_row && of_one_stack && n == blocks().len() as u64 {
        budgets
    } else {
        Further::default()
    }
}

/// What there is to fill, and what it takes.
pub(super) struct Filling {
    /// What may be used of each GPU.
    pub(super) budgets: Further<Bytes>,
    /// What each takes whatever it holds.
    pub(super) own: [GpuMemory; MOST_FURTHER],
    /// What is kept of texts by all blocks.
    pub(super) kept: Bytes,
    /// What comes after the blocks: the first that holds some has it.
    pub(super) after: Bytes,
    /// Blocks that they hold together, at most.
    pub(super) at_most: usize,
}

impl Filling {
    /// As many whole blocks of `cut`, from the last one on, as there is room for.
    pub(super) fn of(&self, cut: &Cut) -> Held {
        let mut held = Held::default();
        let n = cut.blocks.len();
        let mut left = n.min(self.at_most);
        let mut rest = cut.blocks.as_slice();
        for (i, budget) in self.budgets.iter().enumerate() {
            let Some(budget) = *budget else { continue };
            let after = if held.n() == 0 { self.after } else { Bytes::ZERO };
            let own = self.own[i];
            let mut memory = GpuMemory { budget, outside: after, ..own };
            let mut count = 0;
            while let Some((block, before)) = rest.split_last().filter(|_| left > 0) {
                let blocks = memory.blocks + block.len.saturating_sub(block.left);
                let context = own.context + share_of(self.kept, count + 1, n);
                let with = GpuMemory { blocks, context, ..memory };
                if with.peak() > budget {
                    break;
                }
                (memory, rest, count, left) = (with, before, count + 1, left - 1);
            }
            if count > 0 {
                (held.counts[i], held.memory[i]) = (count, memory);
            }
        }
        held
    }
}

/// What `count` of `n` blocks take of `all`, more by a byte for each at most.
pub(super) fn share_of(all: Bytes, count: usize, n: usize) -> Bytes {
    Bytes(all.0.div_ceil(n.max(1) as u64)) * count as u64
}
