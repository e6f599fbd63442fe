//! The slots' states: Empty -> Filling -> Ready -> Busy -> Ready ... A slot is written only when free and read only when
//! full. Pure: it holds no memory and starts no reads; `exec` does what it says.

use super::split::Unit;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of use.
    Empty,
    /// A read into it is under way.
    Filling(Unit),
    /// All bytes of the unit.
    Ready(Unit),
    /// All bytes of the unit, and a computation reads them.
    Busy(Unit),
}

impl State {
    /// The unit that it holds or is going to hold.
    pub fn unit(self) -> Option<Unit> {
        match self {
            State::Empty => None,
            State::Filling(u) | State::Ready(u) | State::Busy(u) => Some(u),
        }
    }
}

/// The states of all slots of a device.
#[derive(Clone, Debug)]
pub struct Slots(Vec<State>);

impl Slots {
    /// `n` empty slots.
    pub fn new(n: usize) -> Slots {
        Slots(vec![State::Empty; n])
    }

    /// Number of slots.
    #[expect(clippy::len_without_is_empty, reason = "there is always a slot")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The slot that holds `unit` or is being filled with it.
    pub fn find(&self, unit: Unit) -> Option<usize> {
        self.0.iter().position(|s| s.unit() == Some(unit))
    }

    /// The state of a slot.
    pub fn state(&self, slot: usize) -> State {
        self.0[slot]
    }

    /// Begins the next fill that makes sense: the first of `upcoming` (units in the order of their use) that is nowhere, into
    /// a slot that is neither filling nor busy and whose unit is not needed sooner. The slot, the unit, and the one that was in the slot.
    /// `None` if there is nothing to do.
    pub fn begin_fill(&mut self, upcoming: &[Unit]) -> Option<(usize, Unit, Option<Unit>)> {
        let wanted = upcoming.iter().position(|&u| self.find(u).is_none())?;
        let unit = upcoming[wanted];
        let next_use = |s: State| match s {
            State::Filling(_) | State::Busy(_) => None,
            State::Empty => Some(usize::MAX),
            State::Ready(u) => {
                Some(upcoming.iter().position(|&v| v == u).unwrap_or(usize::MAX - 1))
            }
        };
        // The slot whose unit is used last, and after `unit`.
        let candidates = self.0.iter().enumerate().filter_map(|(i, &s)| Some((next_use(s)?, i)));
        let (at, slot) = candidates.max_by_key(|&(at, i)| (at, std::cmp::Reverse(i)))?;
        if at < wanted {
            return None;
        }
        let before = std::mem::replace(&mut self.0[slot], State::Filling(unit));
        Some((slot, unit, before.unit()))
    }

    /// A fill has ended; `complete` if all bytes are there.
    pub fn end_fill(&mut self, slot: usize, complete: bool) {
        let State::Filling(unit) = self.0[slot] else {
            panic!("slot {slot} ends a fill in state {:?}", self.0[slot])
        };
        self.0[slot] = if complete { State::Ready(unit) } else { State::Empty };
    }

    /// What a slot holds is gone: its memory is needed for something else. It must be neither filling nor busy.
    pub fn forget(&mut self, slot: usize) {
        match self.0[slot] {
            State::Empty | State::Ready(_) => self.0[slot] = State::Empty,
            state => panic!("slot {slot} is forgotten in state {state:?}"),
        }
    }

    /// A computation begins to read the slot.
    pub fn begin_use(&mut self, slot: usize) {
        let State::Ready(unit) = self.0[slot] else {
            panic!("slot {slot} is used in state {:?}", self.0[slot])
        };
        self.0[slot] = State::Busy(unit);
    }

    /// The computation has ended.
    pub fn end_use(&mut self, slot: usize) {
        let State::Busy(unit) = self.0[slot] else {
            panic!("slot {slot} ends its use in state {:?}", self.0[slot])
        };
        self.0[slot] = State::Ready(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs `passes` passes over `order` the way `exec` does, with fills that end only when waited for; counts fills.
    fn simulate(n_slots: usize, order: &[Unit], passes: usize) -> usize {
        let mut slots = Slots::new(n_slots);
        let mut fills = 0;
        for at in 0..order.len() * passes {
            let upcoming: Vec<Unit> = (0..n_slots).map(|k| order[(at + k) % order.len()]).collect();
            while let Some((slot, unit, _)) = slots.begin_fill(&upcoming) {
                assert_eq!(slots.state(slot), State::Filling(unit));
                fills += 1;
            }
            let slot = slots.find(upcoming[0]).expect("the unit in use is always in a slot");
            if matches!(slots.state(slot), State::Filling(_)) {
                slots.end_fill(slot, true);
            }
            slots.begin_use(slot);
            // While it is busy, fills that have begun stay, and none may begin in it.
            while let Some((other, ..)) = slots.begin_fill(&upcoming) {
                assert_ne!(other, slot);
                fills += 1;
            }
            slots.end_use(slot);
        }
        fills
    }

    #[test]
    fn a_cyclic_scan_fills_each_unit_once_per_pass() {
        let order: Vec<Unit> = (0..10).collect();
        // The last passes prefetch up to a slot's worth beyond the end.
        assert!(simulate(2, &order, 5) <= 5 * 10 + 2);
        assert_eq!(simulate(10, &order, 5), 10, "what fits is read once");
        assert_eq!(simulate(2, &[0, 1], 7), 2);
        assert_eq!(simulate(1, &order, 3), 30);
    }

    proptest! {
        /// Any order of units, any number of slots: no state is ever violated (the state machine panics if it is).
        #[test]
        fn any_order_works(n_slots in 1_usize..5, order in prop::collection::vec(0_u32..6, 1..30)) {
            simulate(n_slots, &order, 3);
        }

        /// A random driver that only does what is allowed never finds two slots with the same unit.
        #[test]
        fn no_unit_is_twice(n_slots in 1_usize..5, steps in prop::collection::vec((0_u8..4, 0_usize..5, 0_u32..6), 0..200)) {
            let mut slots = Slots::new(n_slots);
            for (what, slot, unit) in steps {
                let slot = slot % n_slots;
                match (what, slots.state(slot)) {
                    (0, _) => drop(slots.begin_fill(&[unit, (unit + 1) % 6])),
                    (1, State::Filling(_)) => slots.end_fill(slot, unit != 0),
                    (2, State::Ready(_)) => slots.begin_use(slot),
                    (3, State::Busy(_)) => slots.end_use(slot),
                    _ => {}
                }
                let mut held: Vec<_> = (0..n_slots).filter_map(|i| slots.state(i).unit()).collect();
                let n = held.len();
                held.sort_unstable();
                held.dedup();
                prop_assert_eq!(held.len(), n);
            }
        }
    }
}
