//! What a plan will cost: seconds per pass by playing the pipeline through, block by block, with the measured rates; from
//! that tokens per second, the time to the first token, and what holds it back.

use super::experts::Experts;
use super::parts::is_ffn;
use super::{Beside, Placed, Plan, Rates, Tier, Unit};
use crate::gguf::Index;
use crate::units::{Bytes, Rate};

/// What holds a run back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bottleneck {
    /// Reading the streamed blocks.
    Disk,
    /// Bringing blocks from RAM to the GPU.
    Link,
    /// Bringing weights from memory to the cores, one token at a time, where that was measured.
    #[serde(rename = "memory bandwidth")]
    Memory,
    /// Multiplying.
    Compute,
}

impl std::fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Bottleneck::Disk => "disk",
            Bottleneck::Link => "link",
            Bottleneck::Memory => "memory bandwidth",
            Bottleneck::Compute => "compute",
        })
    }
}

/// How fast a kind of work goes.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Speed {
    /// Tokens of the work.
    pub tokens: u32,
    /// Passes over the weights.
    pub passes: u32,
    /// Seconds for all of it.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// What holds it back.
    pub bottleneck: Bottleneck,
}

/// What a plan will cost.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// One token after another.
    pub generation: Speed,
    /// A prompt.
    pub prompt: Speed,
    /// Seconds until everything is loaded that is loaded once.
    pub load_seconds: f64,
    /// Seconds from the start of the program to the first token of the answer to that prompt.
    pub first_token_seconds: f64,
}

/// What one token computes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Touched {
    /// The share of a block's bytes: 1 for models without experts.
    pub of_block: f64,
    /// The share of its feed-forward network's bytes.
    pub of_ffn: f64,
    /// Bytes of the output matrix.
    pub output: Bytes,
}

impl Touched {
    /// What a token of this model computes with.
    pub fn of(index: &Index) -> Touched {
        let used = index.arch_uint("expert_used_count").unwrap_or(0);
        // All bytes and those that a token touches, of feed-forward networks and of the rest.
        let mut sums = [(Bytes::ZERO, Bytes::ZERO); 2];
        for tensor in index.blocks.iter().flat_map(|b| &b.tensors).map(|&t| &index.tensors[t]) {
            let (all, touched) = &mut sums[usize::from(is_ffn(tensor.role()))];
            *all += tensor.len;
            *touched += match index.experts(tensor) {
                Some(experts) => experts.each * used.min(experts.count),
                None => tensor.len,
            };
        }
        let share = |all: Bytes, touched: Bytes| {
            if all > Bytes::ZERO { touched.f64() / all.f64() } else { 1.0 }
        };
        let [rest, ffn] = sums;
        let of_block = share(rest.0 + ffn.0, rest.1 + ffn.1);
        let of_ffn = share(ffn.0, ffn.1);
        let named = |name: &str| index.tensors.iter().find(|t| t.name == name).map(|t| t.len);
        let output = named("output.weight").or_else(|| named("token_embd.weight"));
        Touched { of_block, of_ffn, output: output.unwrap_or_default() }
    }
}

/// One step of the pipeline: what must be brought for it, and what it computes. (seconds)
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Step {
    /// Until it is in its slot: reading, or copying to the GPU, which goes on meanwhile; the slower of the two.
    read: f64,
    /// What of that the disk is busy.
    disk: f64,
    /// Until the first bytes come, if nothing else is being read meanwhile.
    latency: f64,
    compute: f64,
    /// Whether it is a unit that streams.
    streams: bool,
    /// What is read of it when it is known what is needed: not before the step before it is computed ...
    asked: f64,
    /// ... and what of it is computed meanwhile, with what is there.
    meanwhile: f64,
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

/// Computing that reaches this share of the memory's rate is held back by the memory.
const KEEPS_UP: f64 = 0.9;

/// Passes that are expected to use this share of the experts or more get whole stacks.
const NEARLY_ALL: f64 = 0.6;

/// Batches from here on bring weights of the CPU's blocks to the GPU, as ggml's scheduler does. (tokens)
const OFFLOAD: u32 = 32;

/// Plans are compared by a question of this many tokens, or as many as fit the context, and an answer to it.
pub(super) const QUESTION: u32 = 1024;
pub(super) const ANSWER: u32 = 512;

/// Seconds that `plan` takes at `rates` for a usual question and its answer: what plans are compared by.
pub fn conversation(plan: &Plan, rates: &Rates, touched: Touched) -> f64 {
    let cost = estimate(plan, rates, touched, QUESTION.min(plan.n_ctx));
    cost.prompt.seconds + cost.generation.seconds * f64::from(ANSWER)
}

/// Seconds of a pass of `plan` with `tokens` tokens, all of which give results.
pub fn pass_seconds(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> f64 {
    let steps = steps(plan, rates, touched, tokens);
    let rows = rates.resident.seconds(touched.output, tokens);
    let row = rates.resident.seconds(touched.output, 1);
    seconds_per_pass(&steps, plan.n_slots) + (rows - row).max(0.0)
}

/// Seconds that a pass of `tokens` tokens computes, waiting left out.
pub fn computing_seconds(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> f64 {
    steps(plan, rates, touched, tokens).iter().map(|step| step.compute).sum()
}

/// The cost of `plan` at `rates`, and of a prompt of `n_prompt` tokens.
pub fn estimate(plan: &Plan, rates: &Rates, touched: Touched, n_prompt: u32) -> Estimate {
    let pass = |tokens: u32| {
        let steps = steps(plan, rates, touched, tokens);
        let sum = |of: fn(&Step) -> f64| steps.iter().map(of).sum::<f64>();
        let (disk, compute) = (sum(|s| s.disk), sum(|s| s.compute));
        let read = sum(|s| s.read) + sum(|s| s.asked);
        let brings = if disk * 2.0 > read { Bottleneck::Disk } else { Bottleneck::Link };
        (seconds_per_pass(&steps, plan.n_slots), (read > compute).then_some(brings))
    };
    let speed = |tokens: u32, ubatch: u32, otherwise| {
        let full = tokens / ubatch;
        let rest = tokens % ubatch;
        let (each, brings) = pass(ubatch);
        let last = if rest > 0 { pass(rest).0 } else { 0.0 };
        let seconds = f64::from(full) * each + last;
        Speed {
            tokens,
            passes: tokens.div_ceil(ubatch),
            seconds,
            tokens_per_second: f64::from(tokens) / seconds,
            bottleneck: brings.unwrap_or(otherwise),
        }
    };
    let n_prompt = n_prompt.max(1);
    let prompt = speed(n_prompt, plan.n_ubatch.clamp(1, n_prompt), Bottleneck::Compute);
    let on_gpu = plan.gpu.map(|gpu| gpu.outside + gpu.blocks).unwrap_or_default();
    let resident = plan.memory.outside + plan.memory.blocks + on_gpu;
    let load_seconds = rates.open_seconds + rates.disk.seconds(resident);
    Estimate {
        generation: speed(1, 1, computing(rates)),
        prompt,
        load_seconds,
        first_token_seconds: load_seconds + prompt.seconds,
    }
}

/// What holds computing back, one token at a time. Memory is named only where computing was measured to go as fast as memory gives.
fn computing(rates: &Rates) -> Bottleneck {
    let keeps_up = |memory: Rate| rates.resident.one.0 >= KEEPS_UP * memory.0;
    match rates.memory.is_some_and(keeps_up) && rates.gpu.is_none() {
        true => Bottleneck::Memory,
        false => Bottleneck::Compute,
    }
}

/// How a pass goes: when each unit that streams is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// Seconds of the whole pass.
    pub seconds: f64,
    /// Of each unit that streams, in order: when its computation begins and ends, as shares of the pass. (0 to 1)
    pub units: Vec<(f64, f64)>,
}

impl Course {
    /// How much of the pass is done `at` a place as [`crate::plan::Plan::streamed`] has them: 0 before the first unit is computed,
    /// 2n + 1 while unit n is, 2n + 2 after that. (0 to 1)
    pub fn share(&self, at: usize) -> f64 {
        let Some(half) = at.checked_sub(1) else { return 0.0 };
        let unit = self.units.get(half / 2);
        unit.map_or(0.0, |&(begin, end)| if half % 2 == 0 { begin } else { end })
    }
}

/// The course of a pass of `tokens` tokens at `rates`.
pub fn course(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> Course {
    let steps = steps(plan, rates, touched, tokens);
    let (seconds, times) = play(&steps, plan.n_slots);
    let share = |time: f64| if seconds > 0.0 { (time / seconds).clamp(0.0, 1.0) } else { 0.0 };
    let units = steps.iter().zip(times).filter(|(step, _)| step.streams);
    Course { seconds, units: units.map(|(_, (begin, end))| (share(begin), share(end))).collect() }
}

/// The steps of a pass of `tokens` tokens: the blocks, then the output.
fn steps(plan: &Plan, rates: &Rates, touched: Touched, tokens: u32) -> Vec<Step> {
    let used = |len: Bytes| share(len, touched.of_block);
    let mut steps = Vec::with_capacity(plan.blocks.len() + plan.streamed.len() + 1);
    let mut units = plan.streamed.iter().peekable();
    let one_by_one = OneByOne::of(plan, tokens);
    let disk = rates.disk_in(tokens);
    for (i, block) in plan.blocks.iter().enumerate() {
        match (block.tier, rates.gpu) {
            (Tier::Resident, _) | (Tier::Cpu, None) => {
                let here = block.len.saturating_sub(block.left);
                steps.push(Step::computing(rates.resident.seconds(used(here), tokens)));
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
        _ => rates.resident,
    };
    steps.push(Step::computing(cost.one.seconds(touched.output)));
    steps
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

/// A share of `len`.
pub(super) fn share(len: Bytes, share: f64) -> Bytes {
    // Every token of a batch chooses its own experts; computing goes by tokens, so the share stays.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of it")]
    Bytes((len.f64() * share) as u64)
}

/// Seconds of a pass among many: the reader fills slots in order, a slot is free once its unit is computed.
fn seconds_per_pass(steps: &[Step], n_slots: usize) -> f64 {
    play(steps, n_slots).0
}

/// The same, and when each step's computation begins and ends in it. (seconds)
fn play(steps: &[Step], n_slots: usize) -> (f64, Vec<(f64, f64)>) {
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
    fn a_pass_has_a_course() {
        let step = |compute: f64, streams| Step {
            read: if streams { 1.0 } else { 0.0 },
            compute,
            streams,
            ..Step::default()
        };
        let (seconds, times) = play(&[step(2.0, true), step(6.0, false), step(2.0, true)], 2);
        assert!((seconds - 10.0).abs() < 1e-9, "{seconds}");
        let ends: Vec<f64> = times.iter().map(|t| t.1).collect();
        assert_eq!(ends, [2.0, 8.0, 10.0]);
        let course = Course { seconds, units: vec![(0.0, 0.2), (0.8, 1.0)] };
        let shares: Vec<f64> = (0..6).map(|at| course.share(at)).collect();
        assert_eq!(shares, [0.0, 0.0, 0.2, 0.8, 1.0, 0.0]);
    }

    #[test]
    fn the_slower_of_reading_and_computing_counts() {
        assert!((pass(&[true; 10], 3.0, 1.0) - 30.0).abs() < 1e-9);
        assert!((pass(&[true; 10], 1.0, 3.0) - 30.0).abs() < 1e-9);
        assert!((pass(&[false; 10], 1.0, 3.0) - 30.0).abs() < 1e-9);
    }
}
