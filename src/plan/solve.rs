//! The decision: what streams, in how small parts, through how many slots of which size, with how large batches; and with a GPU, which
//! blocks the CPU computes, and which are brought from RAM and not from disk.
//!
//! There is no rule that is right on all machines: large slots take memory that blocks could live in, small ones are full while the disk
//! could go on, every part costs a run, and a CPU may be slower than the link or faster. So all ways that are sensible are listed, each
//! with the least time that it can take; the most promising are worked out (`way`), with as little streaming as the budgets allow; and
//! the arithmetic of `estimate` chooses by what is known of the machine. Nothing else does.

use std::cell::{Cell, LazyCell};

use super::cut::Cut;
use super::draft::{Draft, Share, Taken};
use super::estimate::conversation;
use super::limits::{LEAST_UBATCH, N_SLOTS, RESIDENT_UBATCH, UBATCHES, tries, with_context};
use super::parts::Level;
use super::problem::Problem;
use super::way::{Streams, Way};
use super::{Abilities, Machine, Needs, Plan, Pool, Refusal, Wish};
use crate::gguf::Index;
use crate::units::{Bytes, most};

/// Numbers of slots that are tried: more of them let the disk read on while what is resident is computed, and the link bring blocks while
/// the CPU computes others.
const SLOTS: [usize; 5] = [N_SLOTS, 3, 4, 6, 8];

/// Parts of a model that are weighed against each other; more of them take longer than they can gain.
const MAX_PARTS: usize = 2048;

/// Of plans that are as fast up to this share, the one that brings least wins: it depends least on the disk and the link.
pub(super) const AS_FAST: f64 = 1.001;

/// A GPU is left for one that is faster if that brings as much: two of a kind are never measured alike.
const FASTER_GPU: f64 = 1.05;

/// Ways that take this much longer than the fastest may still become it.
const NEARLY: f64 = 1.1;

/// Numbers of blocks that are tried on the CPU, from none to all that it could save the link.
const SHARES: usize = 16;

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
    let problem = Problem::new(index, machine, needs, wish, abilities);
    solve_counting(&problem, &Cell::new(0))
}

/// Solves a problem, and counts the plans that are judged.
pub(super) fn solve_counting(problem: &Problem<'_>, judged: &Cell<usize>) -> Result<Plan, Refusal> {
    let cuts = LazyCell::new(|| problem.cuts());
    let (cost, budget) = problem.keeps();
    with_context(cost, &problem.wish, budget, |wish| {
        let problem = Problem { wish: *wish, ..*problem };
        match problem.resident() {
            Some(here) => Ok(problem.on_faster(here, judged)),
            None => Search::new(&problem, &cuts, judged).best(),
        }
    })
}

/// Looks for the plan of a problem.
struct Search<'a, 'p> {
    problem: &'a Problem<'p>,
    cuts: &'a [Cut],
    /// The fastest plan so far, and those that are as fast, with the seconds that they take.
    fastest: Vec<(f64, Plan)>,
    /// The fastest way with each cut and each share of the CPU, and the seconds that it takes.
    leaders: Vec<(f64, Way<'a>)>,
    /// Why the least of each kind does not fit.
    refusals: Vec<Refusal>,
    /// How many plans were judged.
    judged: &'a Cell<usize>,
}

impl Problem<'_> {
    /// The plan of a model that fits the memory of what computes.
    fn resident(&self) -> Option<Plan> {
        if self.always() && !self.index.blocks.is_empty() {
            return None;
        }
        let cut = self.cut(Level::Blocks);
        let draft = self.draft(Way::resident(&cut, self.resident_batch()), Streams::Nothing)?;
        let taken = self.taken(&draft);
        taken.fits().then(|| self.plan(&draft, taken))
    }

    /// The plan of a model that fits where it is, `here`, or one with as much as possible on further GPUs, where those are faster.
    fn on_faster(&self, here: Plan, judged: &Cell<usize>) -> Plan {
        let cut = LazyCell::new(|| self.cut(Level::Blocks));
        let with = |further: usize| {
            let way = Way { further, ..Way::resident(&cut, self.resident_batch()) };
            let draft = self.draft(way, Streams::Nothing)?;
            let taken = self.taken(&draft);
            taken.fits().then(|| self.plan(&draft, taken))
        };
        let seconds = |plan: &Plan| {
            judged.set(judged.get() + 1);
            conversation(plan, &self.rates, self.touched)
        };
        let others = (1..=self.n_further()).filter_map(with).map(|plan| (seconds(&plan), plan));
        match others.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((there, plan)) if there * FASTER_GPU < seconds(&here) => plan,
            _ => here,
        }
    }
}

impl<'a> Search<'a, '_> {
    fn new<'p>(
        problem: &'a Problem<'p>,
        cuts: &'a [Cut],
        judged: &'a Cell<usize>,
    ) -> Search<'a, 'p> {
        let (fastest, leaders, refusals) = (Vec::new(), Vec::new(), Vec::new());
        Search { problem, cuts, fastest, leaders, refusals, judged }
    }

    /// The best plan by what is known of the machine; the first that fits where all is to stream.
    fn best(mut self) -> Result<Plan, Refusal> {
        let problem = self.problem;
        let outputs: &[bool] = if problem.gpu.is_some() { &[true, false] } else { &[true] };
        let furthest = if problem.always() { 0 } else { problem.n_further() };
        let places = outputs.iter().flat_map(|&here| (0..=furthest).map(move |n| (here, n)));
        let mut ways = Vec::new();
        for (output_here, further) in places {
            self.split(output_here, further);
            for cut in self.cuts.iter().filter(|_| !problem.never()) {
                // A cut that is finer than anybody needs is for where no other fits.
                if cut.parts.len() > MAX_PARTS && !self.fastest.is_empty() {
                    continue;
                }
                let Some(all) = self.all(cut, output_here, further) else { continue };
                if problem.always() {
                    return Ok(self.fastest.remove(0).1);
                }
                ways.extend(self.ways(all));
            }
        }
        ways.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (way, at_least) in ways {
            if self.is_slow(at_least) {
                break;
            }
            self.few(way);
        }
        if !problem.never() {
            self.leaders.clone().into_iter().for_each(|leader| self.refine(leader));
        }
        let plans = self.fastest.into_iter().map(|(_, plan)| plan);
        // Of what fits neither, the memory that was not even enough for the least of all plans is named.
        let refusal = |pool| {
            let refusals = self.refusals.iter().filter(move |r| r.pool == pool);
            refusals.min_by_key(|r| r.least).cloned()
        };
        let refused = || refusal(Pool::Ram).or(refusal(Pool::Vram));
        plans.min_by_key(Plan::streamed_bytes).ok_or_else(|| refused().expect("all was tried"))
    }

    /// Whether what takes at least so long cannot be better than what was found. (seconds)
    fn is_slow(&self, at_least: f64) -> bool {
        self.fastest.iter().any(|(seconds, _)| at_least * AS_FAST > *seconds)
    }

    /// Judges a way that is worked out, if it fits.
    fn judge(&mut self, way: Way<'a>, draft: &Draft<'a>) {
        let taken = self.problem.taken(draft);
        if !taken.fits() {
            return;
        }
        let plan = self.problem.plan(draft, taken);
        let seconds = conversation(&plan, &self.problem.rates, self.problem.touched);
        // Rates of nothing give no number.
        let seconds = seconds.min(f64::INFINITY);
        self.judged.set(self.judged.get() + 1);
        self.fastest.push((seconds, plan));
        let best = self.fastest.iter().map(|t| t.0).fold(f64::INFINITY, f64::min);
        self.fastest.retain(|(seconds, _)| *seconds <= best * AS_FAST);
        match self.leaders.iter_mut().find(|(_, leader)| leader.is_like(&way)) {
            Some(leader) if leader.0 > seconds => *leader = (seconds, way),
            Some(_) => {}
            None => self.leaders.push((seconds, way)),
        }
    }

    /// Nothing streams: the CPU computes what the GPU has no room for, or all blocks, for a GPU need not be faster.
    fn split(&mut self, output_here: bool, further: usize) {
        let problem = self.problem;
        let whole = self.cuts.iter().find(|cut| cut.level == Level::Blocks);
        let Some(cut) = whole.filter(|_| !problem.always()) else { return };
        let (last, shares): (usize, &[Share]) = match problem.gpu {
            Some(_) => (cut.blocks.len(), &[Share::Whole, Share::Ffn]),
            None => (0, &[Share::Whole]),
        };
        for &share in shares {
            let way = |n_cpu| {
                let way = Way::resident(cut, problem.resident_batch());
                Way { by_cpu: (n_cpu, share), together: true, output_here, further, ..way }
            };
            let draft = |n_cpu| problem.draft(way(n_cpu), Streams::Nothing).expect("nothing does");
            if further > 0 && share == Share::Whole {
                self.fewest_elsewhere(way(0));
            }
            match tries(last).find(|&n_cpu| problem.taken(&draft(n_cpu)).fits()) {
                Some(first) => {
                    [first, last].into_iter().for_each(|n| self.judge(way(n), &draft(n)))
                }
                None => self.refusals.extend(problem.refuse(&draft(last))),
            }
        }
    }

    /// Nothing streams, and the CPU computes no block: further GPUs hold as few as must be, which is best where they are slower.
    fn fewest_elsewhere(&mut self, way: Way<'a>) {
        let problem = self.problem;
        let way = |at_most| Way { at_most, ..way };
        let draft = |at_most| problem.draft(way(at_most), Streams::Nothing).expect("nothing does");
        let fits = |at_most| problem.taken(&draft(at_most)).fits();
        let least = most(way(0).cut.blocks.len(), |at_most| !fits(at_most)) + 1;
        self.judge(way(least), &draft(least));
    }

    /// All of a cut streams: judges that, and gives it back. `None` if it does not fit.
    fn all(&mut self, cut: &'a Cut, output_here: bool, further: usize) -> Option<Way<'a>> {
        let problem = self.problem;
        let way = |n_ubatch| Way { output_here, further, ..Way::resident(cut, n_ubatch) };
        let draft = |n| problem.draft(way(n), Streams::All(N_SLOTS)).expect("all do");
        let here = |taken: Taken| taken.gpu.map_or(taken.ram.peak(), |gpu| gpu.peak());
        let n_ubatch = problem.largest_batch(|n| here(problem.taken(&draft(n))));
        let draft = draft(n_ubatch);
        if let Some(refusal) = problem.refuse(&draft) {
            self.refusals.push(refusal);
            return None;
        }
        self.judge(way(n_ubatch), &draft);
        Some(way(n_ubatch))
    }

    /// The ways to stream less than all of a cut, with the least seconds that each takes. Those in which only experts stream are judged
    /// at once: what is not resident of experts is not lost, and prompts borrow the room of those that are kept.
    fn ways(&mut self, all: Way<'a>) -> Vec<(Way<'a>, f64)> {
        let problem = self.problem;
        let draft = |n_ubatch, n_slots| {
            let draft = problem.draft(Way { n_ubatch, ..all }, Streams::All(n_slots));
            draft.expect("all do")
        };
        let fits = |n_ubatch| problem.taken(&draft(n_ubatch, N_SLOTS)).fits();
        let batches = match all.cut.parts.len() > MAX_PARTS {
            true => vec![all.n_ubatch],
            false => problem.batches(all.n_ubatch, fits),
        };
        let first = draft(all.n_ubatch, N_SLOTS);
        if all.cut.only_stacks && problem.experts(&first, &mut problem.taken(&first)).is_some() {
            // Prompts bring whole stacks: smaller batches would bring them more often for little.
            let usual = problem.batch(RESIDENT_UBATCH).min(all.n_ubatch);
            // In RAM they share it in any case.
            let lends: &[bool] = if problem.gpu.is_some() { &[true, false] } else { &[true] };
            for n_ubatch in batches.into_iter().filter(|&n| n >= usual) {
                for (n_slots, lends) in
                    SLOTS.into_iter().flat_map(|n| lends.iter().map(move |l| (n, *l)))
                {
                    let draft = Draft { lends, ..draft(n_ubatch, n_slots) };
                    self.judge(Way { n_ubatch, lends, ..all }, &draft);
                }
            }
            return Vec::new();
        }
        let least = all.cut.slots().first().copied().unwrap_or_default() * N_SLOTS as u64;
        let mut ways = Vec::new();
        for n_ubatch in batches {
            for by_cpu in self.shares(Way { n_ubatch, ..all }) {
                let way = Way { n_ubatch, by_cpu, ..all };
                let taken = self.without_streaming(way);
                let over = taken.over_here();
                let streamed = if over > Bytes::ZERO { over + least } else { over };
                ways.push((way, problem.at_least(&way, &taken, streamed)));
            }
        }
        ways
    }

    /// What a way takes if nothing streams.
    fn without_streaming(&self, way: Way<'_>) -> Taken {
        let draft = self.problem.draft(way, Streams::Nothing).expect("nothing does");
        self.problem.taken(&draft)
    }

    /// Numbers of blocks that the CPU may compute beside a GPU, from none to as many as need not stream then, or as fit its RAM.
    fn shares(&self, way: Way<'_>) -> Vec<(usize, Share)> {
        let mut shares = vec![(0, Share::Whole)];
        if self.problem.gpu.is_none() || way.cut.parts.len() > MAX_PARTS {
            return shares;
        }
        for share in [Share::Whole, Share::Ffn] {
            let taken = |n_cpu| self.without_streaming(Way { by_cpu: (n_cpu, share), ..way });
            let n = way.cut.blocks.len();
            let useful = most(n, |n| taken(n).over_here() > Bytes::ZERO) + 1;
            let fit = most(n, |n| taken(n).over_ram() == Bytes::ZERO).min(useful).min(n);
            let counts = (1..=SHARES.min(fit)).map(|i| (fit * i / SHARES.min(fit), share));
            shares.extend(counts);
        }
        shares
    }

    /// As little of a way streams as must, through slots of several sizes and numbers.
    fn few(&mut self, way: Way<'a>) {
        let problem = self.problem;
        let nothing = self.without_streaming(way);
        let over = nothing.over_here();
        let mut tries = Vec::new();
        if over == Bytes::ZERO {
            tries.push((problem.at_least(&way, &nothing, over), Streams::Nothing));
        }
        for slot in way.cut.slots().into_iter().filter(|_| over > Bytes::ZERO) {
            for n_slots in SLOTS {
                let at_least = problem.at_least(&way, &nothing, over + slot * n_slots as u64);
                tries.push((at_least, Streams::Fewest { over, slot, n_slots }));
            }
        }
        tries.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (at_least, streams) in tries {
            if self.is_slow(at_least) {
                break;
            }
            if let Some(draft) = problem.draft(way, streams) {
                self.judge(way, &draft);
            }
        }
    }

    /// Tries other numbers of blocks for the CPU, and other batches, around a way that is nearly the best, as long as that is better.
    fn refine(&mut self, (mut seconds, mut way): (f64, Way<'a>)) {
        let n = way.cut.blocks.len();
        let mut step = if way.cut.parts.len() > MAX_PARTS { 0 } else { n.div_ceil(SHARES) };
        // Where only experts stream, all do.
        while step > 0 && !way.cut.only_stacks && !self.is_slow(seconds / NEARLY) {
            let Way { by_cpu: (n_cpu, share), n_ubatch, .. } = way;
            let way_with = |n_cpu, n_ubatch| {
                let n_ubatch = self.problem.batch(n_ubatch);
                Way { by_cpu: (n_cpu, share), n_ubatch, together: false, ..way }
            };
            let counts = [n_cpu.saturating_sub(step), (n_cpu + step).min(n)];
            let batches = [(n_ubatch * 2).min(UBATCHES[0]), (n_ubatch / 2).max(LEAST_UBATCH)];
            let counts = counts.map(|n_cpu| way_with(n_cpu, n_ubatch));
            let batches = batches.map(|n_ubatch| way_with(n_cpu, n_ubatch));
            let counts = counts.into_iter().filter(|_| self.problem.gpu.is_some());
            let batches = batches.into_iter().filter(|_| self.problem.wish.ubatch.is_none());
            for next in counts.chain(batches).collect::<Vec<_>>() {
                self.few(next);
            }
            match self.leaders.iter().find(|(_, leader)| leader.is_like(&way)) {
                Some(better) if better.0 < seconds => (seconds, way) = *better,
                _ => step /= 2,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod gpu_tests;
#[cfg(test)]
pub(super) mod tests;
