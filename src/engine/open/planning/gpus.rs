//! Plans of machines with GPUs: what is asked of ggml for them, what is measured and weighed, and who has keys and values.

use std::collections::HashSet;

use super::{Care, Planned, Problem};
use crate::engine::Error;
use crate::engine::open::layout::{lay_out, lay_out_experts};
use crate::engine::open::needs::{self, Beyond, Described};
use crate::engine::open::options::LoadOptions;
use crate::engine::open::rates;
use crate::ggml::{Device, DeviceKind, KvHome};
use crate::plan::{self, Abilities, Further, MOST_FURTHER, Needs, Plan, Pool, StreamMode, Touched};
use crate::units::{Bytes, MIB};

/// What is left of a GPU's memory for what else will want some, if nobody names a budget: a share of all of it, and at least this.
const VRAM_SHARE: u64 = 32;
const VRAM_RESERVE: Bytes = Bytes(256 * MIB.0);

/// How often a plan is made again that its context turns out to be too large for.
const CORRECTIONS: usize = 4;

/// What keys and values and activations must take of a GPU's memory to be weighed against blocks. (bytes)
const MUCH_CONTEXT: Bytes = Bytes(64 * MIB.0);

/// Keys and values are in RAM only where a conversation takes this share of the time by the estimate: it knows less of attention than of weights.
const WORTH_IT: f64 = 0.95;

impl Problem<'_> {
    /// The plan of a machine whose GPU computes, with keys and values where they are wanted, or where they are better: in RAM they leave
    /// their room on the GPU to blocks, and the CPU computes attention.
    pub(super) fn for_gpus(&self, device: Device, others: &[Device]) -> Result<Planned, Error> {
        let n = if self.options.one_gpu { 0 } else { others.len().min(MOST_FURTHER) };
        let with = |home| {
            let recall = self.options.recall.at_home(home);
            let options = LoadOptions { recall, ..self.options.clone() };
            Problem { options: &options, beside: self.beside.clone(), ..*self }
                .on_gpus(device, &others[..n])
        };
        if self.options.recall.home != KvHome::Auto {
            return with(self.options.recall.home);
        }
        let there = with(KvHome::Gpu);
        let may_be_better = match &there {
            Ok(there) => self.may_be_better_in_ram(there),
            // One without room for its context on the GPU.
            Err(error) => matches!(error, Error::Plan { .. }),
        };
        if !may_be_better {
            return there;
        }
        let here = match with(KvHome::Ram) {
            Ok(here) => here,
            // What is refused either way is told what will do.
            Err(Error::Plan { refusal, model }) if there.is_err() && refusal.pool == Pool::Vram => {
                return Err(Error::Plan { refusal, model });
            }
            Err(_) => return there,
        };
        let seconds = |planned: &Planned| {
            let rates = planned.measured?;
            Some(plan::conversation(&planned.plan, &rates, Touched::of(self.index)))
        };
        match there.as_ref().ok().map(|there| seconds(there).zip(seconds(&here))) {
            Some(Some((there, here))) if here < there * WORTH_IT => {}
            Some(_) => return there,
            None => {}
        }
        Ok(here)
    }

    /// Whether keys and values that leave the GPU would leave room for what is brought to it or computed elsewhere now. States of
    /// recurrent blocks are small, and computed with more than once.
    fn may_be_better_in_ram(&self, there: &Planned) -> bool {
        let plan = &there.plan;
        let context = plan.gpu.map(|gpu| gpu.context).unwrap_or_default();
        there.measured.is_some()
            && context >= MUCH_CONTEXT
            && self.index.arch_uint("ssm.inner_size").is_none()
            && !(plan.streamed.is_empty() && plan.by_cpu.is_empty())
    }

    /// The plan of a machine with further GPUs, where they hold what was planned for them; of one without, otherwise.
    fn on_gpus(&self, device: Device, further: &[Device]) -> Result<Planned, Error> {
        match self.on_gpu(device, further)? {
            Some(planned) => Ok(planned),
            None => self.on_gpu(device, &[]).map(|planned| planned.expect("nothing else is left")),
        }
    }

    /// What may be used of the memory of each further GPU: as much as of the first where the user says so, and never more than is free.
    fn budgets(&self, further: &[Device]) -> Further<Bytes> {
        let mut budgets = Further::default();
        for (budget, device) in budgets.iter_mut().zip(further) {
            let memory = device.memory();
            let free = memory.free.saturating_sub(reserve(memory.total));
            *budget = Some(self.options.vram.map_or(free, |given| given.min(free)));
        }
        budgets
    }

    /// The plan of a machine whose GPU computes. What nothing fits by bounds is asked of ggml; what does not fit the GPU is
    /// weighed by what was measured. `None` if what was planned for `further` GPUs does not come out so.
    fn on_gpu(&self, device: Device, further: &[Device]) -> Result<Option<Planned>, Error> {
        let Problem { index, options, threads, care, .. } = *self;
        let memory = device.memory();
        let gpu = plan::Gpu {
            free: memory.free.saturating_sub(self.beside.vram),
            reserve: reserve(memory.total),
            shares_ram: device.kind() == DeviceKind::Integrated,
            rates: rates::UNKNOWN,
            further: Further::default(),
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
        let all_here = |plan: &Plan| {
            plan.streamed.is_empty() && plan.by_cpu.is_empty() && plan.further.is_empty()
        };
        let rough = needs::rough_gpu_needs(index, options, &wish, device);
        if let Ok(plan) = solve(&machine, &rough, &HashSet::new())
            && care == Care::Quick
            && options.recall.home != KvHome::Ram
            && plan.n_ctx == wish.ctx
            && all_here(&plan)
        {
            return Ok(Some(self.planned(plan, gpu, machine, rough)));
        }
        machine.gpu = machine.gpu.map(|gpu| plan::Gpu { further: self.budgets(further), ..gpu });
        let Described { needs, left, seconds } =
            needs::described_needs(index, options, &wish, threads, device, &self.asked.taken)?;
        let solve = |machine: &plan::Machine, needs: &Needs| {
            solve(machine, needs, &left).map_err(|refusal| self.refused(refusal))
        };
        let mut plan = solve(&machine, &needs)?;
        let mut measured = None;
        // Where there is nothing to weigh, what would be weighed needs not be measured.
        if !all_here(&plan) && wish.stream != StreamMode::Always {
            let again = care == Care::Measured;
            let rates = self
                .asked
                .measure(|| rates::measure(index, gpu, further, threads, options.repack, again))?;
            machine.gpu = machine.gpu.map(|gpu| plan::Gpu { rates, ..gpu });
            plan = solve(&machine, &needs)?;
            measured = Some(rates);
        }
        let corrected = self
            .corrected((plan, needs), (device, further), &left, |needs| solve(&machine, needs))?;
        let Some((plan, needs)) = corrected else { return Ok(None) };
        let planned = self.planned(plan, gpu, machine, needs);
        let further = further.to_vec();
        Ok(Some(Planned { further, left, open_seconds: Some(seconds), measured, ..planned }))
    }

    /// A plan and the needs that it is made from, as libllama says that they are with blocks where the plan has them. `None` if blocks that
    /// further GPUs are to hold do not come out so.
    fn corrected(
        &self,
        (mut plan, mut needs): (Plan, Needs),
        gpus: (Device, &[Device]),
        left: &HashSet<usize>,
        solve: impl Fn(&Needs) -> Result<Plan, Error>,
    ) -> Result<Option<(Plan, Needs)>, Error> {
        let Problem { index, options, threads, .. } = *self;
        let mut is_certain = false;
        for _ in 0..CORRECTIONS {
            if plan.by_cpu.is_empty() && plan.further.is_empty() {
                break;
            }
            let more = needs::beyond(index, options, &plan, threads, gpus, left)?;
            let Some(more) = more else { break };
            is_certain = more == Beyond::default();
            if is_certain {
                break;
            }
            needs = needs.plus(more.shared).plus_further(more.further);
            plan = solve(&needs)?;
        }
        Ok((is_certain || plan.further.is_empty()).then_some((plan, needs)))
    }

    /// A GPU that nobody named, and that is too small for all of the model, computes only if the CPU alone would not be faster.
    pub(super) fn or_cpu(&self, with: Planned) -> Planned {
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

/// What is left of a GPU's memory to others, if nobody names a budget.
fn reserve(total: Bytes) -> Bytes {
    Bytes(total.0 / VRAM_SHARE).max(VRAM_RESERVE)
}
