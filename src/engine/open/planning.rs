//! From an index and options to a plan: asks the machine what it has, and ggml what the model needs. The one place that does,
//! for the loader and for `airrun plan` alike.

use std::collections::HashSet;
use std::sync::Arc;

use super::layout::{lay_out, lay_out_experts};
use super::needs::Described;
use super::options::{Draft, LoadOptions};
use super::{needs, rates};
use crate::engine::devices::{self, DeviceChoice};
use crate::engine::error::{ggml_error, model_name};
use crate::engine::{Error, quantize, threads};
use crate::ggml::{Device, DeviceKind, Threadpool};
use crate::gguf::Index;
use crate::plan::report::{Advice, Smaller};
use crate::plan::{self, Abilities, Estimate, Needs, Plan, Rates, StreamMode, Touched, Wish};
use crate::probe;
use crate::probe::rates::Doubt;
use crate::units::{Bytes, MIB};

/// The context that is made when nobody says how large: enough for a conversation, small enough for any machine.
const DEFAULT_CTX: u32 = 4096;

/// The least of it that will do where memory is short.
const LEAST_CTX: u32 = 512;

/// What is left of a GPU's memory for what else will want some, if nobody names a budget: a share of all of it, and at least this.
const VRAM_SHARE: u64 = 32;
const VRAM_RESERVE: Bytes = Bytes(256 * MIB.0);

/// How often a plan is made again that its context turns out to be too large for.
const CORRECTIONS: usize = 4;

/// A context beside the one that its model was made for. (tokens of one sequence)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextRoom {
    /// What a sequence has.
    pub each: u32,
    /// What the user asked for, if anything; 0 is what the model was made for.
    pub asked: Option<u32>,
    /// What the model was made for, if its file says.
    pub trained: Option<u32>,
    /// What that would take more.
    pub more: Bytes,
}

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
    /// What the GPU cannot compute with, where that was asked: indices into the index's tensors.
    pub left: HashSet<usize>,
    /// Seconds that describing the model to libllama took, where that was tried.
    pub open_seconds: Option<f64>,
    /// What was measured of the machine, where the plan was made with that.
    pub measured: Option<Rates>,
}

impl Planned {
    /// What the plan was judged by, and whether somebody measured it.
    pub(super) fn rates(&self, index: &Index, options: &LoadOptions) -> (Rates, bool) {
        match (self.measured, self.machine.gpu) {
            (Some(measured), _) => (measured, true),
            (None, Some(gpu)) => (gpu.rates, false),
            (None, None) => {
                let n_threads = threads::count(options.threads);
                (self.machine.rates, rates::are_known(index, n_threads, options.repack))
            }
        }
    }

    /// The context beside the one that the model was made for.
    pub(super) fn context(&self, index: &Index, options: &LoadOptions) -> ContextRoom {
        let shares = options.shares();
        let trained = index.context_length().and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        let n_ctx = self.plan.n_ctx;
        let bytes = |n_ctx| match self.needs.gpu {
            Some(gpu) => gpu.context.at(n_ctx, self.plan.n_ubatch),
            None => self.needs.context.at(n_ctx, self.plan.n_ubatch),
        };
        let more = trained.map(|n| bytes(n.saturating_mul(shares)).saturating_sub(bytes(n_ctx)));
        let asked = options.ctx;
        ContextRoom { each: n_ctx / shares, asked, trained, more: more.unwrap_or_default() }
    }

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
    let threads = threads::pool(threads::count(options.threads), index)?;
    make_plan(index, options, &threads, if exact { Care::Exact } else { Care::Quick })
}

/// As [`plan()`], exact, after measuring the machine: whoever opens the model next plans with what was measured.
///
/// # Errors
///
/// As [`super::Engine::open`].
pub fn measured_plan(index: &Arc<Index>, options: &LoadOptions) -> Result<Planned, Error> {
    index.check_model()?;
    let threads = threads::pool(threads::count(options.threads), index)?;
    make_plan(index, options, &threads, Care::Measured)
}

/// How much is asked for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// No more than must be, to open the model soon.
    Quick,
    /// Of ggml, what the model needs, even where memory is plenty.
    Exact,
    /// That, and of the machine, what it can do.
    Measured,
}

/// As [`plan()`], for a model that was checked.
pub(super) fn make_plan(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    care: Care,
) -> Result<Planned, Error> {
    let gpu = devices::choose(options.device)?;
    let beside = beside(options, threads)?;
    let problem = Problem { index, options, threads, care, beside };
    let Some(gpu) = gpu else { return problem.for_cpu() };
    let nobody_named_it = options.device == DeviceChoice::Auto && options.vram.is_none();
    match problem.for_gpu(gpu) {
        // A GPU that nobody named, and that is too small or too busy for anything.
        Err(Error::Plan { .. }) if nobody_named_it => problem.for_cpu(),
        Ok(planned) if nobody_named_it => Ok(problem.or_cpu(planned)),
        planned => planned,
    }
}

/// What a plan is asked for.
struct Problem<'a> {
    index: &'a Index,
    options: &'a LoadOptions,
    threads: &'a Arc<Threadpool>,
    care: Care,
    /// What the model that drafts takes of the RAM and of the GPU's memory.
    beside: [Bytes; 2],
}

/// What the model that drafts will take, of RAM and of the GPU's memory.
fn beside(options: &LoadOptions, threads: &Arc<Threadpool>) -> Result<[Bytes; 2], Error> {
    let Draft::Model { index, .. } = &options.draft else { return Ok([Bytes::ZERO; 2]) };
    index.check_model()?;
    let plan = make_plan(index, &options.of_draft(None), threads, Care::Quick)?.plan;
    let (memory, gpu) = (plan.memory, plan.gpu);
    let on_gpu = gpu.map(|gpu| gpu.outside + gpu.blocks + gpu.context).unwrap_or_default();
    Ok([memory.outside + memory.blocks + memory.context, on_gpu])
}

impl Problem<'_> {
    fn wish(&self) -> Wish {
        let LoadOptions { stream, ram, vram, ubatch, repack, .. } = *self.options;
        let shares = self.options.shares();
        let ctx = context_length(self.index, self.options).saturating_mul(shares);
        let ctx_least = if self.options.ctx.is_some() { ctx } else { ctx.min(LEAST_CTX * shares) };
        let [of_ram, of_vram] = self.beside;
        let ram = ram.map(|ram| ram.saturating_sub(of_ram));
        let vram = vram.map(|vram| vram.saturating_sub(of_vram));
        Wish { stream, ram, vram, ctx, ctx_least, ubatch, repack }
    }

    /// The machine without what the model that drafts takes of it.
    fn machine(&self) -> plan::Machine {
        let machine = probe::machine();
        plan::Machine { ram: machine.ram.saturating_sub(self.beside[0]), ..machine }
    }

    /// What the model needs, and what is left to others in this program.
    fn with_aside(&self, needs: &Needs) -> Needs {
        Needs { process: needs.process + self.options.aside, ..*needs }
    }

    fn refused(&self, refusal: plan::Refusal) -> Error {
        Error::Plan { model: model_name(self.index), refusal }
    }

    /// The plan of a machine whose CPU computes.
    fn for_cpu(&self) -> Result<Planned, Error> {
        let Problem { index, options, threads, care, .. } = *self;
        let known = || rates::known(index, threads::count(options.threads), options.repack);
        let here = self.machine();
        let mut machine = plan::Machine { rates: known(), ..here };
        let wish = self.wish();
        let cpu = Device::cpu().map_err(ggml_error(index))?;
        let size = |tensors: &[usize]| lay_out(index, tensors, cpu).size;
        let region = |stacks: &[usize], n: u64| lay_out_experts(index, stacks, n, cpu);
        let left = HashSet::new();
        let solve = |machine: &plan::Machine, needs: &Needs| {
            let abilities = Abilities { slot_size: &size, expert_region: &region, left: &left };
            plan::solve(index, machine, &self.with_aside(needs), &wish, abilities)
        };
        let rough = needs::rough_needs(index, options, &wish);
        let gpu = None;
        // Streaming everything takes the least there is; without a budget, it is not worth the time to measure how little.
        let always = wish.stream == StreamMode::Always && wish.ram.is_none();
        if care == Care::Quick
            && let Ok(plan) = solve(&machine, &rough)
            && plan.n_ctx == wish.ctx
            && (always || plan.streamed.is_empty())
        {
            let (needs, open_seconds, measured) = (rough, None, None);
            return Ok(Planned { plan, gpu, machine, wish, needs, left, open_seconds, measured });
        }
        let (needs, seconds) = needs::measured_needs(index, options, &wish, threads)?;
        // After that: what the measurements take is not the model's.
        let measured = match care {
            Care::Measured => Some(rates::measure(index, None, threads, options.repack, true)?),
            Care::Quick | Care::Exact => None,
        };
        // Not what was just measured, but what whoever opens the model will know of it.
        machine.rates = known();
        let plan = solve(&machine, &needs).map_err(|refusal| self.refused(refusal))?;
        let open_seconds = Some(seconds);
        Ok(Planned { plan, gpu, machine, wish, needs, left, open_seconds, measured })
    }

    /// The plan of a machine whose GPU computes. What nothing fits by bounds is asked of ggml; what does not fit the GPU is
    /// weighed by what was measured.
    fn for_gpu(&self, device: Device) -> Result<Planned, Error> {
        let Problem { index, options, threads, care, .. } = *self;
        let memory = device.memory();
        let gpu = plan::Gpu {
            free: memory.free.saturating_sub(self.beside[1]),
            reserve: (Bytes(memory.total.0 / VRAM_SHARE)).max(VRAM_RESERVE),
            shares_ram: device.kind() == DeviceKind::Integrated,
            rates: rates::UNKNOWN,
        };
        let wish = self.wish();
        let size = |tensors: &[usize]| lay_out(index, tensors, device).size;
        let mut machine = plan::Machine { gpu: Some(gpu), ..self.machine() };
        let solve = |machine: &plan::Machine, needs: &Needs, left: &HashSet<usize>| {
            let region = |stacks: &[usize], n: u64| lay_out_experts(index, stacks, n, device);
            let abilities = Abilities { slot_size: &size, expert_region: &region, left };
            plan::solve(index, machine, &self.with_aside(needs), &wish, abilities)
        };
        let gpu = Some(device);
        let all_here = |plan: &Plan| plan.streamed.is_empty() && plan.by_cpu.is_empty();
        let rough = needs::rough_gpu_needs(index, options, &wish, device);
        if let Ok(plan) = solve(&machine, &rough, &HashSet::new())
            && care == Care::Quick
            && plan.n_ctx == wish.ctx
            && all_here(&plan)
        {
            let (needs, left, open_seconds, measured) = (rough, HashSet::new(), None, None);
            return Ok(Planned { plan, gpu, machine, wish, needs, left, open_seconds, measured });
        }
        let Described { mut needs, left, seconds } =
            needs::described_needs(index, options, &wish, threads, device)?;
        let solve = |machine: &plan::Machine, needs: &Needs| {
            solve(machine, needs, &left).map_err(|refusal| self.refused(refusal))
        };
        let mut plan = solve(&machine, &needs)?;
        let mut measured = None;
        // Where there is nothing to weigh, what would be weighed needs not be measured.
        if !all_here(&plan) && wish.stream != StreamMode::Always {
            let again = care == Care::Measured;
            let rates = rates::measure(index, gpu, threads, options.repack, again)?;
            machine.gpu = machine.gpu.map(|gpu| plan::Gpu { rates, ..gpu });
            plan = solve(&machine, &needs)?;
            measured = Some(rates);
        }
        for _ in 0..CORRECTIONS {
            if plan.by_cpu.is_empty() {
                break;
            }
            let more = needs::beyond(index, options, &plan, threads, device)?;
            if more == [Bytes::ZERO; 2] {
                break;
            }
            needs = needs.plus(more);
            plan = solve(&machine, &needs)?;
        }
        let open_seconds = Some(seconds);
        Ok(Planned { plan, gpu, machine, wish, needs, left, open_seconds, measured })
    }

    /// A GPU that nobody named, and that is too small for all of the model, computes only if the CPU alone would not be faster.
    fn or_cpu(&self, with: Planned) -> Planned {
        let Problem { index, options, threads, .. } = *self;
        let Some(rates) = with.measured else { return with };
        if !rates::measure_cpu(index, threads, options.repack) {
            return with;
        }
        let Ok(without) = self.for_cpu() else { return with };
        let touched = Touched::of(index);
        let cpu = plan::conversation(&without.plan, &without.machine.rates, touched);
        if cpu < plan::conversation(&with.plan, &rates, touched) { without } else { with }
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
    /// What quantising would bring, if it made all of it resident.
    pub smaller: Option<Smaller>,
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
        None => rates::measure(index, planned.gpu, &threads, options.repack, true)?,
    };
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
    Ok(Forecast { rates, estimate, advice, smaller, doubt })
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
