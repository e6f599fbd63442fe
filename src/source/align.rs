//! Host memory that O_DIRECT can read into: page-aligned, owned, sendable; and its division into windows that several
//! readers may fill at once. It reads no files.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::os::pages;
use crate::units::Bytes;

/// A stretch of host memory with one owner. It is aligned to a page when it was made by [`HostBuf::new`].
pub struct HostBuf {
    start: NonNull<u8>,
    len: usize,
    _owner: Owner,
}

enum Owner {
    /// An anonymous mapping of `len` bytes, unmapped on drop.
    Mapping(#[expect(dead_code, reason = "kept only to be dropped")] MmapMut),
    /// A stretch of another buffer, alive as long as all of its parts.
    Part(#[expect(dead_code, reason = "kept only to be dropped")] Arc<HostBuf>),
    /// Memory of somebody else, alive as long as this box (pinned memory of a device, for example).
    Foreign(#[expect(dead_code, reason = "kept only to be dropped")] Box<dyn Any + Send>),
}

// SAFETY: the memory has exactly one owner, this value, and nothing in it is tied to a thread.
unsafe impl Send for HostBuf {}
// SAFETY: `&HostBuf` only reads the bytes; the owner of foreign memory cannot be reached through it, only dropped with it.
unsafe impl Sync for HostBuf {}

impl HostBuf {
    /// Fresh zeroed memory of at least `len` bytes, page-aligned. Pages are touched when they are first written.
    ///
    /// It asks for huge pages: a read past the page cache then needs one segment instead of one for each 4 KiB, which was
    /// measured to take a third of the processor time and, on a virtual disk, to be up to 1.7 times as fast.
    pub fn new(len: Bytes) -> io::Result<HostBuf> {
        let len = len.align_up(super::DIRECT_ALIGN).usize().max(super::DIRECT_ALIGN as usize);
        // Huge pages begin at multiples of their size; what is before that is never touched, and takes no memory.
        let spare = if len < pages::HUGE { 0 } else { pages::HUGE };
        let mut memory = pages::zeroed(len.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?)?;
        let start = memory.as_mut_ptr();
        let skipped = start.addr().next_multiple_of(spare.max(1)) - start.addr();
        let start = memory[skipped..].as_mut_ptr();
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(HostBuf { start, len, _owner: Owner::Mapping(memory) })
    }

    /// Wraps memory that somebody else allocated.
    ///
    /// # Safety
    ///
    /// `start` must point to `len` bytes that are readable and writable, are used by nobody else, and stay valid until
    /// `owner` is dropped.
    pub unsafe fn from_foreign(
        start: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send>,
    ) -> HostBuf {
        HostBuf { start, len, _owner: Owner::Foreign(owner) }
    }

    /// The `len` bytes at `at` of `whole`, as a buffer of their own; `None` if they are not all inside.
    ///
    /// # Safety
    ///
    /// Until the part is dropped, nobody else may touch these bytes: neither another part of them, nor through `whole`.
    pub unsafe fn part(whole: &Arc<HostBuf>, at: u64, len: u64) -> Option<HostBuf> {
        let end = at.checked_add(len)?;
        if end > whole.len as u64 {
            return None;
        }
        // SAFETY: `at` is at most the length, so the result stays inside the allocation.
        let start = unsafe { whole.start.add(Bytes(at).usize()) };
        Some(HostBuf { start, len: Bytes(len).usize(), _owner: Owner::Part(whole.clone()) })
    }

    /// Address of the first byte; stable for the life of the buffer, also while it moves between owners.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; never true for [`HostBuf::new`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes (anonymous mappings are zeroed) that this value owns.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Cuts one buffer into windows, from its beginning to its end, so that no two windows share a byte.
#[derive(Debug)]
pub(super) struct Carver {
    buf: Arc<HostBuf>,
    from: usize,
}

/// A stretch of a buffer that nobody else may touch. It keeps the buffer alive.
#[derive(Debug)]
pub(super) struct Window {
    start: NonNull<u8>,
    len: usize,
    /// Never read through: other windows of it may be written at the same time.
    _buf: Arc<HostBuf>,
}

// SAFETY: a window is the only access to its bytes (see `Carver::carve`), and nothing in it is tied to a thread.
unsafe impl Send for Window {}

impl Carver {
    /// Takes the buffer over.
    pub(super) fn new(buf: HostBuf) -> Carver {
        Carver { buf: Arc::new(buf), from: 0 }
    }

    /// The `len` bytes at `at`; `None` if they begin before the end of an earlier window or end outside the buffer.
    pub(super) fn carve(&mut self, at: usize, len: usize) -> Option<Window> {
        let end = at.checked_add(len)?;
        if at < self.from || end > self.buf.len() {
            return None;
        }
        self.from = end;
        // SAFETY: `at` <= `end` <= length of the buffer, so the result stays inside its allocation.
        let start = unsafe { self.buf.start().add(at) };
        Some(Window { start, len, _buf: Arc::clone(&self.buf) })
    }

    /// The buffer again, once all its windows are gone.
    pub(super) fn into_buf(self) -> Option<HostBuf> {
        Arc::into_inner(self.buf)
    }
}

impl Window {
    /// Address of the first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The bytes, to be written.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the bytes are initialised and inside the buffer that `_buf` keeps alive; windows of one buffer do not
        // overlap, the carver never gives the buffer out while one lives, and `&mut self` excludes other uses of this one.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for HostBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBuf({:p}, {} bytes)", self.start, self.len)
    }
}
