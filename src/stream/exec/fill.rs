//! The loop's part in slots: which units come next, and filling slots with them in time.

use super::Exec;
use crate::ggml;
use crate::stream::slots::State;
use crate::stream::split::{Run, Unit};
use crate::stream::{Error, UnitState};

impl Exec {
    /// Lists the units that are needed from `runs` on, in order, as many as there are slots.
    pub(super) fn look_ahead(&mut self, runs: &[Run]) {
        self.upcoming.clear();
        let n = self.slots.len();
        for &unit in runs.iter().flat_map(|r| &r.units) {
            if self.upcoming.len() == n {
                return;
            }
            if !self.upcoming.contains(&unit) {
                self.upcoming.push(unit);
            }
        }
        if let Some(last) = self.upcoming.last().copied().or(self.last_unit) {
            self.follow(last);
        }
    }

    /// Appends to the list what used to follow `unit`, as far as there are slots.
    pub(super) fn follow(&mut self, mut unit: Unit) {
        for _ in 0..self.successor.len() {
            if self.upcoming.len() >= self.slots.len() {
                return;
            }
            unit = self.successor[unit as usize];
            if self.upcoming.contains(&unit) {
                return;
            }
            if self.experts.as_ref().is_none_or(|experts| experts.may_follow(unit)) {
                self.upcoming.push(unit);
            }
        }
    }

    /// Starts reading what is upcoming into the slots that are free for it.
    pub(super) fn begin_fills(&mut self) {
        while let Some((slot, unit, before)) = self.slots.begin_fill(&self.upcoming) {
            if let Some(before) = before {
                self.monitor.left(before);
            }
            self.monitor.unit_is(unit, UnitState::Reading);
            if let Some(experts) = &mut self.experts {
                experts.give_slot(slot);
            }
            self.memory.begin_fill(slot, unit);
        }
        self.tell_arrivals();
    }

    /// Tells the monitor which of the reads under way have ended; they are taken when they are needed.
    fn tell_arrivals(&mut self) {
        for slot in 0..self.slots.len() {
            if let State::Filling(unit) = self.slots.state(slot)
                && self.memory.has_arrived(slot)
            {
                self.monitor.unit_is(unit, UnitState::Ready);
            }
        }
    }

    /// Waits until all of `units` are in slots.
    pub(super) fn wait_for(&mut self, units: &[Unit]) -> Result<(), Error> {
        for &unit in units {
            let slot = loop {
                match self.slots.find(unit) {
                    Some(slot) => break slot,
                    None => self.make_room(units)?,
                }
            };
            if matches!(self.slots.state(slot), State::Filling(_)) {
                self.finish_fill(slot, unit)?;
            }
        }
        Ok(())
    }

    /// All slots are being filled with what will not be needed next, after a wrong guess, or with others of `units`: waits for the
    /// first of the former, and begins to fill again.
    fn make_room(&mut self, units: &[Unit]) -> Result<(), Error> {
        let wrong = (0..self.slots.len()).find_map(|slot| match self.slots.state(slot) {
            State::Filling(unit) if !units.contains(&unit) => Some((slot, unit)),
            _ => None,
        });
        let Some((slot, unit)) = wrong else {
            let names: Vec<_> = units.iter().map(|&u| self.supply.unit(u).name.as_str()).collect();
            return Err(Error::TooFewSlots { units: names.join(" and "), slots: self.slots.len() });
        };
        match self.finish_fill(slot, unit) {
            // Whoever needs that unit will hear of it.
            Ok(()) | Err(Error::Read { .. }) => {}
            Err(error) => return Err(error),
        }
        self.begin_fills();
        Ok(())
    }

    /// Waits for the fill of `slot`. The time counts as a stall.
    pub(super) fn finish_fill(&mut self, slot: usize, unit: Unit) -> Result<(), Error> {
        let outcome = self.memory.finish_fill(slot, unit).ok_or(ggml::Error::Aborted)?;
        self.slots.end_fill(slot, outcome.is_ok());
        let name = &self.supply.unit(unit).name;
        outcome.map_err(|error| {
            self.monitor.unit_is(unit, UnitState::Idle);
            Error::Read { unit: name.clone(), error }
        })
    }
}
