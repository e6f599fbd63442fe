//! What is to be placed, and what each memory has room for: what all who plan begin with, worked out once. What computes is a GPU, if
//! there is one, and the CPU otherwise; *here* is the memory of that.

use super::cut::Cut;
use super::experts::used;
use super::further;
use super::limits::{LEAST_UBATCH, RESIDENT_UBATCH, UBATCH_SHARE, UBATCH_WORTH, UBATCHES};
use super::machine::Further;
use super::parts::is_stack;
use super::parts::{LEVELS, Level, OF_MIXTURES};
use super::touched::Touched;
use super::{Abilities, ContextCost, GpuNeeds, Machine, Needs, Rates, StreamMode, Wish};
use crate::gguf::{Index, Place};
use crate::units::Bytes;

/// A model, a machine and a wish.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) index: &'a Index,
    pub(super) abilities: Abilities<'a>,
    pub(super) needs: &'a Needs,
    /// What a GPU needs, if one computes.
    pub(super) gpu: Option<GpuNeeds>,
    pub(super) wish: Wish,
    /// What plans are judged by.
    pub(super) rates: Rates,
    pub(super) touched: Touched,
    pub(super) outside: Outside,
    /// The RAM that may be used.
    pub(super) ram: Bytes,
    /// The memory of the GPU that may be used.
    pub(super) vram: Bytes,
    /// Of further GPUs, what may be used of each one's memory.
    pub(super) further: Further<Bytes>,
    /// Whether there are experts that can stream one by one.
    pub(super) by_expert: bool,
}

impl<'a> Problem<'a> {
    pub(super) fn new(
        index: &'a Index,
        machine: &Machine,
        needs: &'a Needs,
        wish: &Wish,
        abilities: Abilities<'a>,
    ) -> Problem<'a> {
        let gpu = machine.gpu.as_ref().zip(needs.gpu);
        let vram = |free: Bytes, reserve| wish.vram.unwrap_or(free.saturating_sub(reserve));
        let vram = gpu.map(|(gpu, _)| vram(gpu.free, gpu.reserve)).unwrap_or_default();
        let ram = wish.ram.unwrap_or(machine.ram.saturating_sub(machine.reserve));
        let shared = gpu.is_some_and(|(gpu, _)| gpu.shares_ram);
        let mut in_blocks = index.blocks.iter().flat_map(|b| &b.tensors);
        let stack = in_blocks.find(|&&t| is_stack(index, &index.tensors[t]));
        let one_by_one = |&t: &usize| (abilities.expert_region)(&[t], 1).is_some();
        Problem {
            index,
            abilities,
            needs,
            gpu: gpu.map(|(_, needs)| needs),
            wish: *wish,
            rates: gpu.map_or(machine.rates, |(gpu, _)| gpu.rates),
            touched: Touched::of(index),
            outside: Outside::of(index),
            ram: if shared { ram.saturating_sub(vram) } else { ram },
            vram,
            further: further::usable(index, gpu.map(|(gpu, _)| gpu.further).unwrap_or_default()),
            by_expert: used(index) > 0 && stack.is_some_and(one_by_one),
        }
    }

    /// The memory of what computes that may be used.
    pub(super) fn here(&self) -> Bytes {
        if self.gpu.is_some() { self.vram } else { self.ram }
    }

    /// What contexts take there.
    pub(super) fn context(&self) -> &ContextCost {
        self.gpu.as_ref().map_or(&self.needs.context, |gpu| &gpu.context)
    }

    /// What contexts take where they keep what was read, and the memory there that may be used.
    pub(super) fn keeps(&self) -> (&ContextCost, Bytes) {
        let in_ram = |gpu: &GpuNeeds| gpu.kept_in_ram != ContextCost::default();
        match self.gpu.as_ref().is_some_and(in_ram) {
            true => (&self.needs.context, self.ram),
            false => (self.context(), self.everywhere()),
        }
    }

    /// How many further GPUs there are.
    pub(super) fn n_further(&self) -> usize {
        self.further.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    /// All memory of what computes that may be used, that of further GPUs, too.
    fn everywhere(&self) -> Bytes {
        self.here() + self.further.iter().flatten().copied().sum::<Bytes>()
    }

    /// Bytes of what comes after the blocks, with the output matrix or without it.
    pub(super) fn after(&self, with_output: bool) -> Bytes {
        let output = if with_output { self.outside.output_len } else { Bytes::ZERO };
        self.outside.others + output
    }

    /// Whether all is to stream.
    pub(super) fn always(&self) -> bool {
        self.wish.stream == StreamMode::Always
    }

    /// Whether nothing may stream.
    pub(super) fn never(&self) -> bool {
        self.wish.stream == StreamMode::Never
    }

    /// The blocks, cut as finely as may be worth it: what is best first where all of it streams.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        // Whole blocks of a mixture would bring all of their experts for each token.
        let mut levels = LEVELS;
        levels.rotate_left(usize::from(self.by_expert));
        let of_mixtures: &[Level] =
            if self.by_expert && !self.always() { &OF_MIXTURES } else { &[] };
        let levels = of_mixtures.iter().chain(&levels);
        // Where there is nothing to stream, whole blocks say so.
        let worth = |cut: &Cut| !cut.parts.is_empty() || cut.level == Level::Blocks;
        levels.map(|&level| self.cut(level)).filter(worth).collect()
    }

    /// A GPU has norms, biases and routers of all blocks.
    pub(super) fn cut(&self, level: Level) -> Cut {
        Cut::new(self.index, level, self.gpu.is_some(), self.abilities)
    }

    /// A batch of `n` tokens, or as many as fit the context.
    pub(super) fn batch(&self, n: u32) -> u32 {
        n.clamp(1, self.wish.ctx.max(1))
    }

    /// The batch where nothing streams.
    pub(super) fn resident_batch(&self) -> u32 {
        self.batch(self.wish.ubatch.unwrap_or(RESIDENT_UBATCH))
    }

    /// The largest batch that pays and leaves room for blocks; `least` is what streaming everything takes here with a batch.
    pub(super) fn largest_batch(&self, least: impl Fn(u32) -> Bytes) -> u32 {
        let given = if self.gpu.is_some() { self.wish.vram } else { self.wish.ram };
        if self.wish.ubatch.is_some() || (self.always() && given.is_none()) {
            return self.resident_batch();
        }
        let usual = least(self.batch(RESIDENT_UBATCH));
        let limit = usual + Bytes(self.here().saturating_sub(usual).0 / UBATCH_SHARE);
        let allowed = if usual <= self.here() { limit } else { self.here() };
        let fits = UBATCHES.into_iter().map(|n| self.batch(n)).find(|&n| least(n) <= allowed);
        fits.unwrap_or(self.batch(UBATCHES[UBATCHES.len() - 1]))
    }

    /// The batches that are worth weighing against the blocks that they take the room of: those from the usual one on that `fit` with
    /// nothing resident, and smaller ones where that room is much; `largest` in any case.
    pub(super) fn batches(&self, largest: u32, fits: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut batches = vec![largest];
        if self.wish.ubatch.is_some() {
            return batches;
        }
        let usual = self.batch(RESIDENT_UBATCH).min(largest);
        let room = |n| self.context().at(self.wish.ctx, n);
        let worth = Bytes(self.here().0 / UBATCH_WORTH);
        let mut last = room(usual);
        let sensible = |n: &u32| *n >= LEAST_UBATCH && *n <= self.wish.ctx && *n != largest;
        for n in UBATCHES.into_iter().filter(sensible) {
            if n >= usual {
                batches.extend(fits(n).then_some(n));
            } else if last.saturating_sub(room(n)) >= worth {
                last = room(n);
                batches.push(n);
            }
        }
        batches
    }
}

/// What belongs to no block.
#[derive(Clone, Copy, Default)]
pub(super) struct Outside {
    /// The tensor of the output matrix: one of its own, or the embedding's.
    pub(super) output: Option<usize>,
    /// Whether it is the embedding's.
    pub(super) tied: bool,
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
        let own = named("output.weight");
        let output = own.or_else(|| named("token_embd.weight"));
        let output_len = output.map(|t| tensors[t].len).unwrap_or_default();
        let mut outside = Outside { output, tied: own.is_none(), output_len, ..Outside::default() };
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
