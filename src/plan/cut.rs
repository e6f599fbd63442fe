//! The blocks of a model, cut into parts that can stream, and which of them do where not all need to: as few bytes as must, spread evenly
//! over the computation, so that each is brought while what is there already is computed. It knows sizes and order; budgets and rates
//! are its callers' matter.

use super::Abilities;
use super::parts::is_stack;
use super::parts::{self, CutBlock, Level};
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
    pub(super) level: Level,
    /// The blocks in the order of computation.
    pub(super) blocks: Vec<CutBlock>,
    /// Their units, all in one row.
    pub(super) parts: Vec<Part>,
    /// Bytes of all blocks.
    pub(super) len: Bytes,
    /// Whether all parts are stacks of experts.
    pub(super) only_stacks: bool,
}

/// A part of a block: what can be a unit.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The block's number.
    pub(super) block: usize,
    pub(super) len: Bytes,
    /// What it takes of a slot.
    pub(super) slot: Bytes,
    /// Its largest tensor.
    pub(super) largest: Bytes,
    /// Whether it consists of stacks of experts.
    pub(super) of_stacks: bool,
}

impl Cut {
    /// Cuts all blocks of `index`. With `keep_small`, norms, biases and routers are resident even in blocks that are not cut.
    pub(super) fn new(
        index: &Index,
        level: Level,
        keep_small: bool,
        abilities: Abilities<'_>,
    ) -> Cut {
        let blocks = parts::cut_all(index, level, keep_small, abilities.left);
        let parts: Vec<Part> = blocks
            .iter()
            .flat_map(|b| &b.units)
            .map(|unit| {
                let tensors = || unit.tensors.iter().map(|&t| &index.tensors[t]);
                Part {
                    block: unit.block,
                    len: unit.len,
                    slot: (abilities.slot_size)(&unit.tensors),
                    largest: tensors().map(|t| t.len).max().unwrap_or_default(),
                    of_stacks: tensors().all(|t| is_stack(index, t)),
                }
            })
            .collect();
        let len = blocks.iter().map(|b| b.len).sum();
        let only_stacks = parts.iter().all(|p| p.of_stacks);
        Cut { level, blocks, parts, len, only_stacks }
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

    /// Which parts stream: of those that `may` and fit a slot of `slot`, at least `least` bytes in all and hardly more. `None` if there
    /// are not enough of them.
    pub(super) fn choose(
        &self,
        slot: Bytes,
        least: Bytes,
        may: impl Fn(&Part) -> bool,
    ) -> Option<Vec<bool>> {
        [Bytes(slot.0 / SMALL), Bytes::ZERO].into_iter().find_map(|smallest| {
            let may = |p: &Part| (p.slot <= slot && p.slot >= smallest && may(p)).then_some(p.len);
            leave(&self.parts.iter().map(may).collect::<Vec<_>>(), least)
        })
    }
}

/// Which of `items`, which are sizes in the order of computation or `None` for what stays, leave a memory: at least `least` bytes and
/// hardly more, spread evenly. `None` if all of them are not enough.
fn leave(items: &[Option<Bytes>], least: Bytes) -> Option<Vec<bool>> {
    let all: Bytes = items.iter().flatten().copied().sum();
    if all < least {
        return None;
    }
    let mut chosen = vec![false; items.len()];
    let (mut passed, mut left) = (Bytes::ZERO, Bytes::ZERO);
    let product = |a: Bytes, b: Bytes| u128::from(a.0) * u128::from(b.0);
    // From the end: a pass begins with what stays, behind which the first read hides.
    for (item, leaves) in items.iter().zip(&mut chosen).rev() {
        let Some(len) = *item else { continue };
        passed += len;
        // The share of what leaves is never behind the share of what has passed.
        if product(left, all) < product(least, passed) {
            *leaves = true;
            left += len;
        }
    }
    let mut surplus = left.saturating_sub(least);
    for (item, leaves) in items.iter().zip(&mut chosen) {
        if let (true, Some(len)) = (*leaves, *item)
            && len <= surplus
        {
            *leaves = false;
            surplus = surplus.saturating_sub(len);
        }
    }
    Some(chosen)
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
        /// Enough streams and hardly more, in parts that fit the slot and may.
        #[test]
        fn as_much_streams_as_must(
            index in any_model(), level in 0..LEVELS.len(), slot in 1_u64..200, least in 1_u64..2000,
            every in 1_usize..4
        ) {
            let size = |tensors: &[usize]| tensors.iter().map(|&t| index.tensors[t].len).sum();
            let abilities = Abilities { slot_size: &size, expert_region: &|_, _| None, left: &HashSet::new() };
            let cut = Cut::new(&index, LEVELS[level], false, abilities);
            let (slot, least) = (MIB * slot, MIB * least);
            let may = |p: &Part| p.block.is_multiple_of(every);
            let all: Bytes = cut.parts.iter().filter(|p| p.slot <= slot && may(p)).map(|p| p.len).sum();
            let Some(streams) = cut.choose(slot, least, may) else {
                prop_assert!(all < least);
                return Ok(());
            };
            let chosen = || cut.parts.iter().zip(&streams).filter(|(_, s)| **s).map(|(p, _)| p);
            prop_assert!(chosen().all(|p| p.slot <= slot && may(p)));
            let streamed: Bytes = chosen().map(|p| p.len).sum();
            prop_assert!(streamed >= least && streamed < least + slot, "{streamed} for {least}");
        }
    }
}
