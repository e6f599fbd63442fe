//! Host memory on the way to a device: the ring of staging buffers that everything read from disk passes through, and the homes
//! of units that stay in RAM. Both are pinned, so that the device copies from them by itself; where there is no such memory,
//! ordinary memory does, and a warning says so.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::chunks::{self, Chunk, Copy};
use crate::ggml::{self, Backend, Device, Event, Pinned};
use crate::source::{DIRECT_ALIGN, HostBuf};
use crate::units::Bytes;

/// Buffers that are read into and then copied from, over and over.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Buffers at rest, each with its number.
    free: Vec<(usize, HostBuf)>,
    /// Buffers that the device copies from, the oldest first.
    copied_from: VecDeque<(usize, HostBuf)>,
    /// For each buffer, what passes when the copies from it are done; none where copies are waited for at once.
    done: Vec<Option<Event>>,
}

impl Ring {
    /// `n` buffers of `size` for `device`.
    pub(super) fn new(
        device: Device,
        n: usize,
        size: Bytes,
        events: bool,
    ) -> std::io::Result<Ring> {
        let mut ring = Ring::default();
        for (number, buf) in host_memory(device, &vec![size; n])?.0.into_iter().enumerate() {
            ring.free.push((number, buf));
            ring.done.push(if events { device.event() } else { None });
        }
        Ok(ring)
    }

    /// A buffer at rest.
    pub(super) fn take(&mut self) -> Option<(usize, HostBuf)> {
        self.free.pop()
    }

    /// Gives back a buffer that nothing is copied from.
    pub(super) fn put(&mut self, number: usize, buf: HostBuf) {
        self.free.push((number, buf));
    }

    /// Gives back a buffer that `queue` was asked to copy from.
    pub(super) fn put_behind(&mut self, number: usize, buf: HostBuf, queue: &mut Backend) {
        if let Some(done) = &mut self.done[number] {
            queue.record(done);
            self.copied_from.push_back((number, buf));
        } else {
            queue.synchronize();
            self.free.push((number, buf));
        }
    }

    /// Waits for the oldest copies, so that their buffer is at rest again. False if none are under way.
    pub(super) fn recover(&mut self) -> bool {
        let Some((number, buf)) = self.copied_from.pop_front() else { return false };
        if let Some(done) = &self.done[number] {
            done.synchronize();
        }
        self.free.push((number, buf));
        true
    }
}

/// Where a unit stays: its chunks one after the other, each read once.
#[derive(Debug)]
pub(super) struct Home {
    start: NonNull<u8>,
    /// The memory of each chunk, but for those that are being read.
    parts: Vec<Option<HostBuf>>,
    /// Which chunks are here.
    here: Vec<bool>,
    /// All copies into a slot, once everything is here.
    pub(super) copies: Vec<Copy>,
}

// SAFETY: `start` is the address of the first part's memory; whoever copies from it asks first whether the bytes are here.
unsafe impl Send for Home {}

impl Home {
    /// Allocates the home of a unit that is read in `chunks`.
    pub(super) fn new(device: Device, chunks: &[Chunk]) -> std::io::Result<Home> {
        let sizes: Vec<Bytes> = chunks.iter().map(|c| Bytes(c.extent.len)).collect();
        let (parts, start) = host_memory(device, &sizes)?;
        let parts = parts.into_iter().map(Some).collect();
        let here = vec![false; chunks.len()];
        Ok(Home { start, parts, here, copies: chunks::joined(chunks) })
    }

    /// The memory of a chunk that is not here and not being read.
    pub(super) fn take(&mut self, chunk: usize) -> Option<HostBuf> {
        if self.here[chunk] { None } else { self.parts[chunk].take() }
    }

    /// The memory of a chunk comes back; `read` if it holds its bytes.
    pub(super) fn put(&mut self, chunk: usize, buf: HostBuf, read: bool) {
        self.parts[chunk] = Some(buf);
        self.here[chunk] = read;
    }

    /// Whether the chunk's bytes are here.
    pub(super) fn has(&self, chunk: usize) -> bool {
        self.here[chunk]
    }

    /// Whether nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.here.iter().all(|h| *h)
    }

    /// The address of a chunk that is here.
    pub(super) fn chunk(&self, chunk: usize) -> NonNull<u8> {
        self.parts[chunk].as_ref().expect("a chunk that is here is at rest").start()
    }

    /// The address of the first chunk; the others follow.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

/// As many zeros, pinned where that is possible.
pub(super) fn zeros(device: Device, len: Bytes) -> std::io::Result<HostBuf> {
    let mut zeros = host_memory(device, &[len])?.0.remove(0);
    zeros.as_mut_slice().fill(0);
    Ok(zeros)
}

/// So much memory of whatever value, pinned where that is possible.
pub(super) fn pinned(device: Device, len: Bytes) -> std::io::Result<HostBuf> {
    Ok(host_memory(device, &[len])?.0.remove(0))
}

/// Host memory in one piece, divided into buffers of `sizes`; and its address. Pinned for `device` where that is possible.
fn host_memory(device: Device, sizes: &[Bytes]) -> std::io::Result<(Vec<HostBuf>, NonNull<u8>)> {
    let len: Bytes = sizes.iter().map(|s| s.align_up(DIRECT_ALIGN)).sum();
    let len = len.max(Bytes(DIRECT_ALIGN));
    let (start, owner): (_, Arc<dyn std::any::Any + Send + Sync>) =
        match Pinned::new(device, len, DIRECT_ALIGN) {
            Some(pinned) => (pinned.start(), Arc::new(pinned)),
            None => {
                warn_once(device);
                let plain = HostBuf::new(len)?;
                (plain.start(), Arc::new(plain))
            }
        };
    let mut at = 0;
    let mut buffer = |size: &Bytes| {
        // SAFETY: the buffers are inside the memory, whose length is the sum of theirs, do not overlap, and keep it alive. Its bytes
        // have some value, because a device driver or the system gave them.
        let buf = unsafe {
            HostBuf::from_foreign(start.add(at), size.usize(), Box::new(Arc::clone(&owner)))
        };
        at += size.align_up(DIRECT_ALIGN).usize();
        buf
    };
    Ok((sizes.iter().map(&mut buffer).collect(), start))
}

fn warn_once(device: Device) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        let name = device.name();
        ggml::warn(&format!(
            "{name}: no pinned memory to be had; copies to the device are slower without"
        ));
    }
}
