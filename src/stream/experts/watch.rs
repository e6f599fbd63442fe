//! What is known of the experts while they stream, for other threads to look at: how many were there when they were wanted, which are
//! there, which are used most; and their routes, if somebody asked for a record of them. It decides nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::simulate::Routes;
use super::{BlockSpec, Habit};
use crate::units::Bytes;

/// Numbers of experts that a record holds at most: some 4000 tokens of a model of 48 blocks that uses 10.
const MAX_RECORDED: usize = 2 << 20;

/// A pool fills in so many passes; what they miss says nothing of those that follow.
const FILLING: u64 = 32;

/// Counters of all blocks with experts.
#[derive(Debug)]
pub struct Watch {
    blocks: Vec<Block>,
    record: Mutex<Option<Record>>,
}

#[derive(Debug)]
struct Block {
    name: String,
    uses: AtomicU64,
    misses: AtomicU64,
    copied: AtomicU64,
    bytes: AtomicU64,
    /// Passes that used any ...
    passes: AtomicU64,
    /// ... and the uses and misses of all but the first of them.
    settled: [AtomicU64; 2],
    /// A bit for each expert: whether it is there.
    present: Box<[AtomicU64]>,
    /// A bit for each expert: whether it is on its way.
    coming: Box<[AtomicU64]>,
    /// For each expert, the passes that used it.
    used: Box<[AtomicU32]>,
}

#[derive(Debug, Default)]
struct Record {
    routes: Vec<Routes>,
    n: usize,
}

/// A copy of the counters of a block, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Experts that passes used; each once a pass.
    pub uses: u64,
    /// Of those, what had to be read.
    pub misses: u64,
    /// Of the uses, what a device that computes in memory of its own had to be given, from RAM or from the file. None where the CPU
    /// computes.
    pub copied: u64,
    /// Bytes read for them.
    pub bytes: Bytes,
}

/// What a block's experts are doing, for a map of them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BlockView {
    /// What people call the block.
    pub name: String,
    /// Its counters.
    #[serde(flatten)]
    pub counts: Counts,
    /// A character for each expert. `.` is one that is not there, `+` one that is being read; digits are how much those that are there are used, from `0`, not
    /// yet, to `9`, most of all in this block.
    pub experts: String,
}

impl Counts {
    /// The share of uses that found the expert there; `None` before the first.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn hit_rate(&self) -> Option<f64> {
        (self.uses > 0).then(|| 1.0 - self.misses as f64 / self.uses as f64)
    }

    /// The share of uses that found the expert in the memory of the device that computes; `None` where the CPU does, or nothing was
    /// brought to a device.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn device_rate(&self) -> Option<f64> {
        let of = self.uses.max(self.copied) as f64;
        (self.copied > 0).then(|| 1.0 - self.copied as f64 / of)
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: Counts) -> Counts {
        Counts {
            uses: self.uses.saturating_sub(before.uses),
            misses: self.misses.saturating_sub(before.misses),
            copied: self.copied.saturating_sub(before.copied),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl Watch {
    /// Nothing counted yet.
    pub(in crate::stream) fn new(blocks: &[BlockSpec]) -> Watch {
        let block = |spec: &BlockSpec| Block {
            name: spec.name.clone(),
            uses: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            settled: [AtomicU64::new(0), AtomicU64::new(0)],
            present: bits(spec.count),
            coming: bits(spec.count),
            used: (0..spec.count).map(|_| AtomicU32::new(0)).collect(),
        };
        Watch { blocks: blocks.iter().map(block).collect(), record: Mutex::new(None) }
    }

    /// What people call the blocks, in order.
    pub fn names(&self) -> Vec<String> {
        self.blocks.iter().map(|block| block.name.clone()).collect()
    }

    /// A pass uses these experts of a block, of which so many are not there, and a device lacks so many in its own memory.
    pub(super) fn routed(&self, block: usize, experts: &[u32], misses: usize, copied: usize) {
        let of = &self.blocks[block];
        of.uses.fetch_add(experts.len() as u64, Ordering::Relaxed);
        of.misses.fetch_add(misses as u64, Ordering::Relaxed);
        of.copied.fetch_add(copied as u64, Ordering::Relaxed);
        if of.passes.fetch_add(1, Ordering::Relaxed) >= FILLING {
            of.settled[0].fetch_add(experts.len() as u64, Ordering::Relaxed);
            of.settled[1].fetch_add(misses as u64, Ordering::Relaxed);
        }
        for &e in experts {
            of.used[e as usize].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(record) = &mut *self.record()
            && record.n + experts.len() <= MAX_RECORDED
        {
            record.n += experts.len();
            record.routes[block].push(experts.to_vec());
        }
    }

    /// So many bytes of a block's experts were read.
    pub(super) fn read(&self, block: usize, bytes: Bytes) {
        self.blocks[block].bytes.fetch_add(bytes.0, Ordering::Relaxed);
    }

    /// These experts of a block are there, or on their way if it says so, and no others.
    pub(super) fn present(&self, block: usize, experts: impl Iterator<Item = (u32, bool)>) {
        let Block { present, coming, .. } = &self.blocks[block];
        for word in present.iter().chain(coming) {
            word.store(0, Ordering::Relaxed);
        }
        for (e, comes) in experts {
            let words = if comes { coming } else { present };
            words[e as usize / 64].fetch_or(1 << (e % 64), Ordering::Relaxed);
        }
    }

    /// An expert that was on its way is there.
    pub(super) fn arrived(&self, block: usize, expert: u32) {
        let Block { present, coming, .. } = &self.blocks[block];
        let (word, bit) = (expert as usize / 64, 1 << (expert % 64));
        coming[word].fetch_and(!bit, Ordering::Relaxed);
        present[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// The counters of all blocks together.
    pub fn counts(&self) -> Counts {
        self.blocks.iter().map(Block::counts).fold(Counts::default(), |a, b| Counts {
            uses: a.uses + b.uses,
            misses: a.misses + b.misses,
            copied: a.copied + b.copied,
            bytes: a.bytes + b.bytes,
        })
    }

    /// Uses and misses of all blocks, without the passes in which the pool filled.
    pub fn settled(&self) -> Counts {
        let sum = |i: usize| self.blocks.iter().map(|b| b.settled[i].load(Ordering::Relaxed)).sum();
        Counts { uses: sum(0), misses: sum(1), ..Counts::default() }
    }

    /// How many passes used experts, and of each block, which share of them used each.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn habits(&self) -> (u64, Vec<Habit>) {
        let passes = |block: &Block| block.passes.load(Ordering::Relaxed);
        let habit = |block: &Block| {
            let n = passes(block).max(1) as f64;
            block.used.iter().map(|used| f64::from(used.load(Ordering::Relaxed)) / n).collect()
        };
        let fewest = self.blocks.iter().map(passes).min().unwrap_or(0);
        (fewest, self.blocks.iter().map(habit).collect())
    }

    /// Every block.
    pub fn blocks(&self) -> Vec<BlockView> {
        self.blocks.iter().map(Block::view).collect()
    }

    /// Records routes from now on, what was recorded before forgotten.
    pub fn begin_record(&self) {
        let routes = vec![Routes::new(); self.blocks.len()];
        *self.record() = Some(Record { routes, n: 0 });
    }

    /// What was recorded, for each block; recording ends.
    pub fn take_record(&self) -> Option<Vec<Routes>> {
        self.record().take().map(|record| record.routes)
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bit for each of `n`, none set.
fn bits(n: usize) -> Box<[AtomicU64]> {
    (0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
}

impl Block {
    fn counts(&self) -> Counts {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Counts {
            uses: get(&self.uses),
            misses: get(&self.misses),
            copied: get(&self.copied),
            bytes: Bytes(get(&self.bytes)),
        }
    }

    fn view(&self) -> BlockView {
        let used: Vec<u32> = self.used.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let most = used.iter().copied().max().unwrap_or(0).max(1);
        let has = |words: &[AtomicU64], e: usize| {
            words[e / 64].load(Ordering::Relaxed) >> (e % 64) & 1 == 1
        };
        let level = |n: u32| char::from_digit(u32::from(n > 0) + n * 8 / most, 10).unwrap_or('9');
        let experts = used.iter().enumerate().map(|(e, &n)| match () {
            () if has(&self.present, e) => level(n),
            () if has(&self.coming, e) => '+',
            () => '.',
        });
        BlockView { name: self.name.clone(), counts: self.counts(), experts: experts.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_counted_and_recorded() {
        let spec = BlockSpec { name: "block 3".into(), count: 70, stacks: Vec::new() };
        let watch = Watch::new(&[spec]);
        assert_eq!(watch.counts().hit_rate(), None);
        watch.begin_record();
        watch.routed(0, &[1, 69], 2, 2);
        let before = watch.counts();
        watch.routed(0, &[1, 2], 1, 2);
        watch.read(0, Bytes(10));
        watch.present(0, [(1, false), (2, true), (69, true)].into_iter());
        watch.arrived(0, 69);
        let since = watch.counts().since(before);
        assert_eq!((since.uses, since.misses, since.copied, since.bytes), (2, 1, 2, Bytes(10)));
        assert_eq!((since.hit_rate(), since.device_rate()), (Some(0.5), Some(0.0)));
        assert_eq!(watch.take_record(), Some(vec![vec![vec![1, 69], vec![1, 2]]]));
        assert_eq!(watch.take_record(), None);
        let view = &watch.blocks()[0];
        assert_eq!(&view.experts[..3], ".9+");
        assert!(view.experts.ends_with('5') && view.experts.len() == 70);
    }
}
