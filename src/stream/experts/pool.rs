//! Experts in slots of the host's memory, into which they are read. Where the CPU computes, products take them from there; where a device
//! does in memory of its own, what its pool has not is copied from there.
#![allow(unsafe_code)]

mod warm;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::device::{DevicePool, Place};
use super::policy::{Held, Shelf};
use super::{BlockSpec, ExpertsSpec, Mode, is_narrow};
use crate::ggml::{self, Backend, Buffer, Device, Numbers, Pieces, Placement, Tensor};
use crate::source::{HostBuf, ReadError, Ticket, WeightSource};
use crate::stream::host::STOP_INTERVAL;
use crate::stream::{Error, Monitor};
use crate::units::Bytes;

/// Memory for experts, and what is known of it.
#[derive(Debug)]
pub(in crate::stream) struct Pool {
    spec: ExpertsSpec,
    source: Arc<dyn WeightSource>,
    monitor: Arc<Monitor>,
    arena: Arc<HostBuf>,
    buffer: Buffer,
    /// What of it is in the device's memory, if that is where products are computed. Its copies come from the memory above.
    above: Option<DevicePool>,
    /// One for each block, if any are kept.
    kept: Vec<Region>,
    /// What all blocks share, of the block that used it last.
    passing: Region,
    /// So many bytes from the beginning of the memory hold something else than `kept` says ...
    overwritten: u64,
    /// ... and so many may at most while whole stacks stream.
    lent: u64,
    mode: Mode,
    /// What is to be read before anybody asks, the last one first: regions and experts.
    ahead: Vec<(usize, u32)>,
    /// Whose route the numbers are.
    routed: Option<(usize, Tensor)>,
    /// What the router wrote, and which experts those are ...
    ids: Vec<i32>,
    raw: Vec<i32>,
    wanted: Vec<u32>,
    /// ... and those of them that this pool has to have.
    asked: Vec<u32>,
    table: Option<(Arc<HostBuf>, Buffer)>,
    numbers: Option<Numbers>,
}

/// Slots for experts of one block.
#[derive(Debug)]
struct Region {
    start: u64,
    shelf: Shelf,
    /// The block whose experts it holds.
    block: usize,
    n_stacks: usize,
    /// For each slot, one for each stack that is being read.
    tickets: Vec<Option<Fetch>>,
    /// For each slot, how many of them there are, and whether one failed.
    pending: Vec<(usize, bool)>,
    in_flight: usize,
}

/// A slice on its way.
#[derive(Debug)]
struct Fetch {
    ticket: Ticket,
    /// Where in its memory it lands.
    lands: u64,
}

/// What a product with experts multiplies by, and where the product is in the graph.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct Product {
    pub(in crate::stream) node: Tensor,
    pub(in crate::stream) weights: Tensor,
    pub(in crate::stream) ids: Tensor,
    pub(in crate::stream) block: usize,
    pub(in crate::stream) stack: usize,
}

impl Region {
    fn new(start: u64, block: usize, spec: &ExpertsSpec, n_slots: usize) -> Region {
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
    fn arrived(&mut self, slot: usize, complete: bool) {
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

impl Pool {
    /// Over `arena`, of whose first bytes `lent` are the slots of units, too.
    pub(in crate::stream) fn new(
        spec: ExpertsSpec,
        arena: Arc<HostBuf>,
        lent: u64,
        source: Arc<dyn WeightSource>,
        monitor: Arc<Monitor>,
        device: Device,
    ) -> Result<Pool, Error> {
        let mut start = 0;
        let mut kept = Vec::new();
        for (b, block) in spec.blocks.iter().enumerate().filter(|_| spec.n_slots > 0) {
            kept.push(Region::new(start, b, &spec, spec.n_slots));
            start += block.region(spec.n_slots);
        }
        assert!(start <= arena.len() as u64, "pools of {start} bytes in {}", arena.len());
        // SAFETY: page-aligned memory, which lives in `arena`, dropped after the buffer.
        let buffer = unsafe { Buffer::over_host(arena.start(), Bytes::from(arena.len())) }?;
        let above = spec.above.map(|of| DevicePool::new(&spec, of, device)).transpose()?;
        let passing = Region::new(0, 0, &spec, spec.blocks[0].fits(arena.len() as u64));
        Ok(Pool {
            spec,
            source,
            monitor,
            arena,
            buffer,
            above,
            kept,
            passing,
            overwritten: 0,
            lent,
            mode: Mode::Whole,
            ahead: Vec::new(),
            routed: None,
            ids: Vec::new(),
            raw: Vec::new(),
            wanted: Vec::new(),
            asked: Vec::new(),
            table: None,
            numbers: None,
        })
    }

    /// Whether the slots of units are in this memory.
    pub(in crate::stream) fn shares_slots(&self) -> bool {
        self.spec.shares_slots
    }

    /// Whether products are computed in a device's memory: then they wait for all that they use.
    pub(in crate::stream) fn is_on_device(&self) -> bool {
        self.above.is_some()
    }

    /// How a graph with these products gets its experts.
    pub(in crate::stream) fn choose(&self, products: &[Product]) -> Mode {
        let shape = |p: &Product| {
            let [used, tokens] = p.ids.rows();
            let count = self.spec.blocks[p.block].count;
            (count, used, tokens, used.saturating_mul(tokens).min(count))
        };
        let fit = |room: &dyn Fn(&Product) -> usize| products.iter().all(|p| shape(p).3 <= room(p));
        let narrow = || {
            products
                .iter()
                .map(shape)
                .all(|(count, used, tokens, _)| is_narrow(count, used, tokens))
        };
        let fits_above = |p: &Product| {
            self.above.as_ref().is_none_or(|above| above.fits(&self.spec, p.block, shape(p).3))
        };
        if !products.iter().all(|p| p.ids.is_table_of_numbers() && fits_above(p)) {
            Mode::Whole
        } else if self.spec.n_slots > 0 && fit(&|_| self.spec.n_slots) {
            Mode::Kept
        } else if fit(&|p| self.spec.blocks[p.block].fits(self.arena.len() as u64)) && narrow() {
            Mode::Passing
        } else {
            Mode::Whole
        }
    }

    /// How the last pass got its experts.
    pub(in crate::stream) fn mode(&self) -> Mode {
        self.mode
    }

    /// So many bytes from the beginning of the memory were given to something else.
    pub(in crate::stream) fn overwrite(&mut self, len: u64) {
        self.overwritten = self.overwritten.max(len);
    }

    /// A pass begins that gets its experts in this way. Waits for what is being read in another.
    pub(in crate::stream) fn enter(&mut self, mode: Mode) -> Result<(), Error> {
        self.routed = None;
        if self.mode == mode {
            return Ok(());
        }
        for at in 0..=self.kept.len() {
            self.settle(at)?;
        }
        if mode == Mode::Kept {
            let overwritten = std::mem::take(&mut self.overwritten);
            for region in self.kept.iter_mut().filter(|r| r.start < overwritten) {
                region.shelf.clear();
            }
        }
        self.passing.shelf.clear();
        self.mode = mode;
        Ok(())
    }

    fn region(&mut self, at: usize) -> &mut Region {
        if at < self.kept.len() { &mut self.kept[at] } else { &mut self.passing }
    }

    /// The region that a block's experts go to in this pass.
    fn region_of(&self, block: usize) -> usize {
        if self.mode == Mode::Kept { block } else { self.kept.len() }
    }

    /// Waits for all that is being read into a region, whatever became of who asked for it.
    fn settle(&mut self, at: usize) -> Result<(), Error> {
        for i in 0..self.region(at).tickets.len() {
            if self.region(at).in_flight == 0 {
                break;
            }
            match self.finish(at, i) {
                // Whoever needs it will hear of it.
                Ok(()) | Err(Error::Read { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks for the experts that `product` and those of the same block after it use, unless that was done. `queue` computes them.
    pub(in crate::stream) fn route(
        &mut self,
        product: &Product,
        queue: &mut Backend,
    ) -> Result<(), Error> {
        if self.routed == Some((product.block, product.ids)) {
            return Ok(());
        }
        self.routed = None;
        let block = product.block;
        self.read_ids(product.ids, queue);
        self.distinct(block)?;
        let at = self.region_of(block);
        if at == self.kept.len() && (self.passing.block != block || self.mode != Mode::Passing) {
            self.settle(at)?;
            let n_slots = self.spec.blocks[block].fits(self.arena.len() as u64);
            self.passing = Region::new(0, block, &self.spec, n_slots);
        }
        // Nothing is on its way but what an earlier pass did not wait for.
        self.settle(at)?;
        let Pool { spec, above, kept, passing, wanted, asked, .. } = self;
        match above {
            // What comes here are the misses of the pool above: how often it is used there is known there.
            Some(above) => above.route(spec, block, wanted, asked),
            None => asked.clone_from(wanted),
        }
        let region = if at < kept.len() { &mut kept[at] } else { passing };
        region.shelf.begin(asked);
        let misses = asked.iter().filter(|&&e| region.shelf.place(e).is_none()).count();
        if let Some(watch) = self.monitor.experts() {
            watch.routed(block, &self.wanted, misses);
        }
        self.fetch(at)?;
        self.numbers = Some(match &mut self.above {
            Some(above) => above.count(queue, product.ids, &self.ids)?,
            None => self.count(at, product.ids)?,
        });
        self.tell(at);
        self.routed = Some((block, product.ids));
        Ok(())
    }

    /// What the router wrote: the run that computes the table has been asked for.
    fn read_ids(&mut self, ids: Tensor, queue: &mut Backend) {
        if self.above.is_some() {
            // All that was asked of it before is done as well: nothing reads from this pool's memory or the table any more.
            queue.synchronize();
            // SAFETY: computed, and a table of numbers (see `choose`).
            unsafe { ids.fetch_numbers(&mut self.raw, &mut self.ids) };
        } else {
            // SAFETY: as above, and where the CPU computes, everything is in the host's memory and done when the call returns.
            unsafe { ids.read_numbers(&mut self.ids) };
        }
    }

    /// Lists the experts in `ids`, each once; an error if there is no such expert.
    fn distinct(&mut self, block: usize) -> Result<(), Error> {
        let spec = &self.spec.blocks[block];
        self.wanted.clear();
        for &id in &self.ids {
            match u32::try_from(id) {
                Ok(e) if (e as usize) < spec.count => self.wanted.push(e),
                _ => {
                    let (block, count) = (spec.name.clone(), spec.count);
                    return Err(Error::NoSuchExpert { block, expert: id, count });
                }
            }
        }
        self.wanted.sort_unstable();
        self.wanted.dedup();
        Ok(())
    }

    /// Begins to read what is wanted and not there: for each stack, in the order of their use, all experts.
    fn fetch(&mut self, at: usize) -> Result<(), Error> {
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

    /// Writes the numbers that the pool has for what is in `ids`.
    fn count(&mut self, at: usize, like: Tensor) -> Result<Numbers, Error> {
        let len = Bytes::from(self.ids.len() * size_of::<i32>());
        if self.table.as_ref().is_none_or(|(buf, _)| buf.len() < len.usize()) {
            let no_memory = |e: std::io::Error| Error::NoMemory {
                n_slots: 1,
                size: len,
                message: e.to_string(),
            };
            let buf = Arc::new(HostBuf::new(len).map_err(no_memory)?);
            // SAFETY: page-aligned memory, kept beside the buffer, and dropped after it.
            let buffer = unsafe { Buffer::over_host(buf.start(), Bytes::from(buf.len())) }?;
            self.numbers = None;
            self.table = Some((buf, buffer));
        }
        let (buf, buffer) = self.table.as_ref().expect("made above");
        let region = if at < self.kept.len() { &self.kept[at] } else { &self.passing };
        for (i, &id) in self.ids.iter().enumerate() {
            let slot = region.shelf.place(id.unsigned_abs()).expect("wanted experts have slots");
            // SAFETY: the table has room for all of `ids`, and nobody computes with it now.
            unsafe { buf.start().cast::<i32>().add(i).write(i32::try_from(slot).unwrap_or(0)) };
        }
        // SAFETY: the table is as long as `like`, from which `ids` came, and lives as long as this value.
        Ok(unsafe { Numbers::over(like, buffer, buf.start()) })
    }

    /// Tells which experts are there, and which will be soon.
    fn tell(&self, at: usize) {
        let region = if at < self.kept.len() { &self.kept[at] } else { &self.passing };
        let held = (0..region.shelf.n_slots()).filter_map(|s| match region.shelf.slot(s) {
            Held::Filling(e) => Some((e, true)),
            Held::Ready(e) => Some((e, false)),
            Held::Empty => None,
        });
        let above = self.above.iter().flat_map(|above| above.held(region.block));
        if let Some(watch) = self.monitor.experts() {
            watch.present(region.block, held.chain(above.map(|e| (e, false))));
        }
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
    fn finish(&mut self, at: usize, i: usize) -> Result<(), Error> {
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

    /// Adds rows of `product` to what is to be computed.
    ///
    /// # Safety
    ///
    /// The rows' experts must have arrived, and the product be placed (see [`Pool::place`]) when the pieces are computed.
    pub(in crate::stream) unsafe fn add_rows(
        &self,
        product: &Product,
        rows: Range<usize>,
        pieces: &mut Pieces,
    ) {
        let numbers = self.numbers.as_ref().expect("a product is placed after its route");
        // SAFETY: by this function's contract; the numbers have the shape of the router's.
        unsafe { pieces.add(product.node, numbers, rows) };
    }

    /// Lets `product` compute with what the pool has.
    ///
    /// # Safety
    ///
    /// The product must be a node of the graph that is being computed by this thread, and be restored before the next route.
    pub(in crate::stream) unsafe fn place(&self, product: &Product, placement: &mut Placement) {
        let numbers = self.numbers.as_ref().expect("a product is placed after its route");
        let stack = &self.spec.blocks[product.block].stacks[product.stack];
        let (place, stride) = match &self.above {
            Some(above) => (above.place(product.stack), stack.each),
            None => (self.place_here(product), stack.slice.room),
        };
        let Place { buffer, base, n_slots } = place;
        // SAFETY: inside the memory; the slots that the numbers name are full and stay so until the next route, by this function's
        // contract.
        unsafe {
            placement.place_apart(product.weights, buffer, base, (n_slots, stride));
            placement.renumber(product.node, numbers);
        }
    }

    /// Where the slots of a product's stack are in the host's memory.
    fn place_here(&self, product: &Product) -> Place<'_> {
        let at = self.region_of(product.block);
        let region = if at < self.kept.len() { &self.kept[at] } else { &self.passing };
        let spec = &self.spec.blocks[product.block];
        let n_slots = region.shelf.n_slots();
        let slice = spec.stacks[product.stack].slice;
        let first = region.start + spec.stack_at(product.stack, n_slots) + slice.at;
        // SAFETY: inside the memory.
        let base = unsafe { self.arena.start().add(Bytes(first).usize()) };
        Place { buffer: &self.buffer, base, n_slots }
    }
}
