//! Reading ahead, before the first pass: the experts that were used most when the model was loaded before, into the part of the pool that
//! prompts do not borrow.

use super::Pool;
use super::region::Region;
use crate::stream::Error;
use crate::stream::experts::policy::Held;
use crate::stream::experts::{Habit, Mode};

/// So much is asked for at a time: what comes first, a prompt's first stack, waits for no more. (bytes)
const AHEAD: u64 = 8 << 20;

impl Pool {
    /// How often experts are used, by what is known before the first pass. Whether any can be read ahead.
    pub(in crate::stream) fn expect(&mut self, habits: &[Habit]) -> bool {
        self.ahead.clear();
        if habits.len() != self.spec.blocks.len() {
            return false;
        }
        if let Some(above) = &mut self.above {
            above.expect(habits);
        }
        let mut lists = Vec::new();
        for (at, region) in self.kept.iter_mut().enumerate() {
            region.shelf.expect(&habits[region.block]);
            if region.start >= self.lent {
                let mut list = region.shelf.hottest();
                list.truncate(region.shelf.n_slots());
                lists.push((at, list));
            }
        }
        // The hottest of each block, then the second of each; taken from the end.
        let most = lists.iter().map(|(_, list)| list.len()).max().unwrap_or(0);
        for rank in (0..most).rev() {
            let nth = |(at, list): &(usize, Vec<u32>)| list.get(rank).map(|&e| (*at, e));
            self.ahead.extend(lists.iter().rev().filter_map(nth));
        }
        !self.ahead.is_empty()
    }

    /// Reads some of them. Whether there is more to do; a pass with experts has ended it.
    pub(in crate::stream) fn warm(&mut self) -> bool {
        let goes_on = self.mode == Mode::Whole && self.read_ahead().unwrap_or(false);
        if !goes_on {
            self.ahead = Vec::new();
        }
        goes_on
    }

    fn read_ahead(&mut self) -> Result<bool, Error> {
        let mut in_flight = 0;
        for at in 0..self.kept.len() {
            for i in 0..self.kept[at].tickets.len() {
                let fetch = &mut self.kept[at].tickets[i];
                if fetch.as_mut().is_some_and(|fetch| fetch.ticket.is_done()) {
                    self.finish(at, i)?;
                } else if fetch.is_some() {
                    let Region { block, n_stacks, .. } = self.kept[at];
                    in_flight += self.spec.blocks[block].stacks[i % n_stacks].each;
                }
            }
        }
        while in_flight < AHEAD
            && let Some((at, expert)) = self.ahead.pop()
        {
            let Region { shelf, block, .. } = &self.kept[at];
            let has_room = (0..shelf.n_slots()).any(|slot| shelf.slot(slot) == Held::Empty);
            if has_room && shelf.place(expert).is_none() {
                in_flight += self.spec.blocks[*block].stacks.iter().map(|s| s.each).sum::<u64>();
                self.asked.clear();
                self.asked.push(expert);
                self.fetch(at)?;
                self.tell(at);
            }
        }
        Ok(in_flight > 0)
    }
}
