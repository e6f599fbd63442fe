//! The decision: what streams, in how small parts, through how many slots of which size, with how large batches.
//!
//! There is no rule that is right on all machines: large slots take memory that blocks could live in, small ones are full
//! while the disk could go on, and every part costs a run. So all that is sensible is drawn up, each with as little streaming as
//! the budget allows, and the arithmetic of `estimate` chooses, by what is known of the machine.

use super::estimate::{ANSWER, QUESTION, Touched, conversation, share};
use super::experts::{is_stack, used};
use super::limits::{
    LEAST_UBATCH, N_SLOTS, RESIDENT_UBATCH, UBATCH_SHARE, UBATCH_WORTH, UBATCHES, with_context,
};
use super::parts::{LEVELS, Level, OF_MIXTURES};
use super::refusal::{Pool, Refusal};
use super::spread::{Chosen, Cut};
use super::{Abilities, Experts, Machine, Memory, Needs, Plan, Rates, StreamMode, Wish, offload};
use crate::gguf::{Index, Place};
use crate::units::Bytes;

/// Numbers of slots that are tried: more of them let the disk read on while what is resident is computed.
const SLOTS: [usize; 5] = [N_SLOTS, 3, 4, 6, 8];

/// Parts of a model that are weighed against each other; more of them take longer than they can gain.
const MAX_PARTS: usize = 2048;

/// How often a choice is corrected that does not fit yet, because what it takes depends on what is chosen.
const CORRECTIONS: usize = 8;

/// Of plans that are as fast up to this share, the one that reads least wins: it depends least on the disk.
const AS_FAST: f64 = 1.005;

/// Decides where every block of `index` lives.
///
/// # Errors
///
/// The least that the model needs is more than may be used.
pub fn solve(
    index: &Index,
    machine: &Machine,
    needs: &Needs,
    wish: &Wish,
    abilities: Abilities<'_>,
) -> Result<Plan, Refusal> {
    if let (Some(gpu), Some(gpu_needs)) = (&machine.gpu, &needs.gpu) {
        return offload::solve(index, machine, gpu, needs, gpu_needs, wish, abilities);
    }
    let budget = wish.ram.unwrap_or(machine.ram.saturating_sub(machine.reserve));
    with_context(&needs.context, wish, budget, |wish| {
        solve_with(index, machine, needs, wish, budget, abilities)
    })
}

/// As [`solve`], for a machine whose CPU computes and a context that is what it is.
fn solve_with(
    index: &Index,
    machine: &Machine,
    needs: &Needs,
    wish: &Wish,
    budget: Bytes,
    abilities: Abilities<'_>,
) -> Result<Plan, Refusal> {
    let (rates, touched) = (machine.rates, Touched::of(index));
    let problem = Problem { index, rates, touched, needs, wish, budget, abilities };
    let n = index.blocks.len();
    if wish.stream != StreamMode::Always || n == 0 {
        let cut = Cut::new(index, Level::Blocks, abilities);
        let n_ubatch = problem.batch(wish.ubatch.unwrap_or(RESIDENT_UBATCH));
        let chosen = &cut.every(false);
        let plan = problem.plan(Draft { cut: &cut, chosen, n_slots: 0, n_ubatch });
        if plan.memory.peak() <= budget {
            return Ok(plan);
        }
        if wish.stream == StreamMode::Never || n == 0 {
            return Err(problem.refuse(&plan));
        }
    }
    let cuts = problem.levels().into_iter().map(|level| Cut::new(index, level, abilities));
    let cuts: Vec<Cut> = cuts.collect();
    let mut ways = Vec::new();
    let mut refusals = Vec::new();
    for cut in &cuts {
        // A cut that is finer than anybody needs is for where no other fits.
        if (cut.n_parts() > MAX_PARTS && !ways.is_empty()) || cut.n_parts() == 0 {
            continue;
        }
        match problem.ways(cut) {
            Ok(found) => ways.extend(found),
            Err(refusal) => refusals.push(refusal),
        }
    }
    // What every token reads is resident first: the rest streams only where experts alone are not enough.
    let is_stack = |(_, t): (usize, usize)| is_stack(index, &index.tensors[t]);
    let of_experts = |way: &Way<'_>| way.cut.tensors(&way.chosen).all(is_stack);
    if wish.stream == StreamMode::Auto && ways.iter().any(of_experts) {
        ways.retain(of_experts);
    }
    let best = match wish.stream {
        StreamMode::Always => ways.first().map(|way| problem.plan(way.draft())),
        _ => problem.fastest(ways),
    };
    best.ok_or_else(|| {
        refusals.into_iter().min_by_key(|r| r.least).expect("nothing fits at any level")
    })
}

struct Problem<'a> {
    index: &'a Index,
    rates: Rates,
    touched: Touched,
    needs: &'a Needs,
    wish: &'a Wish,
    budget: Bytes,
    abilities: Abilities<'a>,
}

/// What makes a plan.
#[derive(Clone, Copy)]
struct Draft<'a> {
    cut: &'a Cut,
    chosen: &'a Chosen,
    n_slots: usize,
    n_ubatch: u32,
}

/// A draft that fits.
struct Way<'a> {
    cut: &'a Cut,
    chosen: Chosen,
    n_slots: usize,
    n_ubatch: u32,
}

impl Way<'_> {
    fn draft(&self) -> Draft<'_> {
        let Way { cut, ref chosen, n_slots, n_ubatch } = *self;
        Draft { cut, chosen, n_slots, n_ubatch }
    }
}

impl Problem<'_> {
    /// How finely blocks are cut, what is best first where all of it streams.
    fn levels(&self) -> Vec<Level> {
        let stacks = || {
            let mut blocks = self.index.blocks.iter().flat_map(|b| &b.tensors);
            blocks.find(|&&t| is_stack(self.index, &self.index.tensors[t]))
        };
        match (used(self.index) > 0).then(stacks).flatten() {
            Some(&t) if (self.abilities.expert_region)(&[t], 1).is_some() => {
                // Whole blocks would bring all of their experts for each token.
                let (first, rest) = (OF_MIXTURES, LEVELS.into_iter().skip(1).chain([LEVELS[0]]));
                match self.wish.stream {
                    StreamMode::Always => rest.collect(),
                    _ => first.into_iter().chain(rest).collect(),
                }
            }
            _ => LEVELS.to_vec(),
        }
    }

    /// The experts of a draft, with what memory is left for them beside `others`.
    fn experts(&self, draft: Draft<'_>, slots: Bytes, others: Bytes) -> Option<Experts> {
        let Draft { cut, chosen, .. } = draft;
        let experts = Experts::of(self.index, cut.tensors(chosen), self.abilities)?;
        let n_stacks: usize = experts.blocks.iter().map(|b| b.stacks.len()).sum();
        let shares = n_stacks == cut.tensors(chosen).count();
        // In the least memory, if that is what is asked for.
        let least = self.wish.stream == StreamMode::Always && self.wish.ram.is_none();
        let enough = if least { slots + experts.least(self.abilities).ram } else { self.budget };
        let room = self.budget.saturating_sub(others).min(enough);
        experts.with_room(room, slots, shares, self.abilities)
    }

    /// The ways to stream parts of this cut: all of them, first, and as few as must with slots of several sizes and numbers.
    fn ways<'c>(&self, cut: &'c Cut) -> Result<Vec<Way<'c>>, Refusal> {
        let chosen = cut.every(true);
        let all = |n_ubatch| Draft { cut, chosen: &chosen, n_slots: N_SLOTS, n_ubatch };
        let n_ubatch = self.choose_batch(|n| self.memory(all(n)).peak());
        if self.memory(all(n_ubatch)).peak() > self.budget {
            return Err(self.refuse(&self.plan(all(n_ubatch))));
        }
        let mut ways = vec![Way { cut, chosen, n_slots: N_SLOTS, n_ubatch }];
        if self.wish.stream == StreamMode::Always {
            return Ok(ways);
        }
        if self.stacks_only(cut) {
            return Ok(self.pools(ways));
        }
        for n_ubatch in self.batches(n_ubatch) {
            for slot in cut.slots() {
                for n_slots in SLOTS {
                    let chosen = self.fewest(cut, slot, n_slots, n_ubatch);
                    ways.extend(chosen.map(|chosen| Way { cut, chosen, n_slots, n_ubatch }));
                }
            }
        }
        Ok(ways)
    }

    /// Whether only stacks of experts would stream, which all do: what is not resident of them is not lost, and prompts borrow its room.
    fn stacks_only(&self, cut: &Cut) -> bool {
        let all = &cut.every(true);
        let only = cut.tensors(all).all(|(_, t)| is_stack(self.index, &self.index.tensors[t]));
        only && self
            .memory_and_experts(Draft { cut, chosen: all, n_slots: N_SLOTS, n_ubatch: 1 })
            .1
            .is_some()
    }

    /// The first way, and as that with more slots and smaller batches.
    fn pools<'c>(&self, first: Vec<Way<'c>>) -> Vec<Way<'c>> {
        let Some(&Way { cut, n_ubatch, .. }) = first.first() else { return first };
        let mut ways = first;
        // Prompts bring whole stacks, and borrow the pool's room for them: smaller batches would bring them more often for little.
        let usual = self.batch(RESIDENT_UBATCH).min(n_ubatch);
        for n_ubatch in self.batches(n_ubatch).into_iter().filter(|&n| n >= usual) {
            for n_slots in SLOTS {
                let way = Way { cut, chosen: cut.every(true), n_slots, n_ubatch };
                if self.memory(way.draft()).peak() <= self.budget {
                    ways.push(way);
                }
            }
        }
        ways
    }

    /// The batches that are worth weighing against the blocks that they take the room of: those larger than usual, and smaller ones where
    /// that room is much.
    fn batches(&self, largest: u32) -> Vec<u32> {
        let mut batches = vec![largest];
        if self.wish.ubatch.is_some() {
            return batches;
        }
        let usual = self.batch(RESIDENT_UBATCH).min(largest);
        let room = |n| self.needs.context.at(self.wish.ctx, n);
        let worth = Bytes(self.budget.0 / UBATCH_WORTH);
        let mut last = room(usual);
        for n in UBATCHES.into_iter().filter(|&n| n >= LEAST_UBATCH && n < largest) {
            if n >= usual {
                batches.push(n);
            } else if last.saturating_sub(room(n)) >= worth {
                last = room(n);
                batches.push(n);
            }
        }
        batches
    }

    /// As few bytes as must stream through `n_slots` slots of `slot`; `None` if that does not fit.
    fn fewest(&self, cut: &Cut, slot: Bytes, n_slots: usize, n_ubatch: u32) -> Option<Chosen> {
        let over = |chosen: &Chosen| {
            let draft = Draft { cut, chosen, n_slots, n_ubatch };
            self.memory(draft).peak().saturating_sub(self.budget)
        };
        let resident = over(&cut.every(false));
        let mut least =
            if resident > Bytes::ZERO { resident + slot * n_slots as u64 } else { resident };
        for _ in 0..CORRECTIONS {
            let chosen = cut.choose(slot, least)?;
            match over(&chosen) {
                Bytes::ZERO => return Some(chosen),
                more => least += more,
            }
        }
        None
    }

    /// The best of these by what is known of the machine. Most need no playing through: they cannot be better than one that was.
    fn fastest(&self, ways: Vec<Way<'_>>) -> Option<Plan> {
        let mut ways: Vec<(f64, Way<'_>)> =
            ways.into_iter().map(|way| (self.at_least(&way), way)).collect();
        ways.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut best = f64::INFINITY;
        let mut timed: Vec<(f64, Plan)> = Vec::new();
        for (at_least, way) in ways {
            if at_least * AS_FAST > best {
                break;
            }
            let plan = self.plan(way.draft());
            let seconds = conversation(&plan, &self.rates, self.touched);
            best = best.min(seconds);
            timed.push((seconds, plan));
        }
        let as_fast = timed.into_iter().filter(|t| t.0 <= best * AS_FAST).map(|t| t.1);
        as_fast.min_by_key(Plan::streamed_bytes)
    }

    /// Seconds that question and answer take if nothing ever waits for anything.
    fn at_least(&self, way: &Way<'_>) -> f64 {
        let sums = way.cut.sums(&way.chosen);
        let passes = self.question().div_ceil(way.n_ubatch.max(1)) + ANSWER;
        let is_stack = |(_, t): (usize, usize)| is_stack(self.index, &self.index.tensors[t]);
        let by_expert = way.cut.tensors(&way.chosen).any(is_stack);
        // Of what streams by expert, a token reads anything between nothing and all.
        let passes = if by_expert { passes - ANSWER } else { passes };
        let read = self.rates.disk.seconds(sums.streamed) * f64::from(passes);
        let resident = way.cut.len.saturating_sub(sums.streamed);
        let computing = |n_tokens| {
            let used = |len: Bytes| share(len, self.touched.of_block);
            self.rates.resident.seconds(used(resident), n_tokens)
                + self.rates.streamed.seconds(used(sums.streamed), n_tokens)
        };
        read.max(computing(1) * f64::from(ANSWER) + computing(self.question()))
    }

    fn question(&self) -> u32 {
        QUESTION.min(self.wish.ctx)
    }

    /// The largest batch that pays and leaves room for blocks; `least` is what streaming everything takes with a batch.
    fn choose_batch(&self, least: impl Fn(u32) -> Bytes) -> u32 {
        if let Some(n) = self.wish.ubatch {
            return self.batch(n);
        }
        if self.wish.stream == StreamMode::Always && self.wish.ram.is_none() {
            return self.batch(RESIDENT_UBATCH);
        }
        let usual = least(self.batch(RESIDENT_UBATCH));
        let limit = usual + Bytes(self.budget.saturating_sub(usual).0 / UBATCH_SHARE);
        let allowed = if usual <= self.budget { limit } else { self.budget };
        let fits = UBATCHES.into_iter().map(|n| self.batch(n)).find(|&n| least(n) <= allowed);
        fits.unwrap_or(self.batch(UBATCHES[UBATCHES.len() - 1]))
    }

    fn batch(&self, n: u32) -> u32 {
        n.clamp(1, self.wish.ctx.max(1))
    }

    fn plan(&self, draft: Draft<'_>) -> Plan {
        let (blocks, streamed) = draft.cut.place(self.index, draft.chosen);
        let (memory, experts) = self.memory_and_experts(draft);
        Plan {
            blocks,
            n_slots: if streamed.is_empty() { 0 } else { draft.n_slots },
            streamed,
            experts,
            by_cpu: Vec::new(),
            output_by_cpu: false,
            slot: draft.cut.sums(draft.chosen).slot,
            n_ctx: self.wish.ctx,
            n_ubatch: draft.n_ubatch,
            gpu: None,
            memory,
            promised: self.wish.ram.is_some(),
        }
    }

    fn memory(&self, draft: Draft<'_>) -> Memory {
        self.memory_and_experts(draft).0
    }

    fn memory_and_experts(&self, draft: Draft<'_>) -> (Memory, Option<Experts>) {
        let outside = || self.index.tensors.iter().filter(|t| !matches!(t.place, Place::Block(..)));
        let sums = draft.cut.sums(draft.chosen);
        let mut memory = Memory {
            budget: self.budget,
            process: self.needs.process,
            outside: outside().map(|t| t.len).sum::<Bytes>() + self.tied_output(),
            blocks: draft.cut.len.saturating_sub(sums.streamed),
            slots: sums.slot * draft.n_slots as u64,
            context: self.needs.context.at(self.wish.ctx, draft.n_ubatch),
            ..Memory::default()
        };
        // libllama repacks a tensor out of a buffer as large as itself.
        let largest = outside().map(|t| t.len).max().unwrap_or_default().max(sums.largest);
        let staged = if self.wish.repack { largest } else { Bytes::ZERO };
        memory.loading = staged + self.needs.read_ahead.min(memory.outside + memory.blocks);
        let slots = memory.slots;
        let experts = self.experts(draft, slots, memory.peak().saturating_sub(slots));
        match &experts {
            Some(experts) if experts.shares_slots => memory.slots = experts.pool.max(slots),
            Some(experts) => memory.slots = slots + experts.pool,
            None => {}
        }
        (memory, experts)
    }

    /// A model without an output matrix uses the embedding's; repacked, that is a second copy.
    fn tied_output(&self) -> Bytes {
        let named = |name: &str| self.index.tensors.iter().find(|t| t.name == name);
        match (named("output.weight"), named("token_embd.weight")) {
            (None, Some(embedding)) if self.wish.repack => embedding.len,
            _ => Bytes::ZERO,
        }
    }

    /// Why `plan`, the smallest of its kind, does not fit.
    fn refuse(&self, plan: &Plan) -> Refusal {
        let Wish { ctx, .. } = *self.wish;
        let memory = plan.memory;
        let fixed = memory.peak() - memory.context.max(memory.loading);
        let room = self.budget.saturating_sub(fixed + Pool::Ram.spread());
        let fits = match memory.loading <= room {
            true => self.needs.context.longest(room, ctx, plan.n_ubatch),
            false => 0,
        };
        Refusal {
            pool: Pool::Ram,
            least: memory.peak(),
            budget: self.budget,
            promised: plan.promised,
            resident: self.wish.stream == StreamMode::Never,
            ctx,
            fits,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
