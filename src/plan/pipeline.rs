//! A pass over a plan, step by step: what each step brings and computes, and how long all of them take when the reader fills slots while
//! others compute. What comes of it for people is the matter of `estimate`.

use super::experts::Experts;
use super::touched::{Touched, share};
use super::{Beside, Placed, Plan, Rates, Tier, Unit};
use crate::units::Bytes;

/// One step of the pipeline: what must be brought for it, and what it computes. (seconds)
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Until it is in its slot: reading, or copying to the GPU, which goes on meanwhile; the slower of the two.
    pub(super) read: f64,
    /// What of that the disk is busy.
    pub(super) disk: f64,
    /// Until the first bytes come, if nothing else is being read meanwhile.
    pub(super) latency: f64,
    pub(super) compute: f64,
    /// Whether it is a unit that streams.
    pub(super) streams: bool,
    /// What is read of it when it is known what is needed: not before the step before it is computed ...
    pub(super) asked: f64,
    /// ... and what of it is computed meanwhile, with what is there.
    pub(super) meanwhile: f64,
}

impl Step {
    fn computing(compute: f64) -> Step {
        Step { compute, ..Step::default() }
    }
}

/// What a disk takes to answer, with what it takes to ask it and to hear of it. (seconds)
const LATENCY: f64 = 150e-6;

/// What a unit costs where its slot is host memory: the threads end one run and begin another. (seconds)
const RUN: f64 = 100e-6;

/// What it takes to hand activations from the GPU to the CPU or back, and to wait for them. (seconds)
const HAND_OVER: f64 = 40e-6;

/// Passes that are expected to use this share of the experts or more get whole stacks.
const NEARLY_ALL: f64 = 0.6;

/// Batches from here on bring weights of the CPU's blocks to the GPU, as ggml's scheduler does. (tokens)
const OFFLOAD: u32 = 32;

/// The steps of a pass of `tokens` tokens: the blocks, then the output.
pub(super) fn steps(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> Vec<Step> {
    let used = |len: Bytes| share(len, touched.of_block);
    let mut steps = Vec::with_capacity(plan.blocks.len() + plan.streamed.len() + 1);
    let mut units = plan.streamed.iter().peekable();
    let attention = attention(plan, rates, touched, tokens);
    let one_by_one = OneByOne::of(plan, tokens);
    let disk = rates.disk_in(tokens);
    for (i, block) in plan.blocks.iter().enumerate() {
        steps.extend(attention.filter(|_| block.tier != Tier::Cpu));
        match (block.tier, rates.gpu) {
            (Tier::Resident, _) | (Tier::Cpu, None) => {
                let here = block.len.saturating_sub(block.left);
                steps.push(stays(plan, i, rates, used(here), tokens));
            }
            (Tier::Cpu, Some(beside)) => {
                let seconds = by_both(block, rates, &beside, touched, tokens);
                steps.push(Step::computing(seconds));
            }
            (Tier::Host | Tier::Streamed, gpu) => {
                let mut kept = block.len.saturating_sub(block.left);
                let resident = |len| Step::computing(rates.resident.seconds(used(len), tokens));
                while let Some(unit) = units.next_if(|u| u.block == i) {
                    if unit.before > Bytes::ZERO {
                        steps.push(resident(unit.before));
                    }
                    let run = if gpu.is_some() { 0.0 } else { RUN };
                    let compute = rates.streamed.seconds(used(unit.len), tokens) + run;
                    if let Some(one_by_one) = &one_by_one
                        && let Some(step) = one_by_one.step(unit, rates, compute)
                    {
                        steps.push(step);
                        kept = kept.saturating_sub(unit.len + unit.before);
                        continue;
                    }
                    let on_disk = block.tier == Tier::Streamed;
                    let disk = if on_disk { disk.seconds(unit.len) } else { 0.0 };
                    let link = gpu.map_or(0.0, |gpu| gpu.link.seconds(unit.len));
                    let disk_is_slower = disk > link;
                    let read = disk.max(link);
                    let disk = if disk_is_slower { disk } else { 0.0 };
                    let latency = if on_disk { LATENCY } else { 0.0 };
                    let (asked, meanwhile) = (0.0, 0.0);
                    let streams = true;
                    steps.push(Step { read, disk, latency, compute, streams, asked, meanwhile });
                    kept = kept.saturating_sub(unit.len + unit.before);
                }
                // What comes after the last of them, and small tensors wherever they are.
                if kept > Bytes::ZERO {
                    steps.push(resident(kept));
                }
            }
        }
    }
    let left: Bytes = plan.blocks.iter().map(|b| b.left).sum();
    if let (Some(beside), true) = (rates.gpu, left > Bytes::ZERO) {
        let n = plan.blocks.iter().filter(|b| b.left > Bytes::ZERO).count();
        #[expect(clippy::cast_precision_loss, reason = "few blocks")]
        let hand_over = 2.0 * HAND_OVER * n as f64;
        steps.push(Step::computing(beside.cpu.seconds(used(left), tokens) + hand_over));
    }
    // Only the last token's logits are computed.
    let cost = match rates.gpu {
        Some(beside) if plan.output_by_cpu => beside.cpu,
        _ => plan.further.first().map_or(rates.resident, |last| rates.of_further(last.number)),
    };
    steps.push(Step::computing(cost.one.seconds(touched.output)));
    steps
}

/// A block's attention, where the CPU computes it beside a GPU because keys and values are in RAM: it reads half of what there is room for,
/// as it would weights, for each query, and is asked and answers.
fn attention(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> Option<Step> {
    let beside = rates.gpu.filter(|_| plan.kept_in_ram > Bytes::ZERO)?;
    let n = plan.blocks.iter().filter(|b| b.tier != Tier::Cpu).count();
    let read = Bytes(plan.kept_in_ram.0 / 2 / n.max(1) as u64);
    let queries = touched.queries.saturating_mul(tokens);
    Some(Step::computing(2.0 * HAND_OVER + beside.cpu.seconds(read, queries)))
}

/// Block `i`, which stays where it is computed: with the first GPU or with a further one, to whose first block activations are handed over.
fn stays(plan: &Plan, i: usize, rates: &Rates, used: Bytes, tokens: u32) -> Step {
    let held = plan.held_by(i);
    let cost = held.map_or(rates.resident, |held| rates.of_further(held.number));
    let crosses = held.is_some_and(|held| held.blocks.start == i);
    Step::computing(cost.seconds(used, tokens) + if crosses { HAND_OVER } else { 0.0 })
}

/// How a pass gets its experts where it gets them one by one.
struct OneByOne<'a> {
    experts: &'a Experts,
    tokens: u32,
}

impl<'a> OneByOne<'a> {
    /// `None` if a pass of so many tokens gets whole stacks.
    fn of(plan: &'a Plan, tokens: u32) -> Option<OneByOne<'a>> {
        let experts = plan.experts.as_ref()?;
        let this = OneByOne { experts, tokens };
        let few = experts.used * u64::from(tokens) <= experts.enough_for();
        // A device has no room but that of its pool for experts to pass through.
        let may_pass = experts.on_device.is_none_or(|above| above.n_slots == 0 && tokens == 1);
        (few || (may_pass && this.touched() < NEARLY_ALL)).then_some(this)
    }

    /// The share of a block's experts that a pass uses, all alike likely.
    #[expect(clippy::cast_precision_loss, reason = "few experts")]
    fn touched(&self) -> f64 {
        let count = self.experts.blocks.iter().map(|b| b.count).max().unwrap_or(1);
        let misses = 1.0 - (self.experts.used as f64 / count as f64).min(1.0);
        1.0 - misses.powf(f64::from(self.tokens))
    }

    /// A unit's step, if it consists of stacks.
    fn step(&self, unit: &Unit, rates: &Rates, compute: f64) -> Option<Step> {
        let read = share(unit.len, self.share_of(unit)?);
        let disk = rates.disk_in(self.tokens).seconds(read);
        // Copies to a device go on while the next is read, and the host waits for the router's numbers.
        let asked = match (rates.gpu, self.experts.on_device) {
            (Some(beside), Some(_)) => {
                let misses = 1.0 - self.experts.expected_on_device();
                let brought = share(unit.len, self.touched() * misses.max(1e-9));
                disk.max(beside.link.seconds(brought)) + HAND_OVER
            }
            _ => disk,
        };
        // All but the last product, of the experts that are there.
        let hits = if self.tokens == 1 { self.experts.expected_hits() } else { 0.0 };
        let n = unit.tensors.len().max(1);
        #[expect(clippy::cast_precision_loss, reason = "few tensors")]
        let meanwhile = compute * hits * (n - 1) as f64 / n as f64;
        let (latency, streams, read) = (LATENCY, true, 0.0);
        Some(Step { asked, disk, latency, compute, streams, read, meanwhile })
    }

    /// The share of a unit's bytes that is read, if it consists of stacks.
    fn share_of(&self, unit: &Unit) -> Option<f64> {
        let blocks = &self.experts.blocks;
        let block = &blocks[blocks.binary_search_by_key(&unit.block, |b| b.block).ok()?];
        let kept = self.experts.used * u64::from(self.tokens) <= self.experts.enough_for();
        let misses = if kept { 1.0 - self.experts.expected_hits() } else { 1.0 };
        // Never nothing: it is asked for.
        let share = (self.touched() * misses).max(1e-9);
        unit.tensors.iter().all(|t| block.stacks.contains(t)).then_some(share)
    }
}

/// Seconds of a block of which the CPU computes a part, or all.
fn by_both(block: &Placed, rates: &Rates, beside: &Beside, touched: Touched, tokens: u32) -> f64 {
    let whole = block.by_cpu == block.len;
    let of_cpu = if whole { touched.of_block } else { touched.of_ffn };
    let here = share(block.by_cpu, of_cpu);
    let there = share(block.len.saturating_sub(block.left), touched.of_block).saturating_sub(here);
    let on_gpu = rates.resident.seconds(there, tokens);
    // The attention's memory is the GPU's, so that a whole block is handed over four times.
    let hand_over = HAND_OVER * if whole { 4.0 } else { 2.0 };
    if tokens < OFFLOAD {
        return on_gpu + hand_over + beside.cpu.seconds(here, tokens);
    }
    // Only the experts that a batch uses are brought, but a batch uses nearly all.
    on_gpu + beside.link.seconds(block.by_cpu) + rates.resident.seconds(here, tokens)
}

/// Seconds of a pass among many: the reader fills slots in order, a slot is free once its unit is computed.
pub(super) fn seconds_per_pass(steps: &[Step], n_slots: usize) -> f64 {
    play(steps, n_slots).0
}

/// The same, and when each step's computation begins and ends in it. (seconds)
pub(super) fn play(steps: &[Step], n_slots: usize) -> (f64, Vec<(f64, f64)>) {
    const PASSES: usize = 4;
    let mut times = Vec::with_capacity(steps.len());
    let mut reader = 0.0_f64; // when it is free
    let mut cores = 0.0_f64;
    let mut freed = std::collections::VecDeque::from(vec![0.0_f64; n_slots.max(1)]);
    let mut begin = 0.0;
    for pass in 0..PASSES {
        if pass == PASSES - 1 {
            begin = cores;
        }
        for step in steps {
            if step.asked > 0.0 {
                // All stacks are asked for at once, and arrive nearly together.
                let waits = (step.latency + step.asked - step.meanwhile).max(0.0);
                cores += waits + step.compute;
            } else if step.read > 0.0 {
                let slot = freed.pop_front().unwrap_or_default();
                reader = reader.max(slot) + step.read;
                cores = cores.max(reader + step.latency) + step.compute;
                freed.push_back(cores);
            } else {
                cores += step.compute;
            }
            if pass == PASSES - 1 {
                times.push((cores - step.compute - begin, cores - begin));
            }
        }
    }
    (cores - begin, times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(streamed: &[bool], read: f64, compute: f64) -> f64 {
        let step =
            |&s: &bool| Step { read: if s { read } else { 0.0 }, compute, ..Step::default() };
        seconds_per_pass(&streamed.iter().map(step).collect::<Vec<_>>(), 2)
    }

    proptest! {
        /// Spread among resident ones, streamed blocks are never slower than behind them; and nothing beats the limit.
        #[test]
        fn spreading_is_never_worse(n in 1_usize..100, share in 0.0..1.0_f64, read in 0.01..100.0_f64) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
            let k = (n as f64 * share) as usize;
            let spread: Vec<bool> = (0..n).map(|i| (i + 1) * k / n > i * k / n).collect();
            let prefix: Vec<bool> = (0..n).map(|i| i >= n - k).collect();
            let (spread, prefix) = (pass(&spread, read, 1.0), pass(&prefix, read, 1.0));
            prop_assert!(spread <= prefix + 1e-9, "{spread} > {prefix}");
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let limit = (k as f64 * read).max(n as f64);
            prop_assert!(spread >= limit - 1e-9);
            prop_assert!(spread <= limit * 1.1 + read + 1.0, "{spread} of {limit}");
        }
    }

    #[test]
    fn the_slower_of_reading_and_computing_counts() {
        assert!((pass(&[true; 10], 3.0, 1.0) - 30.0).abs() < 1e-9);
        assert!((pass(&[true; 10], 1.0, 3.0) - 30.0).abs() < 1e-9);
        assert!((pass(&[false; 10], 1.0, 3.0) - 30.0).abs() < 1e-9);
    }
}
