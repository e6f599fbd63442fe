//! A way to place a model, and how it is worked out: which parts stream where as few as must do, and which of them are at home in RAM. What
//! it takes at least can be told before that.

use super::Tier;
use super::cut::{Cut, Part};
use super::draft::{Draft, Share, Taken};
use super::estimate::{ANSWER, QUESTION};
use super::limits::{N_SLOTS, is_spread};
use super::problem::Problem;
use super::touched::share;
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
    }

    /// Everything here: no block is the CPU's beside a GPU.
    pub(super) fn resident(cut: &'c Cut, n_ubatch: u32) -> Way<'c> {
        Way { cut, output_here: true, by_cpu: (0, Share::Whole), together: false, n_ubatch }
    }
}

impl Problem<'_> {
    /// A way that is worked out. It may not fit, but for [`Streams::Fewest`], which is `None` then.
    pub(super) fn draft<'c>(&self, way: Way<'c>, streams: Streams) -> Option<Draft<'c>> {
        let Way { cut, output_here, by_cpu: (n_cpu, share), together, n_ubatch } = way;
        let n = cut.blocks.len();
        let by_cpu = |i: usize| if together { i < n_cpu } else { is_spread(i, n_cpu, n) };
        let home = |i| if by_cpu(i) { Tier::Cpu } else { Tier::Streamed };
        let homes: Vec<Tier> = (0..n).map(home).collect();
        let (all, n_slots) = match streams {
            Streams::Nothing => (false, N_SLOTS),
            Streams::All(n_slots) => (true, n_slots),
            Streams::Fewest { n_slots, .. } => (false, n_slots),
        };
        let part_streams = |part: &Part| all && homes[part.block] != Tier::Cpu;
        let streams_of = cut.parts.iter().map(part_streams).collect();
        let mut draft =
            Draft { cut, streams: streams_of, homes, share, output_here, n_slots, n_ubatch };
        if let Streams::Fewest { over, slot, .. } = streams {
            self.fewest(&mut draft, slot, over + slot * n_slots as u64)?;
        }
        self.bring_home(&mut draft);
        Some(draft)
    }

    /// Lets parts of `least` bytes or little more stream, so that the draft fits. `None` if there are not enough of them.
    fn fewest(&self, draft: &mut Draft<'_>, slot: Bytes, mut least: Bytes) -> Option<()> {
        for _ in 0..CORRECTIONS {
            let may = |part: &Part| draft.homes[part.block] != Tier::Cpu;
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
        let resident = way.cut.len.saturating_sub(streamed + nothing.by_cpu);
        let here = |tokens| {
            rates.resident.seconds(used(resident), tokens)
                + rates.streamed.seconds(used(streamed), tokens)
        };
        let beside = rates.gpu.filter(|_| n_cpu > 0);
        let cpu = beside.map_or(0.0, |b| b.cpu.one.seconds(share(nothing.by_cpu, of_cpu)));
        let output = match rates.gpu {
            Some(beside) if !way.output_here => beside.cpu.one.seconds(touched.output),
            _ => rates.resident.one.seconds(touched.output),
        };
        // Of what comes by expert, a token reads anything between nothing and all.
        let read_one = if self.one_by_one(way.cut) { 0.0 } else { read(1) };
        read_one.max(here(1) + cpu + output) * f64::from(ANSWER)
            + (read(question) * passes).max(here(question))
    }
}
