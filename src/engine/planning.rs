//! From an index and options to a plan: asks the machine what it has, and ggml what the model needs. The one place that does,
//! for the loader and for `airrun plan` alike.

use std::sync::Arc;

use super::devices::{self, DeviceChoice};
use super::layout::lay_out;
use super::load::{LoadOptions, POLL, ggml_error, model_name};
use super::{Error, needs, rates};
use crate::ggml::{Device, DeviceKind, Threadpool};
use crate::gguf::Index;
use crate::plan::report::Advice;
use crate::plan::{self, Estimate, Needs, Plan, Pool, Rates, StreamMode, Touched, Wish};
use crate::probe;
use crate::units::{Bytes, MIB};

/// The context that is made when nobody says how large: enough for a conversation, small enough for any machine.
const DEFAULT_CTX: u32 = 4096;

/// The least of it that will do where memory is short.
const LEAST_CTX: u32 = 512;

/// What is left of a GPU's memory for what else will want some, if nobody names a budget: a share of all of it, and at least this.
const VRAM_SHARE: u64 = 32;
const VRAM_RESERVE: Bytes = Bytes(256 * MIB.0);

/// A plan, and what it was made from.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where everything will live.
    pub plan: Plan,
    /// The GPU that computes, if one does.
    pub(crate) gpu: Option<Device>,
    /// What the machine has.
    pub machine: plan::Machine,
    /// What was wished.
    pub wish: Wish,
    /// What the model needs; rough where memory is plenty.
    pub needs: Needs,
    /// Seconds that describing the model to libllama took, where that was tried.
    pub open_seconds: Option<f64>,
}

impl Planned {
    /// What computes: `cpu`, or what `--device` calls the GPU.
    pub fn device(&self) -> String {
        devices::name(self.gpu)
    }
}

/// Plans without loading any weights. Where memory is tight, or `exact`, the model is loaded without its weights to ask what
/// its context takes, which takes as long as loading its vocabulary.
///
/// # Errors
///
/// As [`super::Engine::open`].
pub fn plan(index: &Arc<Index>, options: &LoadOptions, exact: bool) -> Result<Planned, Error> {
    index.check_model()?;
    let n_threads = options.threads.unwrap_or_else(probe::physical_cores).max(1);
    let threads = Threadpool::new(n_threads, 0).map_err(ggml_error(index))?;
    make_plan(index, options, &Arc::new(threads), exact)
}

/// As [`plan()`], for a model that was checked.
pub(super) fn make_plan(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    exact: bool,
) -> Result<Planned, Error> {
    let gpu = devices::choose(options.device)?;
    let problem = Problem { index, options, threads, exact };
    let Some(gpu) = gpu else { return problem.for_cpu() };
    match problem.for_gpu(gpu) {
        // A GPU that nobody named, and that is too small or too busy for anything.
        Err(Error::Plan { refusal, .. })
            if options.device == DeviceChoice::Auto
                && options.vram.is_none()
                && refusal.pool == Pool::Vram =>
        {
            problem.for_cpu()
        }
        planned => planned,
    }
}

/// What a plan is asked for.
struct Problem<'a> {
    index: &'a Index,
    options: &'a LoadOptions,
    threads: &'a Arc<Threadpool>,
    exact: bool,
}

impl Problem<'_> {
    fn wish(&self) -> Wish {
        let LoadOptions { stream, ram, vram, ubatch, repack, .. } = *self.options;
        let shares = self.options.shares();
        let ctx = context_length(self.index, self.options).saturating_mul(shares);
        let ctx_least = if self.options.ctx.is_some() { ctx } else { ctx.min(LEAST_CTX * shares) };
        Wish { stream, ram, vram, ctx, ctx_least, ubatch, repack }
    }

    fn refused(&self, refusal: plan::Refusal) -> Error {
        Error::Plan { model: model_name(self.index), refusal }
    }

    /// The plan of a machine whose CPU computes.
    fn for_cpu(&self) -> Result<Planned, Error> {
        let Problem { index, options, threads, exact } = *self;
        let machine = probe::machine();
        let wish = self.wish();
        let cpu = Device::cpu().map_err(ggml_error(index))?;
        let size = |tensors: &[usize]| lay_out(index, tensors, cpu).size;
        let solve = |needs: &Needs| plan::solve(index, &machine, needs, &wish, &size);
        let rough = needs::rough_needs(index, &wish);
        let gpu = None;
        let done =
            |plan, needs, open_seconds| Planned { plan, gpu, machine, wish, needs, open_seconds };
        // Streaming everything takes the least there is; without a budget, it is not worth the time to measure how little.
        let always = wish.stream == StreamMode::Always && wish.ram.is_none();
        if let Ok(plan) = solve(&rough)
            && !exact
            && plan.n_ctx == wish.ctx
            && (always || plan.streamed.is_empty())
        {
            return Ok(done(plan, rough, None));
        }
        let (needs, seconds) = needs::measured_needs(index, options, &wish, threads)?;
        let plan = solve(&needs).map_err(|refusal| self.refused(refusal))?;
        Ok(done(plan, needs, Some(seconds)))
    }

    /// The plan of a machine whose GPU computes. What nothing fits by bounds is asked of ggml; what does not fit the GPU is
    /// weighed by what was measured.
    fn for_gpu(&self, device: Device) -> Result<Planned, Error> {
        let Problem { index, options, threads, exact } = *self;
        let memory = device.memory();
        let gpu = plan::Gpu {
            free: memory.free,
            reserve: (Bytes(memory.total.0 / VRAM_SHARE)).max(VRAM_RESERVE),
            shares_ram: device.kind() == DeviceKind::Integrated,
            rates: rates::UNKNOWN,
        };
        let wish = self.wish();
        let size = |tensors: &[usize]| lay_out(index, tensors, device).size;
        let mut machine = plan::Machine { gpu: Some(gpu), ..probe::machine() };
        let done = |plan, machine, needs, open_seconds| {
            let gpu = Some(device);
            Planned { plan, gpu, machine, wish, needs, open_seconds }
        };
        let all_here = |plan: &Plan| plan.streamed.is_empty() && plan.by_cpu.is_empty();
        let rough = needs::rough_gpu_needs(index, &wish, device);
        if let Ok(plan) = plan::solve(index, &machine, &rough, &wish, &size)
            && !exact
            && plan.n_ctx == wish.ctx
            && all_here(&plan)
        {
            return Ok(done(plan, machine, rough, None));
        }
        let (needs, seconds) = needs::described_needs(index, options, &wish, threads, device)?;
        let solve = |machine: &plan::Machine| {
            let plan = plan::solve(index, machine, &needs, &wish, &size);
            plan.map_err(|refusal| self.refused(refusal))
        };
        // Where there is nothing to weigh, what would be weighed needs not be measured.
        let first = solve(&machine)?;
        if all_here(&first) || wish.stream == StreamMode::Always {
            return Ok(done(first, machine, needs, Some(seconds)));
        }
        let rates = rates::measure(index, Some(device), threads, options.repack)?;
        machine.gpu = Some(plan::Gpu { rates, ..gpu });
        Ok(done(solve(&machine)?, machine, needs, Some(seconds)))
    }
}

fn context_length(index: &Index, options: &LoadOptions) -> u32 {
    let trained = index.context_length().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
    match options.ctx {
        Some(0) => trained.unwrap_or(DEFAULT_CTX),
        Some(n) => n,
        None => trained.unwrap_or(DEFAULT_CTX).min(DEFAULT_CTX),
    }
}

/// What a plan will cost on this machine, and what would help most.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    /// What was measured.
    pub rates: Rates,
    /// What the plan will cost.
    pub estimate: Estimate,
    /// What more memory would bring, if anything.
    pub advice: Option<Advice>,
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
    let n_threads = options.threads.unwrap_or_else(probe::physical_cores).max(1);
    let threads = Arc::new(Threadpool::new(n_threads, POLL).map_err(ggml_error(index))?);
    let measured = match planned.machine.gpu {
        // They were measured for the plan.
        Some(gpu) if gpu.rates != rates::UNKNOWN => gpu.rates,
        _ => rates::measure(index, planned.gpu, &threads, options.repack)?,
    };
    let rates = Rates { open_seconds: planned.open_seconds.unwrap_or(0.0), ..measured };
    let touched = Touched::of(index);
    let estimate = plan::estimate(&planned.plan, &rates, touched, n_prompt);
    let advice = advice(index, planned)?.map(|(more, better)| {
        let generation = plan::estimate(&better, &rates, touched, n_prompt).generation;
        let none = Bytes::ZERO;
        let (more_ram, more_vram) = if planned.gpu.is_some() { (none, more) } else { (more, none) };
        Advice { more_ram, more_vram, tokens_per_second: generation.tokens_per_second }
    });
    let now = estimate.generation.tokens_per_second;
    Ok(Forecast { rates, estimate, advice: advice.filter(|a| a.tokens_per_second > now * 1.02) })
}

/// The memory that is missing for everything to be resident, the GPU's where one computes, and the plan with it.
fn advice(index: &Index, planned: &Planned) -> Result<Option<(Bytes, Plan)>, Error> {
    let Planned { plan, gpu, machine, needs, .. } = planned;
    if plan.streamed.is_empty() && plan.by_cpu.is_empty() {
        return Ok(None);
    }
    let enough = Some(Bytes(u64::MAX >> 1));
    let all = match gpu {
        None => Wish { stream: StreamMode::Never, ram: enough, ..planned.wish },
        Some(_) => Wish { stream: StreamMode::Never, vram: enough, ..planned.wish },
    };
    let device = gpu.map_or_else(Device::cpu, Ok).map_err(ggml_error(index))?;
    let size = |tensors: &[usize]| lay_out(index, tensors, device).size;
    let better = plan::solve(index, machine, needs, &all, &size).ok();
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
