//! How products compute with what a pool has: where their operands point, and a private table of the experts' numbers as the pool counts them.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::{Pool, Product};
use crate::ggml::{Buffer, Numbers, Pieces, Placement, Tensor};
use crate::source::HostBuf;
use crate::stream::Error;
use crate::stream::experts::device::Place;
use crate::stream::experts::policy::Held;
use crate::units::Bytes;

impl Pool {
    /// Writes the numbers that the pool has for what is in `ids`, in place of `spare`.
    pub(super) fn count(
        &mut self,
        at: usize,
        like: Tensor,
        spare: Option<Numbers>,
    ) -> Result<Numbers, Error> {
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
        Ok(unsafe { Numbers::over(spare, like, buffer, buf.start()) })
    }

    /// Tells which experts are there, and which will be soon.
    pub(super) fn tell(&self, at: usize) {
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
