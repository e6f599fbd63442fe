//! What a plan will cost, by which it is judged: tokens per second from the seconds of a pass, the time to the first token, and what holds
//! it back.

use super::pipeline::{Step, play, seconds_per_pass, steps};
use super::{Plan, Rates, Touched};
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

/// Computing that reaches this share of the memory's rate is held back by the memory.
const KEEPS_UP: f64 = 0.9;

/// Plans are compared by a question of this many tokens, or as many as fit the context, and an answer to it.
pub(super) const QUESTION: u32 = 1024;
pub(super) const ANSWER: u32 = 512;

/// Seconds that `plan` takes at `rates` for a usual question and its answer: what plans are compared by.
pub fn conversation(plan: &Plan, rates: &Rates, touched: Touched) -> f64 {
    let cost = estimate(plan, rates, touched, QUESTION.min(plan.n_ctx));
    cost.prompt.seconds + cost.generation.seconds * f64::from(ANSWER) + refilling(plan, rates)
}

/// Seconds until what a prompt borrowed on a GPU has its experts again.
fn refilling(plan: &Plan, rates: &Rates) -> f64 {
    let (Some(experts), Some(beside)) = (&plan.experts, rates.gpu) else { return 0.0 };
    let (all, from_disk) = experts.refilled();
    rates.disk.seconds(from_disk).max(beside.link.seconds(all))
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
    let on_gpus = plan.gpu.iter().chain(plan.further.iter().map(|held| &held.memory));
    let on_gpu: Bytes = on_gpus.map(|gpu| gpu.outside + gpu.blocks).sum();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pipeline::Step;

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
}
