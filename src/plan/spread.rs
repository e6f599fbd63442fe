//! Which parts of the blocks stream, where not all of them need to: as few bytes as must, spread evenly over the computation, so that
//! each is read while what is resident before it is computed. It knows sizes and order; budgets and rates are its callers' matter.

use super::parts::{self, CutBlock, Level};
use super::{Abilities, Placed, Tier, Unit};
use crate::gguf::Index;
use crate::units::Bytes;

/// Sizes of slots that are tried at most, at each level.
const MAX_SIZES: usize = 6;

/// Sizes that differ by less than this share are tried as one.
const ALIKE: u64 = 8;

/// Parts below this share of a slot stream only where the larger ones are not enough: each costs a read and a run of its own.
const SMALL: u64 = 4;

/// The blocks of a model, cut at some level.
pub(super) struct Cut {
    blocks: Vec<CutBlock>,
    parts: Vec<Part>,
    /// Bytes of all blocks.
    pub(super) len: Bytes,
    /// The largest tensor that is resident whatever streams.
    largest_kept: Bytes,
}

/// A part of a block: what can be a unit.
struct Part {
    len: Bytes,
    /// What it takes of a slot.
    slot: Bytes,
    /// Its largest tensor.
    largest: Bytes,
}

/// What is chosen of a [`Cut`]: whether each part streams, in the order of computation.
pub(super) type Chosen = Vec<bool>;

/// What a choice takes. (bytes)
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// All that streams.
    pub(super) streamed: Bytes,
    /// The slot that the largest of it needs.
    pub(super) slot: Bytes,
    /// The largest tensor of the blocks that is resident.
    pub(super) largest: Bytes,
}

impl Cut {
    /// Cuts all blocks of `index`.
    pub(super) fn new(index: &Index, level: Level, abilities: Abilities<'_>) -> Cut {
        let blocks = parts::cut_all(index, level, false, abilities.left);
        let largest = |tensors: &[usize]| {
            tensors.iter().map(|&t| index.tensors[t].len).max().unwrap_or_default()
        };
        let part = |unit: &Unit| Part {
            len: unit.len,
            slot: (abilities.slot_size)(&unit.tensors),
            largest: largest(&unit.tensors),
        };
        let parts = blocks.iter().flat_map(|b| &b.units).map(part).collect();
        let len = blocks.iter().map(|b| b.len).sum();
        let largest_kept = blocks.iter().map(|b| b.largest_kept).max().unwrap_or_default();
        Cut { blocks, parts, len, largest_kept }
    }

    pub(super) fn n_parts(&self) -> usize {
        self.parts.len()
    }

    /// The choice of all parts, or of none.
    pub(super) fn every(&self, streams: bool) -> Chosen {
        vec![streams; self.parts.len()]
    }

    /// The sizes of slots that are worth trying, smallest first.
    pub(super) fn slots(&self) -> Vec<Bytes> {
        let mut sizes: Vec<Bytes> = self.parts.iter().map(|p| p.slot).collect();
        sizes.sort_unstable();
        // Of those that are alike, the largest.
        sizes.reverse();
        sizes.dedup_by(|smaller, larger| larger.0 - smaller.0 <= larger.0 / ALIKE);
        sizes.truncate(MAX_SIZES);
        sizes.reverse();
        sizes
    }

    /// Parts that fit a slot of `slot`, of at least `least` bytes in all and hardly more, spread evenly. `None` if there are not
    /// enough of them.
    pub(super) fn choose(&self, slot: Bytes, least: Bytes) -> Option<Chosen> {
        [Bytes(slot.0 / SMALL), Bytes::ZERO].into_iter().find_map(|smallest| {
            let may = |p: &Part| p.slot <= slot && p.slot >= smallest;
            let all: Bytes = self.parts.iter().filter(|p| may(p)).map(|p| p.len).sum();
            (all >= least).then(|| self.spread(may, all, least))
        })
    }

    /// Of the parts that `may` stream, which are `all` bytes, `least` bytes.
    fn spread(&self, may: impl Fn(&Part) -> bool, all: Bytes, least: Bytes) -> Chosen {
        let mut chosen = self.every(false);
        let (mut passed, mut streamed) = (Bytes::ZERO, Bytes::ZERO);
        let product = |a: Bytes, b: Bytes| u128::from(a.0) * u128::from(b.0);
        // From the end: a pass begins with what is resident, behind which the first read hides.
        for (part, streams) in self.parts.iter().zip(&mut chosen).rev().filter(|(p, _)| may(p)) {
            passed += part.len;
            // The share of what streams is never behind the share of what has passed.
            if product(streamed, all) < product(least, passed) {
                *streams = true;
                streamed += part.len;
            }
        }
        let mut surplus = streamed.saturating_sub(least);
        for (part, streams) in self.parts.iter().zip(&mut chosen) {
            if *streams && part.len <= surplus {
                *streams = false;
                surplus = surplus.saturating_sub(part.len);
            }
        }
        chosen
    }

    /// The tensors that a choice streams, with their blocks.
    pub(super) fn tensors<'a>(
        &'a self,
        chosen: &'a Chosen,
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        let units = self.blocks.iter().flat_map(|b| &b.units).zip(chosen).filter(|(_, c)| **c);
        units.flat_map(|(unit, _)| unit.tensors.iter().map(|&t| (unit.block, t)))
    }

    /// What a choice takes.
    pub(super) fn sums(&self, chosen: &Chosen) -> Sums {
        let mut sums =
            Sums { streamed: Bytes::ZERO, slot: Bytes::ZERO, largest: self.largest_kept };
        for (part, &streams) in self.parts.iter().zip(chosen) {
            if streams {
                sums.streamed += part.len;
                sums.slot = sums.slot.max(part.slot);
            } else {
                sums.largest = sums.largest.max(part.largest);
            }
        }
        sums
    }

    /// The blocks as they are placed by a choice, and the units that stream.
    pub(super) fn place(&self, index: &Index, chosen: &Chosen) -> (Vec<Placed>, Vec<Unit>) {
        let mut streams = chosen.iter();
        let mut units = Vec::new();
        let mut placed = Vec::with_capacity(self.blocks.len());
        for (block, cut) in index.blocks.iter().zip(&self.blocks) {
            let mut before = Bytes::ZERO;
            let mut streamed = Bytes::ZERO;
            let mut n = 0;
            for unit in &cut.units {
                if streams.next() != Some(&true) {
                    before += unit.len;
                    continue;
                }
                streamed += unit.len;
                n += 1;
                units.push(Unit { before: std::mem::take(&mut before), ..unit.clone() });
            }
            let tier = if n == 0 { Tier::Resident } else { Tier::Streamed };
            let partly = n > 0 && n < cut.units.len();
            let (place, len, none) = (block.place(), block.len, Bytes::ZERO);
            placed.push(Placed { place, tier, len, streamed, partly, by_cpu: none, left: none });
        }
        (placed, units)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::parts::LEVELS;
    use crate::plan::solve::tests::any_model;
    use crate::units::MIB;

    proptest! {
        /// Enough streams and hardly more, in parts that fit the slot; and nowhere does it lag behind its share.
        #[test]
        fn as_much_streams_as_must(
            index in any_model(), level in 0..LEVELS.len(), slot in 1_u64..200, least in 1_u64..2000
        ) {
            let size = |tensors: &[usize]| tensors.iter().map(|&t| index.tensors[t].len).sum();
            let abilities = Abilities { slot_size: &size, expert_region: &|_, _| None, left: &HashSet::new() };
            let cut = Cut::new(&index, LEVELS[level], abilities);
            let (slot, least) = (MIB * slot, MIB * least);
            let may: Bytes = cut.parts.iter().filter(|p| p.slot <= slot).map(|p| p.len).sum();
            let Some(chosen) = cut.choose(slot, least) else {
                prop_assert!(may < least);
                return Ok(());
            };
            let sums = cut.sums(&chosen);
            prop_assert!(sums.slot <= slot && sums.streamed >= least);
            prop_assert!(sums.streamed < least + sums.slot, "{} for {least}", sums.streamed);
            let (placed, units) = cut.place(&index, &chosen);
            prop_assert_eq!(units.iter().map(|u| u.len).sum::<Bytes>(), sums.streamed);
            prop_assert_eq!(placed.iter().map(|p| p.streamed).sum::<Bytes>(), sums.streamed);
            for (block, placed) in placed.iter().enumerate() {
                let of_block = units.iter().filter(|u| u.block == block);
                let counted: Bytes = of_block.map(|u| u.len + u.before).sum();
                prop_assert!(counted <= placed.len);
                prop_assert_eq!(placed.tier == Tier::Streamed, placed.streamed > Bytes::ZERO);
            }
        }
    }
}
