//! The decision with a GPU: which blocks live in its memory, which of the others the CPU computes, which are brought over the link
//! from RAM, and which from disk.
//!
//! Two kinds of plans compete. *Split* ones bring nothing: what is not resident is computed by the CPU, whole or only its
//! feed-forward network, as llama.cpp would. *Streaming* ones have slots, and may leave some of the blocks in RAM to the CPU,
//! which computes while the link brings others. The fastest single-token pass by the arithmetic of `estimate` wins; so no plan is
//! slower than streaming everything, nor than a split. What each takes of the memories is added up in `accounts`.

mod accounts;

use std::collections::HashSet;

use accounts::{Cut, Draft, Outside};

use super::estimate::{Touched, conversation, estimate};
use super::experts::is_stack;
use super::limits::{
    MAX_TRIES, N_SLOTS, RESIDENT_UBATCH, UBATCH_SHARE, UBATCHES, is_streamed, with_context,
};
use super::parts::{CutBlock, LEVELS, Level, OF_MIXTURES};
use super::{
    Abilities, Experts, Gpu, GpuMemory, GpuNeeds, Machine, Needs, Placed, Plan, Pool, Refusal,
};
use super::{StreamMode, Tier, Unit, Wish};
use crate::gguf::Index;
use crate::units::Bytes;

/// Shares of the blocks in RAM that are tried on the CPU.
const SHARES: usize = 16;

/// Numbers of slots that are tried: with more of them, the link is busy while the CPU computes several blocks.
const SLOTS: [usize; 3] = [N_SLOTS, 4, 8];

/// Of two plans whose passes take as long, up to this share, the one with the faster prompts wins.
const AS_FAST: f64 = 1.001;

/// Tokens of the prompt that such plans are compared with.
const PROMPT: u32 = 512;

/// What the CPU computes of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All of it.
    Whole,
    /// The feed-forward network; the rest is resident.
    Ffn,
}

/// Decides where every block of `index` lives. See [`super::solve()`].
pub(super) fn solve(
    index: &Index,
    machine: &Machine,
    gpu: &Gpu,
    needs: &Needs,
    gpu_needs: &GpuNeeds,
    wish: &Wish,
    abilities: Abilities<'_>,
) -> Result<Plan, Refusal> {
    let vram = wish.vram.unwrap_or(gpu.free.saturating_sub(gpu.reserve));
    let mut ram = wish.ram.unwrap_or(machine.ram.saturating_sub(machine.reserve));
    if gpu.shares_ram {
        ram = ram.saturating_sub(vram);
    }
    with_context(&gpu_needs.context, wish, vram, |wish| {
        solve_with(index, gpu, needs, gpu_needs, wish, abilities, (ram, vram))
    })
}

/// As [`solve`], for a context that is what it is, within so much RAM and memory of the GPU.
fn solve_with(
    index: &Index,
    gpu: &Gpu,
    needs: &Needs,
    gpu_needs: &GpuNeeds,
    wish: &Wish,
    abilities: Abilities<'_>,
    (ram, vram): (Bytes, Bytes),
) -> Result<Plan, Refusal> {
    let touched = Touched::of(index);
    let outside = Outside::of(index);
    let problem =
        Problem { index, gpu, needs, gpu_needs, wish, abilities, ram, vram, touched, outside };
    if let Some(plan) = problem.all_resident() {
        return Ok(plan);
    }
    let mut plans = Vec::new();
    let mut refusals = Vec::new();
    let mut take = |result: Result<Vec<Plan>, Refusal>| match result {
        Ok(found) => plans.extend(found),
        Err(refusal) => refusals.push(refusal),
    };
    let cuts = problem.levels().map(|level| problem.cut(level));
    for output_here in [true, false] {
        if wish.stream != StreamMode::Always {
            for part in [Part::Whole, Part::Ffn] {
                take(problem.split(&cuts[0], output_here, part));
            }
        }
        if wish.stream != StreamMode::Never {
            for (cut, n_slots) in cuts.iter().flat_map(|cut| SLOTS.map(|n| (cut, n))) {
                // Nothing but streaming needs no more than two.
                if wish.stream == StreamMode::Auto || n_slots == N_SLOTS {
                    take(problem.streaming(cut, output_here, n_slots));
                }
            }
        }
    }
    let best = match wish.stream {
        // Coarse cuts before fine ones, the output matrix on the GPU before elsewhere.
        StreamMode::Always => plans.into_iter().next(),
        StreamMode::Never => problem.fastest(plans),
        StreamMode::Auto => problem.with_pools_or(problem.fastest(plans)),
    };
    // Of what fits neither, the memory that was not even enough for the least of all plans is named.
    let least =
        |pool| refusals.iter().filter(move |r| r.pool == pool).min_by_key(|r| r.least).cloned();
    best.ok_or_else(|| {
        least(Pool::Ram).or(least(Pool::Vram)).expect("every way to place it was tried")
    })
}

struct Problem<'a> {
    index: &'a Index,
    gpu: &'a Gpu,
    needs: &'a Needs,
    gpu_needs: &'a GpuNeeds,
    wish: &'a Wish,
    abilities: Abilities<'a>,
    ram: Bytes,
    vram: Bytes,
    touched: Touched,
    outside: Outside,
}

/// A unit of a block that streams: the block's number, and its own among the block's.
type Spare = (usize, usize);

impl Problem<'_> {
    fn batch(&self, n: u32) -> u32 {
        n.clamp(1, self.wish.ctx.max(1))
    }

    /// How finely blocks are cut, what is best first where all of it streams: of a mixture, whole blocks would bring all experts for each
    /// token.
    fn levels(&self) -> [Level; LEVELS.len()] {
        let mut levels = LEVELS;
        if self.wish.stream == StreamMode::Always && self.has_experts() {
            levels.rotate_left(1);
        }
        levels
    }

    /// Whether there are experts that could stream one by one.
    fn has_experts(&self) -> bool {
        let mut tensors = self.index.blocks.iter().flat_map(|b| &b.tensors);
        let stack = tensors.find(|&&t| is_stack(self.index, &self.index.tensors[t]));
        stack.is_some_and(|&t| (self.abilities.expert_region)(&[t], 1).is_some())
    }

    /// A plan with pools of experts where that answers sooner than `other`: it need not, where RAM holds everything.
    fn with_pools_or(&self, other: Option<Plan>) -> Option<Plan> {
        let seconds = |plan: &Plan| conversation(plan, &self.gpu.rates, self.touched);
        let timed = |plan: Plan| (seconds(&plan), plan);
        // What is as fast as the other is no reason for it.
        let all = other.into_iter().chain(self.pools()).map(timed);
        all.reduce(|best, next| if next.0 < best.0 { next } else { best }).map(|(_, plan)| plan)
    }

    /// The plans in which only experts stream: the GPU's memory holds what every token needs, then experts, as the RAM does.
    fn pools(&self) -> Vec<Plan> {
        let mut plans = Vec::new();
        for level in OF_MIXTURES {
            let cut = self.cut(level);
            let tier = |block: &CutBlock| match block.units.is_empty() {
                true => Tier::Resident,
                false => Tier::Streamed,
            };
            let tiers: Vec<Tier> = cut.blocks.iter().map(tier).collect();
            for output_here in [true, false] {
                let n_ubatch = self.choose_batch(&cut, output_here);
                let (part, n_slots) = (Part::Whole, N_SLOTS);
                let draft = Draft { cut: &cut, part, output_here, n_ubatch, n_slots };
                if tiers.contains(&Tier::Streamed) && self.fits(draft, &tiers) {
                    let plan = self.plan_without(draft, &tiers, &HashSet::new());
                    plans.push(self.with_experts(plan));
                }
            }
        }
        plans.retain(|plan| plan.experts.is_some());
        plans
    }

    /// Gives experts of the streamed stacks what the plan leaves of both memories; the least that does where nothing but streaming is
    /// asked for, and no budget given. `plan` itself where there is no room, or nothing to stream by expert.
    fn with_experts(&self, mut plan: Plan) -> Plan {
        let stack = |&t: &usize| is_stack(self.index, &self.index.tensors[t]);
        let of_stacks = |unit: &&Unit| {
            plan.blocks[unit.block].tier == Tier::Streamed && unit.tensors.iter().all(stack)
        };
        let units = plan.streamed.iter().filter(of_stacks);
        let tensors = units.flat_map(|unit| unit.tensors.iter().map(|&t| (unit.block, t)));
        let (ram, gpu) = (plan.memory, plan.gpu.unwrap_or_default());
        let room = [ram.budget.saturating_sub(ram.peak()), gpu.budget.saturating_sub(gpu.peak())];
        let experts = Experts::of(self.index, tensors, self.abilities).and_then(|experts| {
            let always = self.wish.stream == StreamMode::Always;
            let least = experts.least(self.abilities);
            let [ram, device] = [
                if always && self.wish.ram.is_none() { least.ram } else { room[0] },
                if always && self.wish.vram.is_none() { least.device } else { room[1] },
            ];
            let experts = experts.with_device_room(device, self.abilities)?;
            experts.with_room(ram, Bytes::ZERO, false, self.abilities)
        });
        let Some(experts) = experts else { return plan };
        plan.memory.slots += experts.pool;
        let above = experts.on_device.map(|above| above.pool).unwrap_or_default();
        plan.gpu = plan.gpu.map(|gpu| GpuMemory { slots: gpu.slots + above, ..gpu });
        plan.experts = Some(experts);
        plan
    }

    /// The plan of a model that fits the GPU.
    fn all_resident(&self) -> Option<Plan> {
        if self.wish.stream == StreamMode::Always && !self.index.blocks.is_empty() {
            return None;
        }
        let cut = self.cut(Level::Blocks);
        let tiers = vec![Tier::Resident; self.index.blocks.len()];
        let n_ubatch = self.batch(self.wish.ubatch.unwrap_or(RESIDENT_UBATCH));
        let (part, output_here, n_slots) = (Part::Whole, true, N_SLOTS);
        let draft = Draft { cut: &cut, part, output_here, n_ubatch, n_slots };
        self.fits(draft, &tiers).then(|| self.plan(draft, &tiers))
    }

    /// The plan in which the CPU computes what the GPU has no room for, and the one in which it computes all blocks: a GPU need not be
    /// faster.
    fn split(&self, cut: &Cut, output_here: bool, part: Part) -> Result<Vec<Plan>, Refusal> {
        let n = self.index.blocks.len();
        let n_ubatch = self.batch(self.wish.ubatch.unwrap_or(RESIDENT_UBATCH));
        let tiers = |n_cpu: usize| -> Vec<Tier> {
            (0..n).map(|i| if i < n_cpu { Tier::Cpu } else { Tier::Resident }).collect()
        };
        let mut refusal = None;
        for n_cpu in tries(0, n) {
            let tiers = tiers(n_cpu);
            let draft = Draft { cut, part, output_here, n_ubatch, n_slots: N_SLOTS };
            match self.refuse(draft, &tiers) {
                None => {
                    let mut plans = vec![self.plan(draft, &tiers)];
                    let all = vec![Tier::Cpu; n];
                    if n_cpu < n && self.fits(draft, &all) {
                        plans.push(self.plan(draft, &all));
                    }
                    return Ok(plans);
                }
                // More of them on the CPU need less of the GPU.
                Some(r) => refusal = Some(r),
            }
        }
        Err(refusal.expect("at least one was tried"))
    }

    /// The plans that stream units of this cut: with as few streamed blocks as there is room for, as few of those on disk, and
    /// several shares of the rest left to the CPU.
    fn streaming(
        &self,
        cut: &Cut,
        output_here: bool,
        n_slots: usize,
    ) -> Result<Vec<Plan>, Refusal> {
        let n = self.index.blocks.len();
        let n_ubatch = self.choose_batch(cut, output_here);
        let draft = Draft { cut, part: Part::Whole, output_here, n_ubatch, n_slots };
        let with = |out: usize, tier: Tier| -> Vec<Tier> {
            (0..n).map(|i| if is_streamed(i, out, n) { tier } else { Tier::Resident }).collect()
        };
        let always = self.wish.stream == StreamMode::Always;
        let mut few: Option<(Bytes, Vec<Tier>)> = None;
        let mut refusal = None;
        for out in tries(if always { n } else { 1.min(n) }, n) {
            // From disk, to begin with: that needs the least RAM.
            let tiers = with(out, Tier::Streamed);
            match self.refuse(draft, &tiers) {
                // Not the fewest blocks but the fewest bytes: blocks differ.
                None => {
                    let bytes = self.bytes(&tiers, Tier::Streamed);
                    if few.as_ref().is_none_or(|(least, _)| bytes < *least) {
                        few = Some((bytes, tiers));
                    }
                }
                Some(r) => refusal = Some(r),
            }
        }
        let Some((_, few)) = few else { return Err(refusal.expect("something was tried")) };
        let mut plans = self.shared(draft, &few, if always { 0 } else { SHARES });
        // Nothing but streaming, too: a mixture need not be faster.
        let all = with(n, Tier::Streamed);
        if all != few && self.fits(draft, &all) {
            plans.extend(self.shared(draft, &all, 0));
        }
        Ok(plans)
    }

    /// Of blocks that stream, as many as possible at home in RAM, and of those none, some, or all left to the CPU.
    fn shared(&self, draft: Draft<'_>, tiers: &[Tier], shares: usize) -> Vec<Plan> {
        let tiers = match self.wish.stream == StreamMode::Always && self.has_experts() {
            // The RAM is for the pool of experts, then.
            true => tiers.to_vec(),
            false => self.bring_home(tiers, |tiers| self.fits(draft, tiers)),
        };
        let n_home = tiers.iter().filter(|&&t| t == Tier::Host).count();
        let shares = shares.min(n_home);
        let mut plans = Vec::new();
        for share in 0..=shares {
            let n_cpu = if share == 0 { 0 } else { n_home * share / shares };
            let tiers = spread(&tiers, Tier::Host, Tier::Cpu, n_cpu);
            if self.fits(draft, &tiers) {
                plans.push(self.plan(draft, &tiers));
            }
        }
        plans
    }

    /// As many of the streamed blocks as there is RAM for, at home there.
    fn bring_home(&self, tiers: &[Tier], fits: impl Fn(&[Tier]) -> bool) -> Vec<Tier> {
        let n = tiers.iter().filter(|&&t| t == Tier::Streamed).count();
        let mut best = tiers.to_vec();
        let mut most = Bytes::ZERO;
        for n_home in tries(0, n) {
            let tried = spread(tiers, Tier::Streamed, Tier::Host, n_home);
            let bytes = self.bytes(&tried, Tier::Host);
            if bytes > most && fits(&tried) {
                (best, most) = (tried, bytes);
            }
        }
        best
    }

    /// The bytes of the blocks in `tier`.
    fn bytes(&self, tiers: &[Tier], tier: Tier) -> Bytes {
        let blocks = self.index.blocks.iter().zip(tiers);
        blocks.filter(|(_, t)| **t == tier).map(|(b, _)| b.len).sum()
    }

    /// The largest batch that pays and leaves room for blocks.
    fn choose_batch(&self, cut: &Cut, output_here: bool) -> u32 {
        if let Some(n) = self.wish.ubatch {
            return self.batch(n);
        }
        let tiers = vec![Tier::Streamed; self.index.blocks.len()];
        let least = |n_ubatch| {
            let (part, n_slots) = (Part::Whole, N_SLOTS);
            self.gpu_memory(Draft { cut, part, output_here, n_ubatch, n_slots }, &tiers).peak()
        };
        if self.wish.stream == StreamMode::Always && self.wish.vram.is_none() {
            return self.batch(RESIDENT_UBATCH);
        }
        let usual = least(self.batch(RESIDENT_UBATCH));
        let limit = usual + Bytes(self.vram.saturating_sub(usual).0 / UBATCH_SHARE);
        let allowed = if usual <= self.vram { limit } else { self.vram };
        let fits = UBATCHES.into_iter().map(|n| self.batch(n)).find(|&n| least(n) <= allowed);
        fits.unwrap_or(self.batch(UBATCHES[UBATCHES.len() - 1]))
    }

    fn fits(&self, draft: Draft<'_>, tiers: &[Tier]) -> bool {
        self.gpu_memory(draft, tiers).peak() <= self.vram
            && self.memory(draft, tiers).peak() <= self.ram
    }

    /// Why a draft does not fit, if it does not.
    fn refuse(&self, draft: Draft<'_>, tiers: &[Tier]) -> Option<Refusal> {
        let (gpu, ram) = (self.gpu_memory(draft, tiers), self.memory(draft, tiers));
        let Wish { ctx, stream, .. } = *self.wish;
        let refusal = |pool, least, budget, promised, fits| Refusal {
            pool,
            least,
            budget,
            promised,
            resident: stream == StreamMode::Never,
            ctx,
            fits,
        };
        if gpu.peak() > self.vram {
            let fixed = gpu.peak() - gpu.context;
            let room = self.vram.saturating_sub(fixed + Pool::Vram.spread());
            let fits = self.gpu_needs.context.longest(room, ctx, draft.n_ubatch);
            let promised = self.wish.vram.is_some();
            return Some(refusal(Pool::Vram, gpu.peak(), self.vram, promised, fits));
        }
        (ram.peak() > self.ram)
            .then(|| refusal(Pool::Ram, ram.peak(), self.ram, self.wish.ram.is_some(), 0))
    }

    /// The best of these by the measured rates.
    fn fastest(&self, plans: Vec<Plan>) -> Option<Plan> {
        let rates = &self.gpu.rates;
        let timed = plans.into_iter().map(|plan| {
            let cost = estimate(&plan, rates, self.touched, PROMPT);
            (cost.generation.seconds, cost.prompt.seconds, plan)
        });
        let timed: Vec<(f64, f64, Plan)> = timed.collect();
        let fastest = timed.iter().map(|t| t.0).min_by(f64::total_cmp)?;
        let as_fast = timed.into_iter().filter(|t| t.0 <= fastest * AS_FAST);
        as_fast.min_by(|a, b| a.1.total_cmp(&b.1)).map(|t| t.2)
    }

    fn plan(&self, draft: Draft<'_>, tiers: &[Tier]) -> Plan {
        let (memory, gpu) = (self.memory(draft, tiers), self.gpu_memory(draft, tiers));
        let room = [self.ram.saturating_sub(memory.peak()), self.vram.saturating_sub(gpu.peak())];
        let plan = self.plan_without(draft, tiers, &self.spared(draft.cut, tiers, room));
        match self.wish.stream {
            StreamMode::Always => self.with_experts(plan),
            _ => plan,
        }
    }

    /// The plan of a draft in which `spared` are resident all the same.
    fn plan_without(&self, draft: Draft<'_>, tiers: &[Tier], spared: &HashSet<Spare>) -> Plan {
        let Draft { cut, output_here, n_ubatch, n_slots, .. } = draft;
        let (mut memory, mut gpu) = (self.memory(draft, tiers), self.gpu_memory(draft, tiers));
        for &(i, u) in spared {
            let tensors = &cut.blocks[i].units[u].tensors;
            gpu.blocks += cut.blocks[i].units[u].len;
            if tiers[i] == Tier::Host {
                memory.host = memory.host.saturating_sub((self.abilities.slot_size)(tensors));
            }
        }
        let mut streamed = Vec::new();
        let mut by_cpu: Vec<usize> = Vec::new();
        let mut blocks = Vec::with_capacity(tiers.len());
        for (i, &tier) in tiers.iter().enumerate() {
            let (placed, on_cpu) = self.place(draft, i, tier, spared, &mut streamed);
            blocks.push(placed);
            by_cpu.extend(on_cpu);
        }
        if !output_here {
            by_cpu.extend(self.outside.output);
        }
        Plan {
            blocks,
            slot: self.slot(cut, tiers),
            n_slots: if streamed.is_empty() { 0 } else { n_slots },
            streamed,
            experts: None,
            by_cpu,
            output_by_cpu: !output_here,
            n_ctx: self.wish.ctx,
            n_ubatch,
            memory,
            gpu: Some(gpu),
            promised: self.wish.ram.is_some(),
        }
    }

    /// Where block `i` lives, and what of it the CPU computes with; its units that stream are appended to `streamed`.
    fn place<'b>(
        &'b self,
        draft: Draft<'b>,
        i: usize,
        tier: Tier,
        spared: &HashSet<Spare>,
        streamed: &mut Vec<Unit>,
    ) -> (Placed, &'b [usize]) {
        let (block, cut) = (&self.index.blocks[i], &draft.cut.blocks[i]);
        let on_cpu = match (tier, draft.part) {
            (Tier::Cpu, Part::Whole) => block.tensors.as_slice(),
            (Tier::Cpu, Part::Ffn) => cut.ffn.as_slice(),
            _ => &[],
        };
        let (mut before, mut of_it, mut n) = (Bytes::ZERO, Bytes::ZERO, 0);
        for (u, unit) in cut.units.iter().enumerate() {
            if !matches!(tier, Tier::Host | Tier::Streamed) {
                break;
            }
            if spared.contains(&(i, u)) {
                before += unit.len;
                continue;
            }
            of_it += unit.len;
            n += 1;
            streamed.push(Unit { before: std::mem::take(&mut before), ..unit.clone() });
        }
        // A block of which nothing streams after all.
        let resident = n == 0 && before > Bytes::ZERO;
        let placed = Placed {
            place: block.place(),
            tier: if resident { Tier::Resident } else { tier },
            len: block.len,
            streamed: of_it,
            partly: n > 0 && n < cut.units.len(),
            by_cpu: on_cpu.iter().map(|&t| self.index.tensors[t].len).sum(),
            left: if on_cpu.len() == block.tensors.len() { Bytes::ZERO } else { cut.left },
        };
        (placed, on_cpu)
    }

    /// Units of blocks that stream for which there is room all the same: whole blocks seldom fill a memory. What is left is given,
    /// in RAM and on the GPU.
    fn spared(&self, cut: &Cut, tiers: &[Tier], [ram, mut vram]: [Bytes; 2]) -> HashSet<Spare> {
        if self.wish.stream == StreamMode::Always {
            return HashSet::new();
        }
        // What is resident passes through RAM while it is loaded, a tensor at a time.
        let mut units: Vec<(Bytes, Spare)> = Vec::new();
        for (i, block) in cut.blocks.iter().enumerate() {
            if matches!(tiers[i], Tier::Host | Tier::Streamed) && block.largest <= ram {
                units.extend(block.units.iter().enumerate().map(|(u, unit)| (unit.len, (i, u))));
            }
        }
        units.sort_by_key(|&(len, _)| std::cmp::Reverse(len));
        let mut spared = HashSet::new();
        for (len, spare) in units {
            if len <= vram {
                vram = vram.saturating_sub(len);
                spared.insert(spare);
            }
        }
        spared
    }
}

/// The numbers from `first` to `last`, or some of them that are spread evenly, the ends among them.
fn tries(first: usize, last: usize) -> impl Iterator<Item = usize> {
    let step = (last - first).div_ceil(MAX_TRIES).max(1);
    (first..last).step_by(step).chain([last])
}

/// `tiers` with `n` of those that are `from`, spread evenly, turned into `to`.
fn spread(tiers: &[Tier], from: Tier, to: Tier, n: usize) -> Vec<Tier> {
    let all = tiers.iter().filter(|&&t| t == from).count();
    let mut seen = 0;
    let turned = tiers.iter().map(|&tier| {
        if tier != from {
            return tier;
        }
        seen += 1;
        if is_streamed(seen - 1, n, all) { to } else { from }
    });
    turned.collect()
}

#[cfg(test)]
pub(super) mod tests;
