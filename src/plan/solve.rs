//! The decision: which blocks stream, in how small parts, through slots of which size, with how large batches.
//!
//! Streamed blocks are spread evenly among resident ones, so that one is read while those before it are computed; a resident
//! prefix would be computed while the reader, two slots ahead at most, has nothing to do. `estimate` holds the test.

use super::parts::{self, CutBlock, LEVELS, Level};
use super::{ContextCost, Machine, Memory, Needs, Placed, Plan, StreamMode, Tier, Wish, offload};
use crate::gguf::{Index, Place};
use crate::units::Bytes;

/// Units in memory at once: one is computed with, one is read.
pub(super) const N_SLOTS: usize = 2;

/// Tokens per pass when everything is resident, as in llama.cpp; more gains nothing.
pub(super) const RESIDENT_UBATCH: u32 = 512;

/// Tokens per pass that are tried when blocks stream: each pass reads all of them, so more is faster until computing takes
/// longer than reading, which on any CPU it does long before 2048.
pub(super) const UBATCHES: [u32; 7] = [2048, 1024, 512, 256, 128, 64, 32];

/// A batch above [`RESIDENT_UBATCH`] may take this share of the memory that could hold blocks instead.
pub(super) const UBATCH_SHARE: u64 = 8;

/// A context that nobody asked for may take this share of the memory.
const CONTEXT_SHARE: u64 = 4;

/// Numbers of streamed blocks that are tried at most: enough for any model, and not too slow for any file.
pub(super) const MAX_TRIES: usize = 512;

/// A memory with a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The machine's.
    Ram,
    /// The GPU's.
    Vram,
}

impl Pool {
    fn name(self) -> &'static str {
        match self {
            Pool::Ram => "RAM",
            Pool::Vram => "the GPU's memory",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Pool::Ram => "--ram",
            Pool::Vram => "--vram",
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "needs at least {least} of {} with a context of {ctx} tokens, and {} {budget}",
    pool.name(),
    match (*.promised, pool) {
        (true, _) => format!("{} allows", pool.flag()),
        (false, Pool::Ram) => "this machine has room for".to_owned(),
        (false, Pool::Vram) => "the GPU has room for".to_owned(),
    }
)]
pub struct Refusal {
    /// Which memory is too small.
    pub pool: Pool,
    /// What it takes at least.
    pub least: Bytes,
    /// What may be used.
    pub budget: Bytes,
    /// Whether the user said so.
    pub promised: bool,
    /// Whether the user wants every block resident.
    pub resident: bool,
    /// The context that was wanted. (tokens)
    pub ctx: u32,
    /// The longest context that would fit; 0 if none does. (tokens)
    pub fits: u32,
}

impl Refusal {
    /// What would fit.
    pub fn hint(&self) -> String {
        let mut ways = Vec::new();
        if self.promised {
            // Rounded up, and one more: what the program itself takes differs from run to run by some pages.
            ways.push(format!("{} {}M", self.pool.flag(), self.least.0.div_ceil(1 << 20) + 1));
        }
        if self.fits > 0 {
            ways.push(format!("-c {}", self.fits));
        }
        if self.resident {
            ways.push("--stream auto".to_owned());
        }
        if self.pool == Pool::Vram {
            ways.push("--device cpu".to_owned());
        }
        match ways.as_slice() {
            [] => "close other programs, or take a smaller model".to_owned(),
            ways => format!("this would fit: {}", ways.join(", or ")),
        }
    }
}

/// Decides where every block of `index` lives. `slot_size` tells how large a slot must be to hold the given tensors.
///
/// # Errors
///
/// The least that the model needs is more than may be used.
pub fn solve(
    index: &Index,
    machine: &Machine,
    needs: &Needs,
    wish: &Wish,
    slot_size: &dyn Fn(&[usize]) -> Bytes,
) -> Result<Plan, Refusal> {
    if let (Some(gpu), Some(gpu_needs)) = (&machine.gpu, &needs.gpu) {
        return offload::solve(index, machine, gpu, needs, gpu_needs, wish, slot_size);
    }
    let budget = wish.ram.unwrap_or(machine.ram.saturating_sub(machine.reserve));
    let wish = &Wish { ctx: choose_context(&needs.context, wish, budget), ..*wish };
    let problem = Problem { index, needs, wish, slot_size, budget };
    let n = index.blocks.len();
    if wish.stream != StreamMode::Always || n == 0 {
        let cut = parts::cut_all(index, Level::Blocks, false);
        let n_ubatch = problem.batch(wish.ubatch.unwrap_or(RESIDENT_UBATCH));
        let plan = problem.plan(&cut, &|_| false, n_ubatch, Bytes::ZERO);
        if plan.memory.peak() <= budget {
            return Ok(plan);
        }
        if wish.stream == StreamMode::Never || n == 0 {
            return Err(problem.refuse(&plan));
        }
    }
    let tried = LEVELS.map(|(level, price)| (problem.at_level(level), price));
    let plans = tried.iter().filter_map(|(plan, price)| Some((plan.as_ref().ok()?, price)));
    let best = match wish.stream {
        StreamMode::Always => plans.into_iter().next(),
        _ => plans.min_by_key(|(plan, price)| plan.streamed_bytes() * **price),
    };
    if let Some((plan, _)) = best {
        return Ok(plan.clone());
    }
    let refusals = tried.into_iter().filter_map(|(plan, _)| plan.err());
    Err(refusals.min_by_key(|r| r.least).expect("nothing fits at any level"))
}

/// The wanted context, or half of it and so on while it takes more than its share.
pub(super) fn choose_context(cost: &ContextCost, wish: &Wish, budget: Bytes) -> u32 {
    let affordable = |&ctx: &u32| {
        let n_ubatch = wish.ubatch.unwrap_or(RESIDENT_UBATCH).min(ctx);
        cost.at(ctx, n_ubatch) <= Bytes(budget.0 / CONTEXT_SHARE)
    };
    let halves = std::iter::successors(Some(wish.ctx), |ctx| Some(ctx / 2));
    let enough = halves.take_while(|&ctx| ctx > wish.ctx_least);
    enough
        .chain([wish.ctx_least.min(wish.ctx)])
        .find(affordable)
        .unwrap_or(wish.ctx_least.min(wish.ctx))
}

struct Problem<'a> {
    index: &'a Index,
    needs: &'a Needs,
    wish: &'a Wish,
    slot_size: &'a dyn Fn(&[usize]) -> Bytes,
    budget: Bytes,
}

impl Problem<'_> {
    /// The best plan that streams units of this level, if any fits.
    fn at_level(&self, level: Level) -> Result<Plan, Refusal> {
        let cut = parts::cut_all(self.index, level, false);
        let sizes = cut.iter().map(|b| b.units.iter().map(|u| (self.slot_size)(&u.tensors)).max());
        let sizes: Vec<Bytes> = sizes.map(Option::unwrap_or_default).collect();
        let largest = sizes.iter().copied().max().unwrap_or_default();
        let all = |n_ubatch| self.plan(&cut, &|_| true, n_ubatch, largest);
        let n_ubatch = self.choose_batch(|n| all(n).memory.peak());
        let all = all(n_ubatch);
        if self.wish.stream == StreamMode::Always || all.memory.peak() > self.budget {
            return if all.memory.peak() <= self.budget { Ok(all) } else { Err(self.refuse(&all)) };
        }
        let n = cut.len();
        let mut best = all;
        for n_streamed in (1..n).step_by(n.div_ceil(MAX_TRIES)) {
            let streams = |i| is_streamed(i, n_streamed, n);
            let slot = (0..n).filter(|&i| streams(i)).map(|i| sizes[i]).max().unwrap_or_default();
            let memory = self.memory(&cut, &streams, n_ubatch, slot);
            // Not the fewest blocks but the fewest bytes: blocks differ.
            let bytes: Bytes = (0..n).filter(|&i| streams(i)).map(|i| cut[i].len).sum();
            if memory.peak() <= self.budget && bytes < best.streamed_bytes() {
                best = self.plan(&cut, &streams, n_ubatch, slot);
            }
        }
        Ok(best)
    }

    /// The largest batch that pays and leaves room for blocks; `least` is what streaming everything takes with a batch.
    fn choose_batch(&self, least: impl Fn(u32) -> Bytes) -> u32 {
        if let Some(n) = self.wish.ubatch {
            return self.batch(n);
        }
        if self.wish.stream == StreamMode::Always && self.wish.ram.is_none() {
            return self.batch(RESIDENT_UBATCH);
        }
        let usual = least(self.batch(RESIDENT_UBATCH));
        let limit = usual + Bytes(self.budget.saturating_sub(usual).0 / UBATCH_SHARE);
        let allowed = if usual <= self.budget { limit } else { self.budget };
        let fits = UBATCHES.into_iter().map(|n| self.batch(n)).find(|&n| least(n) <= allowed);
        fits.unwrap_or(self.batch(UBATCHES[UBATCHES.len() - 1]))
    }

    fn batch(&self, n: u32) -> u32 {
        n.clamp(1, self.wish.ctx.max(1))
    }

    /// The plan that streams the blocks that `streams` names.
    fn plan(
        &self,
        cut: &[CutBlock],
        streams: &dyn Fn(usize) -> bool,
        n_ubatch: u32,
        slot: Bytes,
    ) -> Plan {
        let tier = |i| if streams(i) { Tier::Streamed } else { Tier::Resident };
        let blocks = self.index.blocks.iter().enumerate();
        let streamed = cut.iter().enumerate().filter(|&(i, _)| streams(i));
        let streamed: Vec<_> = streamed.flat_map(|(_, b)| b.units.iter().cloned()).collect();
        Plan {
            blocks: blocks
                .map(|(i, b)| Placed {
                    place: b.place(),
                    tier: tier(i),
                    len: b.len,
                    by_cpu: Bytes::ZERO,
                })
                .collect(),
            n_slots: if streamed.is_empty() { 0 } else { N_SLOTS },
            streamed,
            by_cpu: Vec::new(),
            output_by_cpu: false,
            slot,
            n_ctx: self.wish.ctx,
            n_ubatch,
            gpu: None,
            memory: self.memory(cut, streams, n_ubatch, slot),
            promised: self.wish.ram.is_some(),
        }
    }

    fn memory(
        &self,
        cut: &[CutBlock],
        streams: &dyn Fn(usize) -> bool,
        n_ubatch: u32,
        slot: Bytes,
    ) -> Memory {
        let outside = || self.index.tensors.iter().filter(|t| !matches!(t.place, Place::Block(..)));
        let mut memory = Memory {
            budget: self.budget,
            process: self.needs.process,
            outside: outside().map(|t| t.len).sum::<Bytes>() + self.tied_output(),
            slots: slot * N_SLOTS as u64,
            context: self.needs.context.at(self.wish.ctx, n_ubatch),
            ..Memory::default()
        };
        // libllama repacks a tensor out of a buffer as large as itself.
        let repacked = |len: Bytes| if self.wish.repack { len } else { Bytes::ZERO };
        let mut staged = repacked(outside().map(|t| t.len).max().unwrap_or_default());
        for (i, block) in cut.iter().enumerate() {
            if streams(i) {
                memory.blocks += block.kept;
            } else {
                memory.blocks += block.len;
                staged = staged.max(repacked(block.largest));
            }
        }
        memory.loading = staged + self.needs.read_ahead.min(memory.outside + memory.blocks);
        memory
    }

    /// A model without an output matrix uses the embedding's; repacked, that is a second copy.
    fn tied_output(&self) -> Bytes {
        let named = |name: &str| self.index.tensors.iter().find(|t| t.name == name);
        match (named("output.weight"), named("token_embd.weight")) {
            (None, Some(embedding)) if self.wish.repack => embedding.len,
            _ => Bytes::ZERO,
        }
    }

    /// Why `plan`, the smallest of its kind, does not fit.
    fn refuse(&self, plan: &Plan) -> Refusal {
        let Wish { ctx, .. } = *self.wish;
        let memory = plan.memory;
        let fixed = memory.peak() - memory.context.max(memory.loading);
        let room = self.budget.saturating_sub(fixed);
        let fits = match memory.loading <= room {
            true => self.needs.context.longest(room, ctx, plan.n_ubatch),
            false => 0,
        };
        Refusal {
            pool: Pool::Ram,
            least: memory.peak(),
            budget: self.budget,
            promised: plan.promised,
            resident: self.wish.stream == StreamMode::Never,
            ctx,
            fits,
        }
    }
}

/// Whether block `i` of `n` is one of `n_streamed` that are spread evenly.
pub(super) fn is_streamed(i: usize, n_streamed: usize, n: usize) -> bool {
    (i + 1) * n_streamed / n > i * n_streamed / n
}

#[cfg(test)]
pub(super) mod tests;
