//! How a pool's memory is divided: for each block a region with slots for its experts, stack by stack, so that in each stack one slot
//! follows the other at the same distance. Pure.

use super::BlockSpec;
use crate::source::DIRECT_ALIGN;
use crate::units::most;

/// Bytes of a region of `n_slots` slots for experts whose slices take `rooms`.
pub fn region_size(rooms: impl Iterator<Item = u64>, n_slots: usize) -> u64 {
    let n = n_slots as u64;
    rooms.map(|room| (room * n).next_multiple_of(DIRECT_ALIGN)).sum()
}

/// Bytes of a device's memory for `n_slots` slots of experts whose slices take so many bytes each, and whose stacks are read so far
/// beyond their ends. One slice follows the other, because kernels count on it.
pub fn area_size(slices: impl Iterator<Item = (u64, u64)>, n_slots: usize, align: u64) -> u64 {
    let n = n_slots as u64;
    slices.map(|(each, beyond)| (each * n + beyond).next_multiple_of(align.max(1))).sum()
}

impl BlockSpec {
    fn slices(&self) -> impl Iterator<Item = (u64, u64)> {
        self.stacks.iter().map(|s| (s.each, s.beyond))
    }

    /// How many slots a device's memory of `len` bytes has, at most as many as there are experts.
    pub(super) fn fits_area(&self, len: u64, align: u64) -> usize {
        most(self.count, |n| area_size(self.slices(), n, align) <= len)
    }

    /// Bytes of a device's memory for `n_slots` slots.
    pub(super) fn area(&self, n_slots: usize, align: u64) -> u64 {
        area_size(self.slices(), n_slots, align)
    }

    /// Where in it each stack begins.
    pub(super) fn in_area(&self, n_slots: usize, align: u64) -> Vec<u64> {
        (0..self.stacks.len()).map(|s| area_size(self.slices().take(s), n_slots, align)).collect()
    }

    fn rooms(&self) -> impl Iterator<Item = u64> {
        self.stacks.iter().map(|s| s.slice.room)
    }

    /// Bytes of a region of `n_slots` slots.
    pub(super) fn region(&self, n_slots: usize) -> u64 {
        region_size(self.rooms(), n_slots)
    }

    /// How many slots a region of `len` bytes has, at most as many as there are experts.
    pub(super) fn fits(&self, len: u64) -> usize {
        most(self.count, |n| self.region(n) <= len)
    }

    /// Where in a region of `n_slots` slots a stack begins.
    pub(super) fn stack_at(&self, stack: usize, n_slots: usize) -> u64 {
        region_size(self.rooms().take(stack), n_slots)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::StackSpec;
    use super::*;
    use crate::source::Slice;

    proptest! {
        /// Slots do not overlap, and end inside the region.
        #[test]
        fn regions_hold_their_slots(each in prop::collection::vec((1_u64..200_000, 0_u64..9000), 1..4), n in 1_usize..40, len in 0_u64..5_000_000) {
            let stack = |&(each, offset): &(u64, u64)| StackSpec {
                name: String::new(), file: 0, offset, each, slice: Slice::of(offset, each, 32), beyond: offset % 700,
            };
            let block = BlockSpec { name: String::new(), count: 40, stacks: each.iter().map(stack).collect() };
            let mut end = 0;
            for (s, stack) in block.stacks.iter().enumerate() {
                prop_assert!(block.stack_at(s, n) >= end);
                prop_assert!(block.stack_at(s, n).is_multiple_of(DIRECT_ALIGN));
                end = block.stack_at(s, n) + stack.slice.room * n as u64;
            }
            prop_assert!(end <= block.region(n));
            let fits = block.fits(len);
            prop_assert!(block.region(fits) <= len);
            prop_assert!(fits == 40 || block.region(fits + 1) > len);
            let align = 1 << (len % 10);
            let mut end = 0;
            for (start, stack) in block.in_area(n, align).into_iter().zip(&block.stacks) {
                prop_assert!(start >= end && start.is_multiple_of(align));
                end = start + stack.each * n as u64 + stack.beyond;
            }
            prop_assert!(end <= block.area(n, align));
            let fits = block.fits_area(len, align);
            prop_assert!(fits == 0 || block.area(fits, align) <= len);
            prop_assert!(fits == 40 || block.area(fits + 1, align) > len);
        }
    }
}
