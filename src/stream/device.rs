//! Slots in the memory of a device, and how units get there: disk -> staging -> slot in chunks, or RAM -> slot.
//!
//! A second queue of the device makes the copies. Events order it and the queue that computes, in both directions: what computes
//! waits until the slot is full, and copies wait until nobody uses what was in the slot before. The host only asks; it waits for
//! the disk, and for the oldest copies when it needs their staging buffer. Before an event is recorded again, the host waits for
//! what it stood for two units ago, so that it is never further ahead than that, and the device can reuse what it keeps for an
//! event. Where there are no events, the host waits instead.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use super::chunks::{Chunk, chunks};
use super::host::STOP_INTERVAL;
use super::memory::{SlotMemory, Supply};
use super::split::Unit;
use super::staging::{self, Home, Ring};
use super::{Error, Home as At, Staging};
use crate::ggml::{Area, Backend, Buffer, Device, Event};
use crate::source::{DIRECT_ALIGN, Done, HostBuf, ReadError, Ticket};
use crate::units::Bytes;

/// All slots, and everything on its way to them.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    /// In the order in which they began; only the first is being copied. Dropped first: reads end before their memory goes.
    fills: VecDeque<Fill>,
    /// The queue that copies.
    queue: Backend,
    slots: Vec<Slot>,
    origins: Vec<Origin>,
    ring: Ring,
    /// Reads under way ...
    in_flight: usize,
    /// ... of at most this many.
    max_in_flight: usize,
    /// As many zeros as anything needs at once; none if nothing does.
    zeros: Option<HostBuf>,
    supply: Supply,
}

/// Room for one unit, in the device's memory.
#[derive(Debug)]
struct Slot {
    area: Arc<Area>,
    /// Passes when the unit is here; none where the device has no events.
    filled: Option<Event>,
    /// Passes when nothing uses the unit any more.
    used: Option<Event>,
    /// Whether nothing has used the unit yet.
    is_fresh: bool,
    /// How the fill ended, until somebody asks.
    outcome: Option<Result<(), ReadError>>,
}

/// Where a unit comes from.
#[derive(Debug)]
struct Origin {
    chunks: Vec<Chunk>,
    home: Option<Home>,
}

/// A unit on its way.
#[derive(Debug)]
struct Fill {
    unit: Unit,
    slot: usize,
    /// Chunks that were asked for, in order; those before `copied` are on the device or given up.
    reads: VecDeque<Read>,
    asked: usize,
    copied: usize,
    /// Whether the copies may begin: the queue has been told to wait for the slot.
    has_begun: bool,
    bytes: Bytes,
    span: Option<(Instant, Instant)>,
    failure: Option<ReadError>,
}

/// A chunk on its way to the host.
#[derive(Debug)]
enum Read {
    /// It is at home.
    Here,
    /// To its home.
    Home(Ticket),
    /// To a staging buffer.
    Staged(usize, Ticket),
}

impl DeviceMemory {
    /// `n_slots` slots of `size` on `device`, and what their units need on the host; in the memory `within`, where others use that at
    /// other times.
    pub(super) fn new(
        supply: Supply,
        device: Device,
        (n_slots, size): (usize, Bytes),
        within: &[Arc<Area>],
        by: Staging,
    ) -> Result<DeviceMemory, Error> {
        let max_in_flight = by.n_buffers.max(1);
        let no_memory =
            |e: std::io::Error| Error::NoMemory { n_slots, size, message: e.to_string() };
        let queue = Backend::new(device, None)?;
        let events = queue.has_events() && device.capabilities().events;
        let event = || if events { device.event() } else { None };
        let kind = device.buffer_type();
        let slot = |i: usize| {
            let area = match within.get(i) {
                Some(area) => area.clone(),
                None => Arc::new(Area::new(kind, size)?),
            };
            assert!(area.len() >= size, "a slot of {size} in {}", area.len());
            Ok(Slot { area, filled: event(), used: event(), is_fresh: false, outcome: None })
        };
        let slots = (0..n_slots).map(slot).collect::<Result<Vec<_>, Error>>()?;
        let events = slots.iter().all(|s| s.filled.is_some() && s.used.is_some());
        let chunk = by.chunk.max(Bytes(DIRECT_ALIGN)).align_up(DIRECT_ALIGN).0;
        let origin = |unit: &super::UnitSpec| {
            let chunks = chunks(&unit.extents, chunk);
            let home = match unit.home {
                At::Disk => None,
                At::Ram => Some(Home::new(device, &chunks).map_err(no_memory)?),
            };
            Ok(Origin { chunks, home })
        };
        let origins = supply.units.iter().map(origin).collect::<Result<Vec<_>, Error>>()?;
        let staged = origins.iter().filter(|o| o.home.is_none()).flat_map(|o| &o.chunks);
        let longest = staged.clone().map(|c| Bytes(c.extent.len)).max().unwrap_or_default();
        let n_staged = staged.count().min(max_in_flight);
        let ring = Ring::new(device, n_staged, longest, events).map_err(no_memory)?;
        let zeros = supply.units.iter().flat_map(|u| u.zeros.iter()).map(|r| r.end - r.start);
        let zeros = zeros.max().map(|longest| staging::zeros(device, Bytes(longest)));
        let zeros = zeros.transpose().map_err(no_memory)?;
        let fills = VecDeque::new();
        let in_flight = 0;
        let mut this = DeviceMemory {
            fills,
            queue,
            slots,
            origins,
            ring,
            in_flight,
            max_in_flight,
            zeros,
            supply,
        };
        if !events {
            this.do_without_events();
        }
        Ok(this)
    }

    /// Some events are not to be had: none is used.
    fn do_without_events(&mut self) {
        for slot in &mut self.slots {
            (slot.filled, slot.used) = (None, None);
        }
    }

    /// Asks for as many reads as there is room for, in the order of the fills.
    fn ask(&mut self) {
        for fill in &mut self.fills {
            let Origin { chunks, home } = &mut self.origins[fill.unit as usize];
            while fill.asked < chunks.len() && fill.failure.is_none() {
                let k = fill.asked;
                let read = match home {
                    Some(home) if home.has(k) => Read::Here,
                    _ if self.in_flight == self.max_in_flight => return,
                    Some(home) => {
                        // A unit fills one slot at a time: its memory is here, unless a reader died with it.
                        let Some(buf) = home.take(k) else {
                            fill.failure = Some(ReadError::Stopped);
                            break;
                        };
                        self.in_flight += 1;
                        Read::Home(self.supply.source.request(Arc::new([chunks[k].extent]), buf))
                    }
                    None => {
                        let Some((number, buf)) = self.ring.take() else { return };
                        self.in_flight += 1;
                        let ticket = self.supply.source.request(Arc::new([chunks[k].extent]), buf);
                        Read::Staged(number, ticket)
                    }
                };
                fill.reads.push_back(read);
                fill.asked += 1;
            }
        }
    }

    /// Copies what has arrived, as far as it is that chunk's turn.
    fn copy(&mut self) {
        while let Some(fill) = self.fills.front_mut() {
            let origin = &mut self.origins[fill.unit as usize];
            let whole = fill.copied == 0 && origin.home.as_ref().is_some_and(Home::is_complete);
            if whole && fill.failure.is_none() {
                fill.begin(&mut self.slots, &mut self.queue);
                let home = origin.home.as_ref().expect("a complete one");
                let area = &self.slots[fill.slot].area;
                for c in &home.copies {
                    // SAFETY: the home is complete, and is not written again; copies are inside it by `joined`. The queue waits for
                    // the slot, and what uses the slot next waits for the queue.
                    unsafe {
                        self.queue.copy(area, c.to, home.start().add(c.from as usize), c.len)
                    };
                    self.supply.monitor.uploaded(Bytes(c.len));
                }
                fill.reads.clear();
                fill.copied = origin.chunks.len();
                fill.asked = fill.copied;
            } else if let Some(read) = fill.reads.front_mut() {
                if !read.is_done() {
                    return;
                }
                self.copy_chunk();
                continue;
            }
            let over = fill.failure.is_some() || fill.copied == origin.chunks.len();
            if !over || !fill.reads.is_empty() {
                return;
            }
            self.end_fill();
        }
    }

    /// Copies the first fill's next chunk, which has arrived.
    fn copy_chunk(&mut self) {
        let fill = self.fills.front_mut().expect("a fill");
        let read = fill.reads.pop_front().expect("a read");
        let k = fill.copied;
        fill.copied += 1;
        let origin = &mut self.origins[fill.unit as usize];
        let (stage, ticket) = match read {
            Read::Here => (None, None),
            Read::Home(ticket) => (None, Some(ticket)),
            Read::Staged(number, ticket) => (Some(number), Some(ticket)),
        };
        let mut buf = None;
        if let Some(ticket) = ticket {
            self.in_flight -= 1;
            match ticket.wait() {
                Some(Done { buf: back, outcome }) => {
                    buf = Some(back);
                    fill.account(outcome);
                }
                None => fill.failure = fill.failure.take().or(Some(ReadError::Stopped)),
            }
        }
        let fine = fill.failure.is_none();
        if let (Some(home), Some(buf)) = (&mut origin.home, buf.take_if(|_| stage.is_none())) {
            home.put(k, buf, fine);
        }
        if fine {
            fill.begin(&mut self.slots, &mut self.queue);
            let from = match (&origin.home, &buf) {
                (Some(home), _) => home.chunk(k),
                (None, Some(buf)) => buf.start(),
                (None, None) => unreachable!("a chunk that is not at home came in a buffer"),
            };
            let area = &self.slots[fill.slot].area;
            for c in &origin.chunks[k].copies {
                // SAFETY: inside the chunk by `chunks`. A home is not written again; a staging buffer only after `recover` has
                // waited for this queue. The queue waits for the slot, and what uses the slot next waits for the queue.
                unsafe { self.queue.copy(area, c.to, from.add(c.from as usize), c.len) };
            }
        }
        match (stage, buf) {
            (Some(number), Some(buf)) if fine => {
                self.ring.put_behind(number, buf, &mut self.queue);
            }
            (Some(number), Some(buf)) => self.ring.put(number, buf),
            _ => {}
        }
    }

    /// The first fill is over, well or not.
    fn end_fill(&mut self) {
        let mut fill = self.fills.pop_front().expect("a fill");
        if let Some(error) = fill.failure {
            self.slots[fill.slot].outcome = Some(Err(error));
            return;
        }
        fill.begin(&mut self.slots, &mut self.queue);
        let slot = &mut self.slots[fill.slot];
        for r in self.supply.unit(fill.unit).zeros.iter() {
            let zeros = self.zeros.as_ref().expect("there are zeros if any are needed").start();
            // SAFETY: as many zeros as the longest stretch, never written. The queue waits for the slot, see above.
            unsafe { self.queue.copy(&slot.area, r.start, zeros, r.end - r.start) };
        }
        if let Some(filled) = &mut slot.filled {
            filled.synchronize();
            self.queue.record(filled);
        } else {
            self.queue.synchronize();
        }
        slot.is_fresh = true;
        slot.outcome = Some(Ok(()));
        if let Some(span) = fill.span {
            self.supply.monitor.read(fill.unit, fill.bytes, span);
        }
    }

    /// Reads and copies whatever can be, without waiting.
    fn go_on(&mut self) {
        self.ask();
        self.copy();
        self.ask();
    }

    /// Whether there is something that nobody has asked the disk for yet.
    fn wants_more(&self) -> bool {
        let unasked = |f: &Fill| f.asked < self.origins[f.unit as usize].chunks.len();
        self.fills.iter().any(|f| unasked(f) && f.failure.is_none())
    }

    /// Waits a while for the next thing that brings the first fill on. False if there is none.
    fn wait_a_while(&mut self) -> bool {
        // A buffer that the device copies from delays the next read: better to wait for that, while the reads go on.
        if self.wants_more() && self.in_flight < self.max_in_flight && self.ring.recover() {
            return true;
        }
        match self.fills.front_mut().and_then(|f| f.reads.front_mut()) {
            Some(Read::Home(ticket) | Read::Staged(_, ticket)) => {
                ticket.wait_timeout(STOP_INTERVAL);
                true
            }
            Some(Read::Here) => true,
            None => false,
        }
    }
}

impl SlotMemory for DeviceMemory {
    fn begin_fill(&mut self, slot: usize, unit: Unit) {
        self.slots[slot].outcome = None;
        self.fills.push_back(Fill {
            unit,
            slot,
            reads: VecDeque::new(),
            asked: 0,
            copied: 0,
            has_begun: false,
            bytes: Bytes::ZERO,
            span: None,
            failure: None,
        });
        self.ask();
    }

    fn advance(&mut self) {
        self.go_on();
        // The disk has nothing to do, though something is to be read: worth the wait for the oldest copies.
        while self.in_flight == 0 && self.wants_more() && self.ring.recover() {
            self.ask();
        }
    }

    fn finish_fill(&mut self, slot: usize, unit: Unit) -> Option<Result<(), ReadError>> {
        let mut begin = None;
        let outcome = loop {
            self.go_on();
            if let Some(outcome) = self.slots[slot].outcome.take() {
                break Some(outcome);
            }
            if self.supply.monitor.is_stopped() {
                // The fill goes on; whoever needs the unit next finds it.
                break None;
            }
            begin.get_or_insert_with(Instant::now);
            if !self.wait_a_while() {
                // Readers died with all buffers: nothing will bring any of the fills on.
                for fill in &mut self.fills {
                    fill.failure.get_or_insert(ReadError::Stopped);
                }
                self.copy();
                break Some(self.slots[slot].outcome.take().unwrap_or(Err(ReadError::Stopped)));
            }
        };
        if let Some(begin) = begin {
            self.supply.monitor.waited(unit, begin);
        }
        outcome
    }

    fn has_arrived(&mut self, slot: usize) -> bool {
        self.slots[slot].outcome.is_some()
    }

    fn begin_use(&mut self, slot: usize, backend: &mut Backend) {
        let slot = &self.slots[slot];
        if let (true, Some(filled)) = (slot.is_fresh, &slot.filled) {
            backend.wait(filled);
        }
    }

    fn end_use(&mut self, slot: usize, backend: &mut Backend) {
        let slot = &mut self.slots[slot];
        let Some(used) = &mut slot.used else { return backend.synchronize() };
        if std::mem::take(&mut slot.is_fresh) {
            // It stands for the use of what was here before, which the fill has waited for.
            used.synchronize();
        }
        backend.record(used);
    }

    fn begin_pass(&mut self) {
        // All buffers are at rest again for the reads of this pass, and the device may tidy its queue up. Not at the end of a graph:
        // the CPU may have a part of the pass to compute then.
        self.queue.synchronize();
        while self.ring.recover() {}
        self.advance();
    }

    fn rest(&mut self) {
        self.queue.synchronize();
    }

    fn place(&self, slot: usize) -> (&Buffer, NonNull<u8>) {
        let area = &self.slots[slot].area;
        (area.buffer(), area.base())
    }

    fn is_asynchronous(&self) -> bool {
        true
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.queue.synchronize();
    }
}

impl Fill {
    /// Before the first copy: the queue waits until nothing uses what is in the slot.
    fn begin(&mut self, slots: &mut [Slot], queue: &mut Backend) {
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(used) = &slots[self.slot].used
        {
            queue.wait(used);
        }
    }

    /// A read has ended.
    fn account(&mut self, outcome: Result<crate::source::ReadStats, ReadError>) {
        match outcome {
            Ok(stats) => {
                self.bytes += stats.bytes;
                let (begin, end) = self.span.unwrap_or(stats.span);
                self.span = Some((begin.min(stats.span.0), end.max(stats.span.1)));
            }
            Err(error) => self.failure = self.failure.take().or(Some(error)),
        }
    }
}

impl Read {
    fn is_done(&mut self) -> bool {
        match self {
            Read::Here => true,
            Read::Home(ticket) | Read::Staged(_, ticket) => ticket.is_done(),
        }
    }
}
