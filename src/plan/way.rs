//! A way to place a model, and how it is worked out: which parts stream where as few as must do, and which of them are at home in RAM. What
//! it takes at least can be told before that.

use super::cut::{Cut, Part};
use super::draft::{Draft, Share, Taken};
use super::estimate::{ANSWER, QUESTION};
use super::further::{Filling, Held};
use super::limits::{N_SLOTS, is_spread};
use super::problem::Problem;
use super::touched::share;
use super::{GpuMemory, Tier};
use crate::units::{Bytes, most};

/// How often a choice is corrected that does not fit yet, because what it takes depends on what is chosen.
const CORRECTIONS: usize = 8;

/// How many blocks more or fewer than seem to fit are tried, because blocks differ.
const UNEVEN: usize = 16;

/// A way to place a model, before it is worked out.
#[derive(Clone, Copy)]
pub(super) struct Way<'c> {
    pub(super) cut: &'c Cut,
    /// Whether what computes the blocks computes the output matrix, too.
    pub(super) output_here: bool,
    /// How many blocks the CPU computes beside a GPU, and what of them.
    pub(super) by_cpu: (usize, Share),
    /// Whether those are the first, so that little is handed over, or spread evenly, so that the link has time.
    pub(super) together: bool,
    pub(super) n_ubatch: u32,
    /// How many further GPUs hold blocks ...
    pub(super) further: usize,
    /// ... and how many blocks together, at most.
    pub(super) at_most: usize,
    /// Whether prompts borrow the room of experts on a GPU, where only those stream.
    pub(super) lends: bool,
}

/// What streams of the blocks that the CPU does not compute.
#[derive(Clone, Copy)]
pub(super) enum Streams {
    /// Nothing.
    Nothing,
    /// All of them, through so many slots.
    All(usize),
    /// As few bytes as must, through so many slots of this size, where so much is too much without.
    Fewest { over: Bytes, slot: Bytes, n_slots: usize },
}

impl<'c> Way<'c> {
    /// Whether they differ in numbers only.
    pub(super) fn is_like(&self, other: &Way<'_>) -> bool {
        self.cut.level == other.cut.level
            && (self.output_here, self.by_cpu.1) == (other.output_here, other.by_cpu.1)
            && self.further == other.further
    }

    /// Everything here: no block is the CPU's beside a GPU.
    pub(super) fn resident(cut: &'c Cut, n_ubatch: u32) -> Way<'c> {
        let (further, at_most) = (0, usize::MAX);
        let by_cpu = (0, Share::Whole);
        let (together, output_here, lends) = (false, true, true);
        Way { cut, output_here, by_cpu, together, n_ubatch, further, at_most, lends }
    }
}

impl Problem<'_> {
    /// A way that is worked out. It may not fit, but for [`Streams::Fewest`], which is `None` then.
    pub(super) fn draft<'c>(&self, way: Way<'c>, streams: Streams) -> Option<Draft<'c>> {
        let Way { cut, output_here, by_cpu: (n_cpu, share), together, n_ubatch, lends, .. } = way;
        let held = self.held(&way);
        // Further GPUs have the last ones.
        let n = cut.blocks.len() - held.n();
        let by_cpu = |i: usize| match together {
            true => i < n_cpu.min(n),
            false => i < n && is_spread(i, n_cpu.min(n), n),
        };
        let home = |i| if by_cpu(i) { Tier::Cpu } else { Tier::Streamed };
        let homes: Vec<Tier> = (0..cut.blocks.len()).map(home).collect();
        let (all, n_slots) = match streams {
            Streams::Nothing => (false, N_SLOTS),
            Streams::All(n_slots) => (true, n_slots),
            Streams::Fewest { n_slots, .. } => (false, n_slots),
        };
        let part_streams = |part: &Part| all && part.block < n && homes[part.block] != Tier::Cpu;
        let streams_of = cut.parts.iter().map(part_streams).collect();
        let mut draft = Draft {
            cut,
            streams: streams_of,
            homes,
            held,
            share,
            output_here,
            n_slots,
            n_ubatch,
            lends,
        };
        if let Streams::Fewest { over, slot, .. } = streams {
            self.fewest(&mut draft, slot, over + slot * n_slots as u64)?;
        }
        self.bring_home(&mut draft);
        Some(draft)
    }

    /// What further GPUs hold in a way to place a model: as many whole blocks as they have room for.
    fn held(&self, way: &Way<'_>) -> Held {
        let Some(needs) = self.gpu.filter(|_| way.further > 0) else { return Held::default() };
        let (ctx, n_ubatch) = (self.wish.ctx, way.n_ubatch);
        let kept = needs.kept.at(ctx, n_ubatch);
        let context = needs.context.at(ctx, n_ubatch).saturating_sub(kept);
        let driver = needs.driver.at(ctx, n_ubatch);
        let own = |more| GpuMemory { context: context + more, driver, ..GpuMemory::default() };
        let mut budgets = self.further;
        budgets[way.further..].fill(None);
        let (after, at_most) = (self.after(way.output_here), way.at_most);
        Filling { budgets, own: needs.more.map(own), kept, after, at_most }.of(way.cut)
    }

    /// Lets parts of `least` bytes or little more stream, so that the draft fits. `None` if there are not enough of them.
    fn fewest(&self, draft: &mut Draft<'_>, slot: Bytes, mut least: Bytes) -> Option<()> {
        for _ in 0..CORRECTIONS {
            let n = draft.cut.blocks.len() - draft.held.n();
            let may = |part: &Part| part.block < n && draft.homes[part.block] != Tier::Cpu;
            draft.streams = draft.cut.choose(slot, least, may)?;
            match self.taken(draft).over_here() {
                Bytes::ZERO => return Some(()),
                more => least += more,
            }
        }
        None
    }

    /// Of blocks that stream to a GPU, as many as possible at home in RAM, if any fit there.
    fn bring_home(&self, draft: &mut Draft<'_>) {
        // Where all is to come one by one, the RAM is for the pool of experts.
        let pools = draft.cut.only_stacks || (self.always() && self.by_expert);
        if self.gpu.is_none() || pools || !draft.streams.contains(&true) {
            return;
        }
        let sizes = draft.streamed(|part| part.slot);
        let streaming: Vec<(usize, Bytes)> =
            sizes.iter().enumerate().filter_map(|(i, size)| size.map(|size| (i, size))).collect();
        let n = streaming.len();
        let ram = self.taken(draft).ram;
        let room = ram.budget.saturating_sub(ram.peak());
        // Blocks differ: more of them may be fewer bytes.
        let bytes = |n_home: usize| -> Bytes {
            let home = streaming.iter().enumerate().filter(|(i, _)| is_spread(*i, n_home, n));
            home.map(|(_, (_, size))| *size).sum()
        };
        let about = most(n, |n_home| bytes(n_home) <= room);
        let sizes = (about.saturating_sub(UNEVEN)..=(about + UNEVEN).min(n))
            .map(|n_home| (bytes(n_home), n_home))
            .filter(|(size, _)| *size <= room);
        let Some((used, n_home)) = sizes.max() else { return };
        let mut room = room.saturating_sub(used);
        for (i, (block, size)) in streaming.into_iter().enumerate() {
            let chosen = is_spread(i, n_home, n);
            if chosen || size <= room {
                draft.homes[block] = Tier::Host;
                room = if chosen { room } else { room.saturating_sub(size) };
            }
        }
    }

    /// Seconds that question and answer take if nothing ever waits for anything, where `nothing` is taken if nothing streams.
    pub(super) fn at_least(&self, way: &Way<'_>, nothing: &Taken, streamed: Bytes) -> f64 {
        let Problem { rates, touched, .. } = self;
        let question = QUESTION.min(self.wish.ctx);
        let passes = f64::from(question.div_ceil(way.n_ubatch.max(1)));
        let room = nothing.ram.budget.saturating_sub(nothing.ram.peak());
        let on_disk = if self.gpu.is_some() { streamed.saturating_sub(room) } else { streamed };
        let link = rates.gpu.map_or(0.0, |beside| beside.link.seconds(streamed));
        let read = |tokens| rates.disk_in(tokens).seconds(on_disk).max(link);
        let used = |len: Bytes| share(len, touched.of_block);
        let (n_cpu, of) = way.by_cpu;
        let of_cpu = if of == Share::Whole { touched.of_block } else { touched.of_ffn };
        let held: Bytes = nothing.held.iter().copied().sum();
        let resident = way.cut.len.saturating_sub(streamed + nothing.by_cpu + held);
        let here = |tokens| {
            let held = nothing.held.iter().enumerate().filter(|(_, len)| **len > Bytes::ZERO);
            let of = |(i, &len): (usize, &Bytes)| rates.of_further(i).seconds(used(len), tokens);
            rates.resident.seconds(used(resident), tokens)
                + rates.streamed.seconds(used(streamed), tokens)
                + held.map(of).sum::<f64>()
        };
        let beside = rates.gpu.filter(|_| n_cpu > 0);
        let cpu = beside.map_or(0.0, |b| b.cpu.one.seconds(share(nothing.by_cpu, of_cpu)));
        let output = match rates.gpu {
            Some(beside) if !way.output_here => beside.cpu.one.seconds(touched.output),
            _ => nothing.after(rates).one.seconds(touched.output),
        };
        // Of what comes by expert, a token reads anything between nothing and all.
        let read_one = if self.one_by_one(way.cut) { 0.0 } else { read(1) };
        read_one.max(here(1) + cpu + output) * f64::from(ANSWER)
            + (read(question) * passes).max(here(question))
    }
}
