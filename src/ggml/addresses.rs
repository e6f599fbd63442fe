//! Addresses without memory: what a weight buffer hands out before its tensors are pointed at a slot. Any access faults.

use std::ptr::NonNull;

use super::result::Error;
use crate::units::Bytes;

/// A reserved range of addresses that nothing can read or write.
#[derive(Debug)]
pub struct AddressRange {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: a range of numbers; nothing behind them can be touched from any thread.
unsafe impl Send for AddressRange {}

impl AddressRange {
    /// Reserves `len` bytes of address space.
    pub fn reserve(len: Bytes) -> Result<AddressRange, Error> {
        let len = len.usize().max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(AddressRange { start, len }),
            _ => Err(Error::NoMemory { what: "the addresses of the streamed weights" }),
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
