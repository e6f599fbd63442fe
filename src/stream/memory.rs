//! What the loop asks of the slots' memory, whichever kind it is: the host's, read into directly, or a device's, copied to.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::split::Unit;
use super::{Monitor, UnitSpec};
use crate::ggml::{Backend, Buffer};
use crate::source::{ReadError, WeightSource};

/// Room for units. Slots go through the states of `slots`; who calls keeps to them.
pub(super) trait SlotMemory: Send + fmt::Debug {
    /// Begins to bring `unit` into `slot`. Returns at once.
    fn begin_fill(&mut self, slot: usize, unit: Unit);

    /// Does what can be done for the fills that have begun, while computation goes on: without waiting for anything recent.
    fn advance(&mut self) {}

    /// Waits until what computes next may rely on `unit` in `slot`, whose fill has begun. `None` if somebody asked to stop before:
    /// the fill goes on. An error ends it.
    fn finish_fill(&mut self, slot: usize, unit: Unit) -> Option<Result<(), ReadError>>;

    /// Whether the fill of `slot` is over, without waiting for it.
    fn has_arrived(&mut self, slot: usize) -> bool;

    /// What `backend` is asked to compute from now on uses the slot.
    fn begin_use(&mut self, slot: usize, backend: &mut Backend) {
        let _ = (slot, backend);
    }

    /// All that uses the slot has been asked of `backend`.
    fn end_use(&mut self, slot: usize, backend: &mut Backend) {
        let _ = (slot, backend);
    }

    /// A pass begins; what was asked for in the one before may be waited for.
    fn begin_pass(&mut self) {}

    /// Waits until nothing is written to slots whose fills are over: their memory is going to be somebody else's.
    fn rest(&mut self) {}

    /// Where the slot is: its buffer, and the address of its first byte as the device counts.
    fn place(&self, slot: usize) -> (&Buffer, NonNull<u8>);

    /// Whether computations may still be under way when they were asked for.
    fn is_asynchronous(&self) -> bool {
        false
    }
}

/// Where units come from, and who is told.
#[derive(Clone, Debug)]
pub(super) struct Supply {
    pub(super) units: Arc<[UnitSpec]>,
    pub(super) source: Arc<dyn WeightSource>,
    pub(super) monitor: Arc<Monitor>,
}

impl Supply {
    pub(super) fn unit(&self, unit: Unit) -> &UnitSpec {
        &self.units[unit as usize]
    }
}
