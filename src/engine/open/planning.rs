//! From an index and options to a plan: asks the machine what it has, and ggml what the model needs. The one place that does,
//! for the loader and for `airrun plan` alike. Who drafts is given here, and chosen in `drafting`. Plans of GPUs are made in `gpus`.

mod gpus;

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use super::layout::{lay_out, lay_out_experts};
use super::length::{context_length, trained};
use super::options::{Beside, Draft, LoadOptions};
use super::{heads, needs, rates};
use crate::engine::devices::{self, DeviceChoice};
use crate::engine::error::{ggml_error, model_name};
use crate::engine::{Error, experience, habits, threads};
use crate::ggml::{Device, KvHome, Recall, Threadpool};
use crate::gguf::Index;
use crate::plan::{self, Abilities, Needs, Plan, Rates, StreamMode, Touched, Wish};
use crate::probe;
use crate::units::Bytes;

/// The least of it that will do where memory is short.
const LEAST_CTX: u32 = 512;

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
    /// Further ones that may hold blocks, as [`plan::HeldBy::number`] counts them.
    pub(crate) further: Vec<Device>,
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
    /// Who drafts, and what that takes.
    pub(super) beside: Beside,
}

impl Planned {
    /// The same with another plan, of the same model and machine.
    pub(crate) fn with(self, plan: Plan) -> Planned {
        Planned { plan, ..self }
    }

    /// What it will be computed and read at, and whether somebody measured it.
    pub(super) fn rates(&self, index: &Index, options: &LoadOptions) -> (Rates, bool) {
        let (rates, measured) = match (self.measured, self.machine.gpu) {
            (Some(measured), _) => (measured, true),
            (None, Some(gpu)) => (gpu.rates, false),
            (None, None) => {
                let n_threads = threads::count(options.threads);
                (self.machine.rates, rates::are_known(index, n_threads, options.repack))
            }
        };
        (self.taught(index, options, rates), measured)
    }

    /// `rates` as they were seen to be with this model.
    pub(super) fn taught(&self, index: &Index, options: &LoadOptions, rates: Rates) -> Rates {
        let n_threads = threads::count(options.threads);
        experience::taught(index, &self.plan, rates, n_threads, Touched::of(index))
    }

    /// The context beside the one that the model was made for.
    pub fn context(&self, index: &Index, options: &LoadOptions) -> ContextRoom {
        let shares = options.shares();
        let trained = trained(index, options);
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

    /// What `--device` calls the further GPUs that hold blocks, in the order of [`Plan::further`].
    pub fn further_devices(&self) -> Vec<String> {
        let name = |held: &plan::HeldBy| devices::name(Some(self.further[held.number]));
        self.plan.further.iter().map(name).collect()
    }
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

/// Plans for a model that was checked, and the drafts that the options name.
pub(super) fn plan_with(
    index: &Index,
    options: &LoadOptions,
    threads: &Arc<Threadpool>,
    care: Care,
    asked: &Asked,
) -> Result<Planned, Error> {
    let gpus = devices::choose(&options.device)?;
    let beside = asked.beside(index, options, threads)?;
    let problem = Problem { index, options, threads, care, beside, asked };
    let nobody_named_it = options.device == DeviceChoice::Auto && options.vram.is_none();
    let planned = match gpus.split_first().map(|(&gpu, others)| problem.for_gpus(gpu, others)) {
        // A GPU that nobody named, and that is too small or too busy for anything.
        Some(Err(Error::Plan { .. })) if nobody_named_it => problem.for_cpu(),
        Some(Ok(planned)) if nobody_named_it => Ok(problem.or_cpu(planned)),
        Some(planned) => planned,
        None => problem.for_cpu(),
    };
    planned.map(|mut planned| {
        habits::inform(index, &mut planned.plan);
        planned
    })
}

/// What a plan is asked for.
struct Problem<'a> {
    index: &'a Index,
    options: &'a LoadOptions,
    threads: &'a Arc<Threadpool>,
    care: Care,
    /// What the model that drafts takes.
    beside: Beside,
    asked: &'a Asked,
}

/// What was asked of ggml and of the machine once, for all plans of a model: what comes later is not the model's.
pub(super) struct Asked {
    /// The options that are planned for, the one that needs least first.
    variants: Vec<LoadOptions>,
    needs: OnceCell<(Vec<Needs>, f64)>,
    taken: OnceCell<Option<Bytes>>,
    measured: OnceCell<Rates>,
    /// What the model that drafts takes; there is one at most.
    drafter: OnceCell<Beside>,
}

impl Asked {
    /// Nothing yet, for options of which only the drafts differ.
    pub(super) fn of(variants: Vec<LoadOptions>) -> Asked {
        let (needs, taken, measured) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Asked { variants, needs, taken, measured, drafter: OnceCell::new() }
    }

    /// Who drafts, and what that takes.
    fn beside(
        &self,
        index: &Index,
        options: &LoadOptions,
        threads: &Arc<Threadpool>,
    ) -> Result<Beside, Error> {
        let draft = || options.draft.clone();
        match (self.drafter.get(), &options.draft) {
            (_, Draft::None | Draft::Ngrams { .. }) => {
                Ok(Beside { draft: draft(), ..Beside::default() })
            }
            (Some(known), _) if known.draft == options.draft => Ok(known.clone()),
            _ => {
                let new = match &options.draft {
                    Draft::Head { .. } => heads::own(index, options, threads)?,
                    Draft::HeadFile { index: head, .. } => {
                        heads::beside(index, head, options, threads)?
                    }
                    _ => drafter(options, threads)?,
                };
                Ok(self.drafter.get_or_init(|| new).clone())
            }
        }
    }

    /// What ggml says that the model needs, and the seconds that it took to load it without its weights.
    fn needs(&self, problem: &Problem<'_>, wish: &Wish) -> Result<(Needs, f64), Error> {
        let (needs, seconds) = match self.needs.get() {
            Some(known) => known,
            None => {
                let new =
                    needs::measured_needs(problem.index, &self.variants, wish, problem.threads)?;
                self.needs.get_or_init(|| new)
            }
        };
        // A model drafts in passes as n-grams do.
        let draft = &problem.options.draft;
        let alike = |v: &LoadOptions| (v.draft == Draft::None) == (*draft == Draft::None);
        let which = self.variants.iter().position(|v| v.draft == *draft);
        let which = which.or_else(|| self.variants.iter().position(alike));
        Ok((needs[which.unwrap_or(0)], *seconds))
    }

    /// What was measured, if it was.
    pub(super) fn measured(&self) -> Option<Rates> {
        self.measured.get().copied()
    }

    fn measure(&self, new: impl FnOnce() -> Result<Rates, Error>) -> Result<Rates, Error> {
        match self.measured.get() {
            Some(known) => Ok(*known),
            None => {
                let new = new()?;
                Ok(*self.measured.get_or_init(|| new))
            }
        }
    }
}

/// What the model that drafts will take. On a CPU, ggml says it: bounds are several times what a small model takes, and blocks of the
/// large one would make room for nothing.
fn drafter(options: &LoadOptions, threads: &Arc<Threadpool>) -> Result<Beside, Error> {
    let draft = options.draft.clone();
    let Draft::Model { index, .. } = &draft else { return Ok(Beside::default()) };
    index.check_model()?;
    let options = options.of_draft(None);
    let asked = Asked::of(vec![options.clone()]);
    let care = if devices::choose(&options.device)?.is_empty() { Care::Exact } else { Care::Quick };
    let planned = plan_with(index, &options, threads, care, &asked)?;
    let (memory, gpu) = (planned.plan.memory, planned.plan.gpu);
    let vram = gpu.map(|gpu| gpu.outside + gpu.blocks + gpu.context).unwrap_or_default();
    let (rates, _) = planned.rates(index, &options);
    let each = plan::pass_seconds(&planned.plan, &rates, Touched::of(index), 1);
    let ram = memory.outside + memory.blocks + memory.context + needs::tables(index);
    Ok(Beside { draft, ram, vram, each, why_not: None })
}

impl Problem<'_> {
    fn wish(&self) -> Wish {
        let LoadOptions { stream, ram, vram, ubatch, repack, .. } = *self.options;
        let shares = self.options.shares();
        let ctx = context_length(self.index, self.options).saturating_mul(shares);
        let ctx_least = if self.options.ctx.is_some() { ctx } else { ctx.min(LEAST_CTX * shares) };
        let ram = ram.map(|ram| ram.saturating_sub(self.beside.ram));
        let vram = vram.map(|vram| vram.saturating_sub(self.beside.vram));
        Wish { stream, ram, vram, ctx, ctx_least, ubatch, repack }
    }

    /// The machine without what the model that drafts takes of it.
    fn machine(&self) -> plan::Machine {
        let machine = probe::machine();
        plan::Machine { ram: machine.ram.saturating_sub(self.beside.ram), ..machine }
    }

    /// What the model needs, and what is left to others in this program.
    fn with_aside(&self, needs: &Needs) -> Needs {
        Needs { process: needs.process + self.options.aside, ..*needs }
    }

    fn refused(&self, refusal: plan::Refusal) -> Error {
        Error::Plan { model: model_name(self.index), refusal }
    }

    /// A plan that was made by bounds: libllama was asked nothing, and nothing was measured.
    fn planned(
        &self,
        plan: Plan,
        gpu: Option<Device>,
        machine: plan::Machine,
        needs: Needs,
    ) -> Planned {
        Planned {
            plan,
            gpu,
            further: Vec::new(),
            machine,
            wish: self.wish(),
            needs,
            left: HashSet::new(),
            open_seconds: None,
            measured: None,
            beside: self.beside.clone(),
        }
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
        // Streaming everything takes the least there is; without a budget, it is not worth the time to measure how little.
        let always = wish.stream == StreamMode::Always && wish.ram.is_none();
        if care == Care::Quick
            && let Ok(plan) = solve(&machine, &rough)
            && plan.n_ctx == wish.ctx
            && (always || plan.streamed.is_empty())
        {
            return Ok(self.planned(plan, None, machine, rough));
        }
        let (needs, seconds) = self.asked.needs(self, &wish)?;
        // After that: what the measurements take is not the model's.
        let measured = match care {
            Care::Measured => Some(
                self.asked
                    .measure(|| rates::measure(index, None, &[], threads, options.repack, true))?,
            ),
            Care::Quick | Care::Exact => None,
        };
        // Not what was just measured, but what whoever opens the model will know of it.
        machine.rates = known();
        let plan = solve(&machine, &needs).map_err(|refusal| self.refused(refusal))?;
        let planned = self.planned(plan, None, machine, needs);
        Ok(Planned { open_seconds: Some(seconds), measured, ..planned })
    }
}

/// How the contexts of a plan keep what they read.
pub(super) fn recall(options: &LoadOptions, plan: &Plan) -> Recall {
    let in_ram = plan.kept_in_ram > Bytes::ZERO;
    options.recall.at_home(if in_ram { KvHome::Ram } else { KvHome::Gpu })
}
