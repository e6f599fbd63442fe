//! Slots that are host memory: the source reads straight into them, and there is nothing to copy.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::memory::{SlotMemory, Supply};
use super::split::Unit;
use crate::ggml::Buffer;
use crate::source::{HostBuf, ReadError, Ticket};
use crate::units::Bytes;

/// How often a waiting computation looks whether it was asked to stop.
pub(super) const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// All slots.
#[derive(Debug)]
pub(super) struct HostMemory {
    supply: Supply,
    slots: Vec<Slot>,
}

/// Room for one unit. The memory is either at rest here, or on its way with the ticket.
#[derive(Debug)]
struct Slot {
    ticket: Option<Ticket>,
    buffer: Buffer,
    base: NonNull<u8>,
    /// `None` while a ticket has it, and for ever if that came to no end.
    host: Option<HostBuf>,
}

// SAFETY: `base` is the address of the memory that `host` or the ticket owns.
unsafe impl Send for Slot {}

impl HostMemory {
    /// `n_slots` slots of `size`; of the memory `within`, where others use it at other times. They lie one behind the other, for then most
    /// of them is in huge pages, however small they are.
    pub(super) fn new(
        supply: Supply,
        n_slots: usize,
        size: Bytes,
        within: Option<&Arc<HostBuf>>,
    ) -> Result<HostMemory, Error> {
        let no_memory =
            |e: std::io::Error| Error::NoMemory { n_slots, size, message: e.to_string() };
        let whole = match within {
            Some(whole) => whole.clone(),
            None => Arc::new(HostBuf::new(size * n_slots as u64).map_err(no_memory)?),
        };
        let slot = |i: usize| {
            // SAFETY: slots do not overlap, and `exec` uses none of them while the memory holds experts.
            let part = unsafe { HostBuf::part(&whole, size.0 * i as u64, size.0) };
            Slot::new(part.expect("all slots are inside"))
        };
        let slots = (0..n_slots).map(slot).collect::<Result<_, _>>()?;
        Ok(HostMemory { supply, slots })
    }
}

impl SlotMemory for HostMemory {
    fn begin_fill(&mut self, slot: usize, unit: Unit) {
        let Supply { source, monitor, .. } = &self.supply;
        let slot = &mut self.slots[slot];
        // The memory of a slot that is not filling is at rest, unless a reader died with it: then `finish_fill` says so.
        let Some(host) = slot.host.take() else { return };
        let begin = Instant::now();
        let mut ticket = source.request(self.supply.unit(unit).extents.clone(), host);
        if ticket.is_done() {
            // The source has read it here and now, so that computation did not go on.
            monitor.waited(unit, begin);
        }
        slot.ticket = Some(ticket);
    }

    fn finish_fill(&mut self, slot: usize, unit: Unit) -> Option<Result<(), ReadError>> {
        let monitor = &self.supply.monitor;
        let slot = &mut self.slots[slot];
        let Some(mut ticket) = slot.ticket.take() else { return Some(Err(ReadError::Stopped)) };
        let begin = (!ticket.is_done()).then(Instant::now);
        while !ticket.wait_timeout(STOP_INTERVAL) {
            if monitor.is_stopped() {
                // The read goes on; whoever needs the unit next finds it.
                slot.ticket = Some(ticket);
                return None;
            }
        }
        if let Some(begin) = begin {
            monitor.waited(unit, begin);
        }
        let Some(done) = ticket.wait() else { return Some(Err(ReadError::Stopped)) };
        slot.host = Some(done.buf);
        Some(done.outcome.map(|stats| monitor.read(unit, stats.bytes, stats.span)))
    }

    fn has_arrived(&mut self, slot: usize) -> bool {
        self.slots[slot].ticket.as_mut().is_some_and(Ticket::is_done)
    }

    fn place(&self, slot: usize) -> (&Buffer, NonNull<u8>) {
        let Slot { buffer, base, .. } = &self.slots[slot];
        (buffer, *base)
    }
}

impl Slot {
    fn new(host: HostBuf) -> Result<Slot, Error> {
        let base = host.start();
        // SAFETY: page-aligned memory that lives in `host` or in the ticket, both dropped with (and after) the buffer.
        let buffer = unsafe { Buffer::over_host(base, Bytes::from(host.len())) }?;
        Ok(Slot { ticket: None, buffer, base, host: Some(host) })
    }
}
