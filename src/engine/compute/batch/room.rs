//! Room in a context that more texts share than have room at full length: what goes first, and who waits. It computes nothing.

use super::{Batcher, sequence};

/// Tokens that each text should be able to go on for when one comes back that had to make room.
const HEADROOM: usize = 32;

impl Batcher {
    /// Tokens of all texts that are being written or read.
    pub(super) fn wanted(&self) -> usize {
        self.slots.iter().filter(|s| !s.is_free()).map(|s| s.tokens.len()).sum()
    }

    /// Sees to it that the context has room for `n` more tokens, at the cost of what texts that have ended left in it. Beginnings
    /// that are shared count more than once: there is more room than this believes.
    pub(super) fn make_room(&mut self, n: usize) -> bool {
        loop {
            let used: usize = self.slots.iter().map(|slot| slot.n_done).sum();
            if used + n <= self.capacity {
                return true;
            }
            let left = |&i: &usize| self.slots[i].is_free() && self.slots[i].n_done > 0;
            let Some(oldest) =
                (0..self.slots.len()).filter(left).min_by_key(|&i| self.slots[i].used)
            else {
                return false;
            };
            self.shelve(oldest);
            self.forget(oldest);
            self.slots[oldest].tokens.clear();
        }
    }

    /// Drops what the context has of a slot's text.
    pub(super) fn forget(&mut self, slot: usize) {
        self.context.truncate_sequence(sequence(slot), 0);
        self.slots[slot].n_done = 0;
    }

    /// The text that came last makes room for the others; all of it will be read again. Alone, every text has room.
    pub(super) fn park_youngest(&mut self) {
        let born = |i: usize| self.slots[i].running.as_ref().filter(|r| !r.parked).map(|r| r.born);
        let Some(youngest) =
            (0..self.slots.len()).filter(|&i| born(i).is_some()).max_by_key(|&i| born(i))
        else {
            return;
        };
        self.forget(youngest);
        if let Some(running) = &mut self.slots[youngest].running {
            running.parked = true;
        }
    }

    /// Texts that had to make room go on when there is some again, the oldest first.
    pub(super) fn unpark(&mut self) {
        loop {
            let parked = |i: &usize| self.slots[*i].running.as_ref().is_some_and(|r| r.parked);
            let going: Vec<_> = (0..self.slots.len()).filter(|i| !parked(i)).collect();
            let taken = going.iter().filter(|&&i| !self.slots[i].is_free());
            let taken: usize = taken.map(|&i| self.slots[i].tokens.len() + HEADROOM).sum();
            let born = |&i: &usize| self.slots[i].running.as_ref().map(|r| r.born);
            let Some(oldest) = (0..self.slots.len()).filter(parked).min_by_key(born) else {
                return;
            };
            if taken > 0 && taken + self.slots[oldest].tokens.len() + HEADROOM > self.capacity {
                return;
            }
            if let Some(running) = &mut self.slots[oldest].running {
                running.parked = false;
            }
        }
    }
}
