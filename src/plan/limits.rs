//! What is tried at all: batches, slots, contexts, numbers of blocks; the same with and without a GPU.

use super::refusal::Refusal;
use super::{ContextCost, Plan, Wish};
use crate::units::Bytes;

/// The fewest units in memory at once: one is computed with, one is read.
pub(super) const N_SLOTS: usize = 2;

/// Tokens per pass when everything is resident, as in llama.cpp; more gains nothing.
pub(super) const RESIDENT_UBATCH: u32 = 512;

/// Tokens per pass that are tried when blocks stream: each pass reads all of them, so more is faster until computing takes
/// longer than reading, which on any CPU it does long before 2048.
pub(super) const UBATCHES: [u32; 7] = [2048, 1024, 512, 256, 128, 64, 32];

/// A batch above [`RESIDENT_UBATCH`] may take this share of the memory that could hold blocks instead.
pub(super) const UBATCH_SHARE: u64 = 8;

/// A batch below it is weighed where it leaves at least this share of the memory to blocks ...
pub(super) const UBATCH_WORTH: u64 = 32;

/// ... but none of fewer tokens: its passes over the disk would be many, if that were slower than it was measured. (tokens)
pub(super) const LEAST_UBATCH: u32 = 64;

/// A context that nobody asked for may take this share of the memory.
const CONTEXT_SHARE: u64 = 4;

/// A context is not halved for less than this share of the memory, all halvings together.
const SAVED_SHARE: u64 = 16;

/// Numbers of streamed blocks that are tried at most: enough for any model, and not too slow for any file.
const MAX_TRIES: usize = 512;

/// The plan that `solve` finds with the wanted context, or half of it and so on: where it takes more than its share, and where
/// nothing fits otherwise.
pub(super) fn with_context(
    cost: &ContextCost,
    wish: &Wish,
    budget: Bytes,
    solve: impl Fn(&Wish) -> Result<Plan, Refusal>,
) -> Result<Plan, Refusal> {
    let least = wish.ctx_least.min(wish.ctx);
    let mut ctx = choose_context(cost, wish, budget);
    loop {
        match solve(&Wish { ctx, ..*wish }) {
            Err(_) if ctx > least => ctx = (ctx / 2).max(least),
            result => return result,
        }
    }
}

/// The wanted context, or half of it and so on while it takes more than its share. What a pass needs at any length does not count
/// much: halving would not give it to the blocks.
pub(super) fn choose_context(cost: &ContextCost, wish: &Wish, budget: Bytes) -> u32 {
    let least = wish.ctx_least.min(wish.ctx);
    let bytes = |ctx: u32| cost.at(ctx, wish.ubatch.unwrap_or(RESIDENT_UBATCH).min(ctx));
    let affordable = |&ctx: &u32| {
        let saved = bytes(ctx).saturating_sub(bytes(least));
        bytes(ctx) <= Bytes(budget.0 / CONTEXT_SHARE) || saved <= Bytes(budget.0 / SAVED_SHARE)
    };
    let halves = std::iter::successors(Some(wish.ctx), |ctx| Some(ctx / 2));
    halves.take_while(|&ctx| ctx > least).find(affordable).unwrap_or(least)
}

/// Whether block `i` of `n` is one of `n_chosen` that are spread evenly.
pub(super) fn is_spread(i: usize, n_chosen: usize, n: usize) -> bool {
    (i + 1) * n_chosen / n > i * n_chosen / n
}

/// The numbers up to `last`, or some of them that are spread evenly, the ends among them.
pub(super) fn tries(last: usize) -> impl Iterator<Item = usize> {
    (0..last).step_by(last.div_ceil(MAX_TRIES).max(1)).chain([last])
}
