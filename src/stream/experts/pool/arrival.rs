//! How experts come: all that is missing is asked for at once, each product waits for its own stack, and a token's rows one for the other.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use super::Pool;
use super::Product;
use super::region::Fetch;
use crate::ggml::{self, Backend};
use crate::source::{HostBuf, ReadError};
use crate::stream::Error;
use crate::stream::experts::policy::Held;
use crate::stream::host::STOP_INTERVAL;
use crate::units::Bytes;

impl Pool {
    /// Begins to read what is wanted and not there: for each stack, in the order of their use, all experts.
    pub(super) fn fetch(&mut self, at: usize) -> Result<(), Error> {
        let Pool { spec, source, arena, kept, passing, asked, .. } = self;
        let region = if at < kept.len() { &mut kept[at] } else { passing };
        let block = &spec.blocks[region.block];
        let n_slots = region.shelf.n_slots();
        let mut end = 0;
        if asked.len() > n_slots {
            let units = format!("{} experts of {}", asked.len(), block.name);
            return Err(Error::TooFewSlots { units, slots: n_slots });
        }
        for &expert in asked.iter() {
            if region.shelf.place(expert).is_none() {
                let slot = region.shelf.admit(expert).expect("a slot for each that is wanted");
                region.pending[slot] = (block.stacks.len(), false);
                region.in_flight += block.stacks.len();
            }
        }
        for (s, stack) in block.stacks.iter().enumerate() {
            let base = region.start + block.stack_at(s, n_slots);
            for &expert in asked.iter() {
                let Some(slot) = region.shelf.place(expert) else { continue };
                if region.shelf.slot(slot) != Held::Filling(expert) {
                    continue;
                }
                let offset = stack.offset + u64::from(expert) * stack.each;
                let (extent, lands) = stack.slice.extent(stack.file, offset, stack.each);
                let place = base + slot as u64 * stack.slice.room;
                end = end.max(place + stack.slice.room);
                // SAFETY: the slot is Filling: no product reads it, nobody else is given these bytes before the read has ended, and
                // slots do not overlap. Slots of units in the same memory are not in use, see `enter`.
                let buf = unsafe { HostBuf::part(arena, place, stack.slice.room) };
                let buf = buf.expect("a region is inside the memory");
                let ticket = source.request(Arc::new([extent]), buf);
                region.tickets[slot * region.n_stacks + s] = Some(Fetch { ticket, lands });
            }
        }
        if at == self.kept.len() {
            self.overwrite(end);
        }
        Ok(())
    }

    /// Whether all that `product` uses has arrived; it must have been asked for.
    pub(in crate::stream) fn is_here(&mut self, product: &Product) -> bool {
        if self.routed != Some((product.block, product.ids)) {
            return false;
        }
        let at = self.region_of(product.block);
        let region = self.region(at);
        if region.in_flight == 0 {
            return true;
        }
        let of_stack = region.tickets.iter_mut().skip(product.stack).step_by(region.n_stacks);
        of_stack.flatten().all(|fetch| fetch.ticket.is_done())
    }

    /// Waits for all that `product` uses. The time counts as a stall.
    pub(in crate::stream) fn wait(
        &mut self,
        product: &Product,
        queue: &mut Backend,
    ) -> Result<(), Error> {
        let at = self.region_of(product.block);
        let region = self.region(at);
        let (n_stacks, n_slots) = (region.n_stacks, region.shelf.n_slots());
        for slot in 0..n_slots {
            if self.region(at).in_flight == 0 {
                break;
            }
            self.finish(at, slot * n_stacks + product.stack)?;
        }
        self.bring(at, product, queue);
        Ok(())
    }

    /// Has `queue` copy what the pool above lacks of a stack, which is all here.
    fn bring(&mut self, at: usize, product: &Product, queue: &mut Backend) {
        let Pool { spec, arena, above, kept, passing, .. } = self;
        let Some(above) = above else { return };
        let region = if at < kept.len() { &kept[at] } else { &*passing };
        let (block, n_slots) = (&spec.blocks[product.block], region.shelf.n_slots());
        let (base, stack) = (block.stack_at(product.stack, n_slots), &block.stacks[product.stack]);
        let from = |expert| {
            let slot = region.shelf.place(expert).expect("what is asked for has a slot");
            let at = region.start + base + slot as u64 * stack.slice.room + stack.slice.at;
            // SAFETY: a slot is inside the memory.
            unsafe { arena.start().add(Bytes(at).usize()) }
        };
        // SAFETY: read, and not given to others before the next route, which waits for the queue.
        unsafe { above.bring(queue, product.stack, stack.each, from) };
    }

    /// Whether the expert of a row of `product`, of one token, has arrived; it must have been asked for.
    pub(in crate::stream) fn has_row(
        &mut self,
        product: &Product,
        row: usize,
    ) -> Result<bool, Error> {
        let (at, i) = self.slice_of(product, row);
        let fetch = &mut self.region(at).tickets[i];
        let is_here = fetch.as_mut().is_none_or(|fetch| fetch.ticket.is_done());
        if is_here {
            self.finish(at, i)?;
        }
        Ok(is_here)
    }

    /// Waits for the expert of a row of `product`, of one token. The time counts as a stall.
    pub(in crate::stream) fn wait_row(
        &mut self,
        product: &Product,
        row: usize,
    ) -> Result<(), Error> {
        let (at, i) = self.slice_of(product, row);
        self.finish(at, i)
    }

    /// The region of the expert of a row, and which of its slices.
    fn slice_of(&mut self, product: &Product, row: usize) -> (usize, usize) {
        debug_assert_eq!(self.routed, Some((product.block, product.ids)));
        let at = self.region_of(product.block);
        let expert = self.ids[row].unsigned_abs();
        let region = self.region(at);
        let slot = region.shelf.place(expert).expect("wanted experts have slots");
        (at, slot * region.n_stacks + product.stack)
    }

    /// Waits for one slice, if it is being read.
    pub(super) fn finish(&mut self, at: usize, i: usize) -> Result<(), Error> {
        let monitor = self.monitor.clone();
        let region = self.region(at);
        let (slot, stack) = (i / region.n_stacks, i % region.n_stacks);
        let Some(Fetch { mut ticket, lands }) = region.tickets[i].take() else { return Ok(()) };
        let block = region.block;
        let begin = (!ticket.is_done()).then(Instant::now);
        while !ticket.wait_timeout(STOP_INTERVAL) {
            if monitor.is_stopped() {
                // The read goes on; whoever uses the region next waits for it.
                region.tickets[i] = Some(Fetch { ticket, lands });
                return Err(ggml::Error::Aborted.into());
            }
        }
        if let Some(begin) = begin {
            monitor.waited_for_experts(block, begin);
        }
        let done = ticket.wait();
        let outcome = match done {
            None => Err(ReadError::Stopped),
            Some(mut done) => done.outcome.map(|stats| {
                let spec = &self.spec.blocks[block].stacks[stack];
                if lands != spec.slice.at {
                    let [from, to, len] =
                        [lands, spec.slice.at, spec.each].map(|n| Bytes(n).usize());
                    done.buf.as_mut_slice().copy_within(from..from + len, to);
                }
                monitor.read_expert(block, stats.bytes, stats.span);
                if let Some(watch) = monitor.experts() {
                    watch.read(block, stats.bytes);
                }
            }),
        };
        let region = self.region(at);
        let held = region.shelf.slot(slot);
        region.arrived(slot, outcome.is_ok());
        if let (Held::Ready(e), Some(watch)) = (region.shelf.slot(slot), monitor.experts()) {
            watch.arrived(block, e);
        }
        outcome.map_err(|error| {
            let expert = match held {
                Held::Filling(e) | Held::Ready(e) => e,
                Held::Empty => 0,
            };
            Error::Read {
                unit: format!("{}, expert {expert}", self.spec.blocks[block].name),
                error,
            }
        })
    }
}
