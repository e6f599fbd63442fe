//! Ranges of addresses: reserved ones without memory, which is what a weight buffer hands out before its tensors are pointed
//! at a slot (any access faults), and allocated ones, whose pages come when they are first written.

use std::ptr::NonNull;

use super::result::Error;
use crate::units::Bytes;

/// A mapping of addresses, unmapped on drop.
#[derive(Debug)]
pub struct AddressRange {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: the mapping has one owner, and nothing in it is tied to a thread.
unsafe impl Send for AddressRange {}

impl AddressRange {
    /// Reserves `len` bytes of address space that nothing can read or write.
    pub fn reserve(len: Bytes) -> Result<AddressRange, Error> {
        AddressRange::map(len, libc::PROT_NONE, libc::MAP_NORESERVE)
    }

    /// Allocates `len` bytes that read as zero, and take memory as they are written.
    pub fn allocate(len: Bytes) -> Result<AddressRange, Error> {
        AddressRange::map(len, libc::PROT_READ | libc::PROT_WRITE, 0)
    }

    fn map(len: Bytes, protection: i32, flags: i32) -> Result<AddressRange, Error> {
        let len = len.usize().max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(AddressRange { start, len }),
            _ => Err(Error::NoMemory { what: "a mapping of addresses" }),
        }
    }

    /// Sets every byte of an allocated range. Zero gives the memory back to the system.
    pub fn fill(&self, value: u8) {
        // SAFETY: an allocated range; after MADV_DONTNEED, private anonymous pages read as zero.
        unsafe {
            if value != 0 || libc::madvise(self.start.as_ptr(), self.len, libc::MADV_DONTNEED) != 0
            {
                std::ptr::write_bytes(self.start.as_ptr().cast::<u8>(), value, self.len);
            }
        }
    }

    /// Leaves the mapping to C, which gives it back by [`AddressRange::from_raw`].
    pub fn leak(self) {
        std::mem::forget(self);
    }

    /// Takes a leaked range back.
    ///
    /// # Safety
    ///
    /// `start` and `len` must be those of a leaked range that nobody else takes back.
    pub unsafe fn from_raw(start: *mut libc::c_void, len: usize) -> AddressRange {
        AddressRange {
            start: NonNull::new(start).expect("a mapping is never at NULL"),
            len: len.max(1),
        }
    }

    /// The first address; aligned to a page.
    pub fn start(&self) -> NonNull<libc::c_void> {
        self.start
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        // SAFETY: the mapping that `reserve` made.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}
