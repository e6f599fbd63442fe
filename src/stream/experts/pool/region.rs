//! Slots for the experts of one block, and what is on its way to them.

use crate::source::Ticket;
use crate::stream::experts::policy::Shelf;
use crate::stream::experts::{BlockSpec, ExpertsSpec};

/// Slots for experts of one block.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) shelf: Shelf,
    /// The block whose experts it holds.
    pub(super) block: usize,
    pub(super) n_stacks: usize,
    /// For each slot, one for each stack that is being read.
    pub(super) tickets: Vec<Option<Fetch>>,
    /// For each slot, how many of them there are, and whether one failed.
    pub(super) pending: Vec<(usize, bool)>,
    pub(super) in_flight: usize,
}

/// A slice on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) ticket: Ticket,
    /// Where in its memory it lands.
    pub(super) lands: u64,
}

impl Region {
    pub(super) fn new(start: u64, block: usize, spec: &ExpertsSpec, n_slots: usize) -> Region {
        let BlockSpec { count, stacks, .. } = &spec.blocks[block];
        Region {
            start,
            shelf: Shelf::new(n_slots, *count, spec.decay),
            block,
            n_stacks: stacks.len(),
            tickets: (0..n_slots * stacks.len()).map(|_| None).collect(),
            pending: vec![(0, false); n_slots],
            in_flight: 0,
        }
    }

    /// A slice has arrived, or will not.
    pub(super) fn arrived(&mut self, slot: usize, complete: bool) {
        self.in_flight -= 1;
        let (left, failed) = &mut self.pending[slot];
        *left -= 1;
        *failed |= !complete;
        if *left == 0 {
            let complete = !std::mem::take(failed);
            self.shelf.end_fill(slot, complete);
        }
    }
}
