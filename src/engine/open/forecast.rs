//! What a plan will cost, told without loading the model: for `airrun plan`, and for whoever asks how a model would live here.

use std::sync::Arc;

use super::drafting::{foresee, make_plan};
use super::layout::{lay_out, lay_out_experts};
use super::options::LoadOptions;
use super::planning::{Care, Planned};
use super::rates;
use super::trades::Trades;
use crate::engine::error::ggml_error;
use crate::engine::{Error, quantize, threads};
use crate::ggml::Device;
use crate::gguf::Index;
use crate::plan::report::{Advice, Smaller, Trade};
use crate::plan::{self, Abilities, Estimate, Foreseen, Plan, Rates, StreamMode, Touched, Wish};
use crate::probe::rates::Doubt;
use crate::units::Bytes;

/// Plans without loading any weights. Where memory is tight, or `exact`, the model is loaded without its weights to ask what
/// its context takes, which takes as long as loading its vocabulary.
///
/// # Errors
///
/// As [`super::Engine::open`].
pub fn plan(index: &Arc<Index>, options: &LoadOptions, exact: bool) -> Result<Planned, Error> {
    super::check_file(index)?;
    let threads = threads::pool(threads::count(options.threads), index)?;
    make_plan(index, options, &threads, if exact { Care::Exact } else { Care::Quick })
}

/// As [`plan()`], exact, after measuring the machine: whoever opens the model next plans with what was measured.
///
/// # Errors
///
/// As [`super::Engine::open`].
pub fn measured_plan(index: &Arc<Index>, options: &LoadOptions) -> Result<Planned, Error> {
    super::check_file(index)?;
    let threads = threads::pool(threads::count(options.threads), index)?;
    make_plan(index, options, &threads, Care::Measured)
}

/// What a plan will cost on this machine, and what would help most.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What was measured.
    pub rates: Rates,
    /// What the plan will cost.
    pub estimate: Estimate,
    /// What more memory would bring, if anything.
    pub advice: Option<Advice>,
    /// What quantising would bring, if it made all of it resident.
    pub smaller: Option<Smaller>,
    /// What a context of twice the length would cost, if the model was made for more.
    pub longer: Option<Trade>,
    /// What keys and values of eight bits would bring, where blocks stream and they are none.
    pub smaller_kv: Option<Trade>,
    /// What drafts will bring, where there are any.
    pub drafts: Option<Foreseen>,
    /// Why the rates may be other ones.
    pub doubt: Option<Doubt>,
}

/// Measures the machine with this model's disk and kinds of weights, and predicts.
///
/// # Errors
///
/// The files cannot be opened for reading.
pub fn forecast(
    index: &Index,
    options: &LoadOptions,
    planned: &Planned,
    n_prompt: u32,
) -> Result<Forecast, Error> {
    let threads = threads::pool(threads::count(options.threads), index)?;
    let measured = match planned.measured {
        Some(measured) => measured,
        None => {
            let further = &planned.further;
            rates::measure(index, planned.gpu, further, &threads, options.repack, true)?
        }
    };
    let measured = planned.taught(index, options, measured);
    let doubt = rates::doubt(index, planned.gpu, &threads, options.repack);
    let rates = Rates { open_seconds: planned.open_seconds.unwrap_or(0.0), ..measured };
    let touched = Touched::of(index);
    let estimate = plan::estimate(&planned.plan, &rates, touched, n_prompt);
    let n_ctx = planned.plan.n_ctx;
    let as_planned = Wish { ctx: n_ctx, ctx_least: n_ctx, ..planned.wish };
    let smaller = all_resident(index, planned, as_planned)?.and_then(|(more, all)| {
        let device = planned.gpu.map_or_else(Device::cpu, Ok).ok()?;
        smaller(index, options, more, &all, device)
    });
    let advice = all_resident(index, planned, planned.wish)?.map(|(more, better)| {
        let generation = plan::estimate(&better, &rates, touched, n_prompt).generation;
        let none = Bytes::ZERO;
        let (more_ram, more_vram) = if planned.gpu.is_some() { (none, more) } else { (more, none) };
        Advice { more_ram, more_vram, tokens_per_second: generation.tokens_per_second }
    });
    let now = estimate.generation.tokens_per_second;
    let advice = advice.filter(|a| a.tokens_per_second > now * 1.02);
    let smaller = smaller.filter(|s| s.tokens_per_second.is_none_or(|then| then > now * 1.02));
    let drafts = foresee(index, planned, &rates, options);
    let trades = Trades { index, options, planned, rates: &rates, threads: &threads };
    let (longer, smaller_kv) = (trades.longer(), trades.smaller());
    Ok(Forecast { rates, estimate, advice, smaller, longer, smaller_kv, drafts, doubt })
}

/// The best type with which `more` memory would not be missing any more. `all` is the plan of the model as it is, with that memory.
fn smaller(
    index: &Index,
    options: &LoadOptions,
    more: Bytes,
    all: &Plan,
    device: Device,
) -> Option<Smaller> {
    let here = all.gpu.map_or(all.memory.outside + all.memory.blocks, |g| g.outside + g.blocks);
    let share = here.saturating_sub(more).f64() / here.f64().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of it")]
    let room = Bytes((index.bytes().f64() * share) as u64);
    let (ty, bytes) = quantize::would_fit(index, room)?;
    let threads = threads::pool(threads::count(options.threads), index).ok()?;
    let rate = rates::of_type(index, ty.blocks_type(), device, &threads, options.repack);
    let touched = Touched::of(index);
    let tokens_per_second = rate.map(|rate| {
        let shrunk = bytes.f64() / index.bytes().f64().max(1.0);
        let blocks = index.blocks.iter().map(|b| b.len).sum::<Bytes>().f64() * touched.of_block;
        rate.0 / ((blocks + touched.output.f64()) * shrunk).max(1.0)
    });
    let again = quantize::is_quantised_already(index);
    Some(Smaller { name: ty.name, bytes, tokens_per_second, again })
}

/// The memory that is missing for everything to be resident, the GPU's where one computes, and the plan with it.
fn all_resident(
    index: &Index,
    planned: &Planned,
    wish: Wish,
) -> Result<Option<(Bytes, Plan)>, Error> {
    let Planned { plan, gpu, machine, needs, left, .. } = planned;
    if plan.streamed.is_empty() && plan.by_cpu.is_empty() {
        return Ok(None);
    }
    let enough = Some(Bytes(u64::MAX >> 1));
    let all = match gpu {
        None => Wish { stream: StreamMode::Never, ram: enough, ..wish },
        Some(_) => Wish { stream: StreamMode::Never, vram: enough, ..wish },
    };
    let device = gpu.map_or_else(Device::cpu, Ok).map_err(ggml_error(index))?;
    let size = |tensors: &[usize]| lay_out(index, tensors, device).size;
    let region = |stacks: &[usize], n: u64| lay_out_experts(index, stacks, n, device);
    let abilities = Abilities { slot_size: &size, expert_region: &region, left };
    let better = plan::solve(index, machine, needs, &all, abilities).ok();
    let more = |better: Plan| {
        let (peak, budget) = match (better.gpu, plan.gpu) {
            (Some(there), Some(here)) => (there.peak(), here.budget),
            _ => (better.memory.peak(), plan.memory.budget),
        };
        (peak.saturating_sub(budget), better)
    };
    // Where all of it fits already and streams all the same, that was the wish.
    Ok(better.map(more).filter(|(more, _)| *more > Bytes::ZERO))
}
