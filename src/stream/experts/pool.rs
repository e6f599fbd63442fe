//! Experts in slots of the host's memory, into which they are read. Where the CPU computes, products take them from there; where a device
//! does in memory of its own, what its pool has not is copied from there.
#![allow(unsafe_code)]

mod arrival;
mod placing;
mod region;
mod warm;

use std::sync::Arc;

use self::region::Region;
use super::device::DevicePool;
use super::{ExpertsSpec, Mode, is_narrow};
use crate::ggml::{Area, Backend, Buffer, Device, Numbers, Tensor};
use crate::source::{HostBuf, WeightSource};
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

/// What a product with experts multiplies by, and where the product is in the graph.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct Product {
    pub(in crate::stream) node: Tensor,
    pub(in crate::stream) weights: Tensor,
    pub(in crate::stream) ids: Tensor,
    pub(in crate::stream) block: usize,
    pub(in crate::stream) stack: usize,
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
        let above = spec.above.clone().map(|of| DevicePool::new(&spec, of, device)).transpose()?;
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

    /// Whether the slots of units are in the memory of experts: this one, or the device's.
    pub(in crate::stream) fn shares_slots(&self) -> bool {
        self.spec.shares_slots || !self.lent_above().is_empty()
    }

    /// The pieces of the device's memory that are slots of units as well.
    pub(in crate::stream) fn lent_above(&self) -> &[Arc<Area>] {
        self.above.as_ref().map_or(&[], DevicePool::lent)
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
    fn overwrite(&mut self, len: u64) {
        self.overwritten = self.overwritten.max(len);
    }

    /// A unit comes into the slot of this number; slots take `size` bytes each.
    pub(in crate::stream) fn give_slot(&mut self, slot: usize, size: Bytes) {
        if self.spec.shares_slots {
            self.overwrite(size.0 * (slot as u64 + 1));
        }
        if let Some(above) = &mut self.above {
            above.overwrite(slot);
        }
    }

    /// A pass begins that gets its experts in this way. Waits for what is being read in another. Where a device has slots and experts in
    /// the same memory, its queues have done all they were asked to.
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
        if let (Some(above), true) = (&mut self.above, mode != Mode::Whole) {
            above.take_back();
        }
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
            let copied = if self.above.is_some() { self.asked.len() } else { 0 };
            watch.routed(block, &self.wanted, misses, copied);
        }
        self.fetch(at)?;
        let spare = self.numbers.take();
        self.numbers = Some(match &mut self.above {
            Some(above) => above.count(queue, product.ids, &self.ids, spare)?,
            None => self.count(at, product.ids, spare)?,
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
}
