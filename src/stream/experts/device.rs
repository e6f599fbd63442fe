//! Experts in the memory of a device: a pool above that of the host's memory, through which everything passes on its way here. It decides
//! by the same policy who stays. Copies are made by the queue that computes, so that what computes next finds them without being told.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::policy::{Held, Shelf};
use super::{Above, ExpertsSpec, Habit};
use crate::ggml::{Area, Backend, Buffer, Device, Numbers, Tensor};
use crate::stream::Error;
use crate::units::Bytes;

/// The pool, and what is on its way to it.
#[derive(Debug)]
pub(super) struct DevicePool {
    spec: Above,
    device: Device,
    areas: Vec<Arc<Area>>,
    /// Which pieces hold something else than the regions in them say: whole stacks came into them.
    overwritten: Vec<bool>,
    /// One for each block, or a single one that all blocks share.
    regions: Vec<Region>,
    /// The block that was routed last, whose experts are coming.
    block: usize,
    /// Its experts that were not here, with the slot for each.
    coming: Vec<(u32, usize)>,
    /// Which of its stacks were copied.
    copied: Vec<bool>,
    /// The experts' numbers here, on the host until the queue has copied them, and where it does.
    counted: Vec<i32>,
    table: Option<Area>,
}

/// Slots for experts of one block.
#[derive(Debug)]
struct Region {
    area: Arc<Area>,
    /// Where in it they begin.
    at: u64,
    shelf: Shelf,
    /// Where each stack begins.
    starts: Vec<u64>,
}

/// Where a stack's slots are.
pub(super) struct Place<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) base: NonNull<u8>,
    pub(super) n_slots: usize,
}

impl DevicePool {
    /// Memory on `device` as `of` says, for what `spec` streams.
    pub(super) fn new(spec: &ExpertsSpec, of: Above, device: Device) -> Result<DevicePool, Error> {
        let area = |&len| {
            let area = Area::new(device.buffer_type(), len)?;
            // Kernels may look at what is beyond a slice; whatever it is, it has to be a number.
            area.clear();
            Ok(Arc::new(area))
        };
        let areas = of.areas.iter().map(area).collect::<Result<Vec<Arc<Area>>, Error>>()?;
        let region = |(block, &(area, at)): (usize, &(usize, Bytes))| {
            let (block, area) = (&spec.blocks[block], areas[area].clone());
            let room = area.len().saturating_sub(at).0;
            let n_slots = match of.n_slots {
                0 => block.fits_area(room, of.align),
                n => n,
            };
            assert!(block.area(n_slots, of.align) <= room, "{n_slots} experts in {room} bytes");
            let starts = block.in_area(n_slots, of.align);
            let shelf = Shelf::new(n_slots, block.count, spec.decay);
            Region { area, at: at.0, shelf, starts }
        };
        let regions: Vec<Region> = of.places.iter().enumerate().map(region).collect();
        let overwritten = vec![false; areas.len()];
        let (coming, copied, counted, table) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (spec, block) = (of, 0);
        Ok(DevicePool {
            spec,
            device,
            areas,
            overwritten,
            regions,
            block,
            coming,
            copied,
            counted,
            table,
        })
    }

    /// The pieces of memory that are slots of units as well.
    pub(super) fn lent(&self) -> &[Arc<Area>] {
        &self.areas[..self.spec.lent]
    }

    /// A unit comes into the slot of this number.
    pub(super) fn overwrite(&mut self, slot: usize) {
        if let Some(area) = self.overwritten[..self.spec.lent].get_mut(slot) {
            *area = true;
        }
    }

    /// Experts come again: what units left in their place is no expert, nor always a number. No queue does anything.
    pub(super) fn take_back(&mut self) {
        self.abandon();
        for (area, overwritten) in self.areas.iter().zip(&mut self.overwritten) {
            if std::mem::take(overwritten) {
                area.clear();
                let inside = |region: &&mut Region| Arc::ptr_eq(&region.area, area);
                self.regions.iter_mut().filter(inside).for_each(|region| region.shelf.clear());
            }
        }
    }

    /// Bytes of the memory that all blocks share.
    fn shared(&self) -> u64 {
        let Region { area, at, .. } = &self.regions[0];
        area.len().0 - at
    }

    /// Whether so many experts of a block can be here at a time.
    pub(super) fn fits(&self, spec: &ExpertsSpec, block: usize, n: usize) -> bool {
        match self.spec.n_slots {
            0 => n <= spec.blocks[block].fits_area(self.shared(), self.spec.align),
            n_slots => n <= n_slots,
        }
    }

    fn region(&self) -> &Region {
        &self.regions[if self.spec.n_slots == 0 { 0 } else { self.block }]
    }

    fn region_mut(&mut self) -> &mut Region {
        &mut self.regions[if self.spec.n_slots == 0 { 0 } else { self.block }]
    }

    /// How often experts are used, by what is known before the first pass.
    pub(super) fn expect(&mut self, habits: &[Habit]) {
        if self.spec.n_slots > 0 {
            for (region, habit) in self.regions.iter_mut().zip(habits) {
                region.shelf.expect(habit);
            }
        }
    }

    /// A pass uses `wanted` of a block, as many as fit: lists in `missing` what is not here, and gives it slots. The queue has done all it
    /// was asked to.
    pub(super) fn route(
        &mut self,
        spec: &ExpertsSpec,
        block: usize,
        wanted: &[u32],
        missing: &mut Vec<u32>,
    ) {
        self.abandon();
        if self.spec.n_slots == 0 && self.block != block {
            let align = self.spec.align;
            let n_slots = spec.blocks[block].fits_area(self.shared(), align);
            self.regions[0].starts = spec.blocks[block].in_area(n_slots, align);
            self.regions[0].shelf = Shelf::new(n_slots, spec.blocks[block].count, spec.decay);
        }
        self.block = block;
        self.copied.clear();
        self.copied.resize(spec.blocks[block].stacks.len(), false);
        missing.clear();
        let mut coming = std::mem::take(&mut self.coming);
        let shelf = &mut self.region_mut().shelf;
        shelf.begin(wanted);
        for &expert in wanted.iter().filter(|&&e| shelf.place(e).is_none()) {
            missing.push(expert);
        }
        for &expert in &*missing {
            let slot = shelf.admit(expert).expect("as many slots as experts that a pass uses");
            coming.push((expert, slot));
        }
        self.coming = coming;
    }

    /// What did not come, because a pass ended early, is not here.
    fn abandon(&mut self) {
        let coming = std::mem::take(&mut self.coming);
        for &(_, slot) in &coming {
            self.region_mut().shelf.end_fill(slot, false);
        }
        self.coming = coming;
        self.coming.clear();
    }

    /// Copies what is missing of a stack, unless that was done; `from` says where an expert's slice of it is on the host.
    ///
    /// # Safety
    ///
    /// The slices must be there, and stay as they are until the queue has done what it is asked to.
    pub(super) unsafe fn bring(
        &mut self,
        queue: &mut Backend,
        stack: usize,
        each: u64,
        from: impl Fn(u32) -> NonNull<u8>,
    ) {
        if std::mem::replace(&mut self.copied[stack], true) {
            return;
        }
        let region = self.region();
        for &(expert, slot) in &self.coming {
            let to = region.at + region.starts[stack] + slot as u64 * each;
            // SAFETY: by this function's contract. Nothing that was asked of the queue later uses the slot for anything else, and nobody
            // but this queue uses the area.
            unsafe { queue.copy(&region.area, to, from(expert), each) };
        }
        if self.copied.iter().all(|&copied| copied) {
            let coming = std::mem::take(&mut self.coming);
            for &(_, slot) in &coming {
                self.region_mut().shelf.end_fill(slot, true);
            }
            self.coming = coming;
            self.coming.clear();
        }
    }

    /// A table of the shape of `like`, with the numbers that the experts in `ids` have here.
    pub(super) fn count(
        &mut self,
        queue: &mut Backend,
        like: Tensor,
        ids: &[i32],
        spare: Option<Numbers>,
    ) -> Result<Numbers, Error> {
        let len = Bytes::from(size_of_val(ids));
        let mut counted = std::mem::take(&mut self.counted);
        counted.clear();
        let place = |id: &i32| self.region().shelf.place(id.unsigned_abs());
        let number = |id| place(id).and_then(|slot| i32::try_from(slot).ok()).unwrap_or(0);
        counted.extend(ids.iter().map(number));
        self.counted = counted;
        if self.table.as_ref().is_none_or(|table| table.len() < len) {
            self.table = Some(Area::new(self.device.buffer_type(), len)?);
        }
        let table = self.table.as_ref().expect("made above");
        // SAFETY: as many bytes as the table has at least; they stay until the next route, before which the queue has done this.
        unsafe { queue.copy(table, 0, NonNull::from(&self.counted[..]).cast(), len.0) };
        // SAFETY: the table is as long as `like`, from which `ids` came, and lives as long as the numbers are used.
        Ok(unsafe { Numbers::over(spare, like, table.buffer(), table.base()) })
    }

    /// Where the slots of a stack of the routed block are.
    pub(super) fn place(&self, stack: usize) -> Place<'_> {
        let Region { area, at, shelf, starts } = self.region();
        let offset = Bytes(at + starts[stack]).usize();
        // SAFETY: inside the area, see `in_area`; some addresses of devices are none that the host could follow, and are only counted
        // with.
        let base = unsafe { NonNull::new_unchecked(area.base().as_ptr().wrapping_add(offset)) };
        Place { buffer: area.buffer(), base, n_slots: shelf.n_slots() }
    }

    /// The experts of a block that are here.
    pub(super) fn held(&self, block: usize) -> impl Iterator<Item = u32> + '_ {
        let of = match self.spec.n_slots {
            0 => (self.block == block).then(|| &self.regions[0]),
            _ => self.regions.get(block),
        };
        let slots = of.into_iter().flat_map(|r| (0..r.shelf.n_slots()).map(|s| r.shelf.slot(s)));
        slots.filter_map(|held| match held {
            Held::Ready(expert) => Some(expert),
            Held::Empty | Held::Filling(_) => None,
        })
    }
}
