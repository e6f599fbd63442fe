//! What streams by expert, and how much memory keeps experts between tokens. It knows sizes; who stays in that memory is decided while
//! it runs.

use super::touched::share as touched_share;
use super::{Abilities, Areas, Unit};
use crate::gguf::{Index, usual_hits};
use crate::units::{Bytes, most};

/// A block whose experts stream one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertBlock {
    /// An index into [`Index::blocks`].
    pub block: usize,
    /// How many experts it has.
    pub count: u64,
    /// Its stacks that stream, in the order of their use: indices into [`Index::tensors`].
    pub stacks: Vec<usize>,
}

/// What so many slots for the experts of a block take. (bytes)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpertRoom {
    /// In RAM, where they are read to.
    pub ram: Bytes,
    /// In the memory of the device that computes; none where that is RAM.
    pub device: Bytes,
}

/// Experts that are kept in the memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// How many of each block; 0 where there is room for fewer than a token uses, which all blocks share.
    pub n_slots: usize,
    /// The memory that they take, with the slots of units if those are in the same.
    pub pool: Bytes,
    /// Whether they are: then prompts borrow it ...
    pub lends: bool,
    /// ... and these bytes of experts are gone after each.
    pub borrowed: Bytes,
}

/// What streams by expert where a pass uses few of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experts {
    /// The blocks that have some.
    pub blocks: Vec<ExpertBlock>,
    /// How many a token uses.
    pub used: u64,
    /// How many of each block are kept in RAM between passes; 0 where there is room for fewer than a token uses.
    pub n_slots: usize,
    /// The memory that they take.
    pub pool: Bytes,
    /// Whether the slots of units are in the same memory: then prompts borrow it.
    pub shares_slots: bool,
    /// What is kept above that, where a device computes in memory of its own.
    pub on_device: Option<OnDevice>,
    /// What was seen of this very model.
    pub seen: Option<Seen>,
}

/// Hits that were seen, in ten thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    share: u32,
    hits: u32,
}

impl Seen {
    /// That so many uses found their expert there while this share of the experts was kept. (0 to 1) `None` for other numbers.
    pub fn new(share: f64, hits: f64) -> Option<Seen> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 10000"
        )]
        let number = |n: f64| (0.0..=1.0).contains(&n).then(|| (n * 1e4).round() as u32);
        Some(Seen { share: number(share).filter(|&n| n > 0)?, hits: number(hits)? })
    }
}

/// Experts that a token uses; none in models without.
pub(super) fn used(index: &Index) -> u64 {
    index.arch_uint("expert_used_count").unwrap_or(0)
}

impl Experts {
    /// That `stacks`, each with its block's number, stream by expert, without memory so far. `None` if there are none, or the device
    /// cannot.
    pub(super) fn of(
        index: &Index,
        stacks: impl Iterator<Item = (usize, usize)>,
        abilities: Abilities<'_>,
    ) -> Option<Experts> {
        let used = used(index);
        let mut blocks: Vec<ExpertBlock> = Vec::new();
        for (block, t) in stacks {
            match blocks.last_mut() {
                Some(last) if last.block == block => last.stacks.push(t),
                _ => {
                    let count = index.experts(&index.tensors[t])?.count;
                    blocks.push(ExpertBlock { block, count, stacks: vec![t] });
                }
            }
        }
        let is_down = |t: usize| index.tensors[t].role().starts_with("ffn_down");
        blocks.iter_mut().for_each(|b| b.stacks.sort_by_key(|&t| (is_down(t), t)));
        let room = (abilities.expert_region)(&blocks.first()?.stacks, 1)?;
        let zero = Bytes::ZERO;
        let nothing = OnDevice { n_slots: 0, pool: zero, lends: false, borrowed: zero };
        let on_device = (room.device > Bytes::ZERO).then_some(nothing);
        let (n_slots, pool, shares_slots, seen) = (0, Bytes::ZERO, false, None);
        (used > 0).then_some(Experts { blocks, used, n_slots, pool, shares_slots, on_device, seen })
    }

    /// The memory of `n` experts of each block, in RAM and on the device.
    fn kept(&self, n: u64, abilities: Abilities<'_>) -> ExpertRoom {
        let region = |b: &ExpertBlock| (abilities.expert_region)(&b.stacks, n.min(b.count));
        self.blocks.iter().filter_map(region).fold(ExpertRoom::default(), |a, b| ExpertRoom {
            ram: a.ram + b.ram,
            device: a.device + b.device,
        })
    }

    /// The least memory that a token's experts pass through, in RAM and on the device.
    pub(super) fn least(&self, abilities: Abilities<'_>) -> ExpertRoom {
        let region = |b: &ExpertBlock| (abilities.expert_region)(&b.stacks, self.used.min(b.count));
        self.blocks.iter().filter_map(region).fold(ExpertRoom::default(), |a, b| ExpertRoom {
            ram: a.ram.max(b.ram),
            device: a.device.max(b.device),
        })
    }

    /// How many experts of each block `room` holds, of which `size` says what they take, and the room that those need; no fewer than a
    /// token uses, or none, where what a token uses passes through.
    fn largest(&self, room: Bytes, least: Bytes, size: impl Fn(u64) -> Bytes) -> (usize, Bytes) {
        let count = self.blocks.iter().map(|b| b.count).max().unwrap_or(0);
        let n = most(usize::try_from(count).unwrap_or(0), |n| size(n as u64) <= room);
        let n = if (n as u64) < self.used.min(count) { 0 } else { n };
        (n, if n > 0 { size(n as u64).max(least) } else { least })
    }

    /// What `n` experts of each block take of the device's memory; what a token uses of the largest block, if that is 0.
    fn regions(&self, n: u64, region: &dyn Fn(&[usize], u64) -> Option<ExpertRoom>) -> Vec<Bytes> {
        let most = |b: &ExpertBlock| if n == 0 { self.used } else { n }.min(b.count);
        let regions = self.blocks.iter().filter_map(|b| region(&b.stacks, most(b)));
        let regions: Vec<Bytes> = regions.map(|room| room.device).collect();
        if n == 0 { regions.into_iter().max().into_iter().collect() } else { regions }
    }

    /// Where experts are in the device's memory, of which `slots` are slots of units; with none kept if so many are.
    pub(super) fn areas_of(
        &self,
        n: u64,
        slots: Option<(usize, Bytes)>,
        abilities: Abilities<'_>,
    ) -> Areas {
        Areas::of(&self.regions(n, abilities.expert_region), slots)
    }

    /// The pieces of the device's memory, where `slots` are all slots of units, so many of this size.
    pub fn areas(
        &self,
        slots: (usize, Bytes),
        region: impl Fn(&[usize], u64) -> Option<ExpertRoom>,
    ) -> Option<Areas> {
        let OnDevice { n_slots, lends, .. } = self.on_device?;
        Some(Areas::of(&self.regions(n_slots as u64, &region), lends.then_some(slots)))
    }

    /// Gives it as much of the device's memory as it has use for, that of `slots` of units included if prompts are to borrow it. `None` if
    /// that is too little for anything.
    pub(super) fn with_device_room(
        mut self,
        room: Bytes,
        slots: Option<(usize, Bytes)>,
        abilities: Abilities<'_>,
    ) -> Option<Experts> {
        let size = |n| self.areas_of(n, slots, abilities).bytes();
        let (n_slots, pool) = self.largest(room, size(0), size);
        let regions = self.regions(n_slots as u64, abilities.expert_region);
        let lost = Areas::of(&regions, slots).borrowed(&regions);
        let borrowed = if n_slots > 0 { lost } else { Bytes::ZERO };
        let lends = slots.is_some();
        self.on_device = self.on_device.map(|_| OnDevice { n_slots, pool, lends, borrowed });
        (room >= pool).then_some(self)
    }

    /// Gives it as much of `room` as it has use for, of which `slots` are the slots of units: the same memory, or beside it. `None` if
    /// that is too little for anything.
    pub(super) fn with_room(
        mut self,
        room: Bytes,
        slots: Bytes,
        shares_slots: bool,
        abilities: Abilities<'_>,
    ) -> Option<Experts> {
        let own = if shares_slots { room.max(slots) } else { room.saturating_sub(slots) };
        let least = self.least(abilities).ram;
        (self.n_slots, self.pool) = self.largest(own, least, |n| self.kept(n, abilities).ram);
        // Where none are kept, what there is of the slots' memory lets more of them pass at once.
        self.pool = if shares_slots { self.pool.max(slots) } else { self.pool };
        self.shares_slots = shares_slots;
        (own >= self.pool).then_some(self)
    }

    /// The share of a unit's bytes that a token reads if so many of its experts are not there.
    #[expect(clippy::cast_precision_loss, reason = "few experts")]
    pub(super) fn touched(&self, unit: &Unit, misses: f64) -> f64 {
        let block = self.blocks.iter().find(|b| b.block == unit.block);
        match block.filter(|b| unit.tensors.iter().all(|t| b.stacks.contains(t))) {
            Some(block) => self.used.min(block.count) as f64 / block.count as f64 * misses,
            None => 1.0,
        }
    }

    /// The share of the experts that is kept, wherever: what is on a device is seldom in RAM as well, because nobody asks for it there.
    pub fn share(&self) -> f64 {
        self.share_of(self.n_slots + self.on_device.map_or(0, |above| above.n_slots))
    }

    /// The bytes of experts that are to be brought again after each prompt, to the device, and what of them from the disk: what is in RAM
    /// is what was not there.
    pub(super) fn refilled(&self) -> (Bytes, Bytes) {
        let borrowed = self.on_device.map_or(Bytes::ZERO, |above| above.borrowed);
        (borrowed, touched_share(borrowed, 1.0 - self.share_of(self.n_slots)))
    }

    /// The share of the experts that so many of each block are.
    #[expect(clippy::cast_precision_loss, reason = "few experts")]
    fn share_of(&self, n_slots: usize) -> f64 {
        let count = self.blocks.iter().map(|b| b.count).max().unwrap_or(1);
        (n_slots as f64 / count as f64).min(1.0)
    }

    /// The share of a token's experts that is expected to be there: as usual, or as it was seen of this model, its misses more or fewer
    /// than usual at any size by as much as they were at one.
    pub fn expected_hits(&self) -> f64 {
        self.hits_of(self.share())
    }

    /// The share of a token's experts that is expected to be on the device; all of them where that is RAM.
    pub fn expected_on_device(&self) -> f64 {
        self.on_device.map_or(1.0, |above| self.hits_of(self.share_of(above.n_slots)))
    }

    /// How many experts of each block a pass may use to find those that were kept.
    pub(super) fn enough_for(&self) -> u64 {
        let above = self.on_device.map(|above| above.n_slots).filter(|&n| n > 0);
        above.unwrap_or(self.n_slots) as u64
    }

    /// The hits of a pool that holds this share.
    fn hits_of(&self, share: f64) -> f64 {
        let misses = |share: f64| 1.0 - usual_hits(share);
        let factor = self.seen.map_or(1.0, |seen| {
            let [share, hits] = [seen.share, seen.hits].map(|n| f64::from(n) / 1e4);
            if share < 1.0 { (1.0 - hits) / misses(share).max(1e-4) } else { 1.0 }
        });
        if share <= 0.0 { 0.0 } else { 1.0 - (misses(share) * factor).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_as_usual_or_as_seen() {
        let of = |n_slots, seen| Experts {
            blocks: vec![ExpertBlock { block: 0, count: 100, stacks: vec![0] }],
            used: 8,
            n_slots,
            pool: Bytes::ZERO,
            shares_slots: false,
            on_device: None,
            seen,
        };
        assert!((of(25, None).expected_hits() - 0.77).abs() < 1e-9);
        let seen = Seen::new(0.25, 0.7);
        assert!((of(25, seen).expected_hits() - 0.7).abs() < 1e-4);
        let more = of(50, seen).expected_hits();
        assert!(more > 0.9 && more < 0.935, "{more}");
        assert_eq!((of(0, seen).expected_hits(), of(100, seen).expected_hits()), (0.0, 1.0));
        for (share, hits) in [(0.0, 0.5), (f64::NAN, 0.5), (0.5, 1.5)] {
            assert_eq!(Seen::new(share, hits), None);
        }
    }
}
