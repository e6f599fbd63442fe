//! Memory by the page: mappings that nothing touches, mappings that come as zeros, and giving pages back.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

use crate::units::Bytes;

/// Pages are never larger than this on a system whose page size is unknown. (bytes)
const LARGEST: usize = 1 << 16;

/// The size of a huge page on common systems. (bytes)
pub const HUGE: usize = 2 << 20;

/// The size of a page, a power of two. (bytes)
pub fn size() -> usize {
    #[cfg(unix)]
    let size = rustix::param::page_size();
    #[cfg(not(unix))]
    let size = LARGEST;
    if size.is_power_of_two() { size } else { LARGEST }
}

/// Fresh memory that reads as zeros, of at least one byte; it begins with a page, and takes memory as it is written. In huge pages where
/// the system gives them to those who ask.
///
/// # Errors
///
/// The system has none.
pub fn zeroed(len: usize) -> io::Result<MmapMut> {
    let memory = MmapOptions::new().len(len.max(1)).map_anon()?;
    // Advice: where huge pages are switched off nothing happens.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// A mapping that C may hold by its address: reserved addresses without memory, any access to which faults, or allocated ones, whose
/// pages come when they are first written. Unmapped on drop. (`memmap2` has no mappings without access, and none to be taken back
/// from an address.)
#[derive(Debug)]
pub struct AddressRange {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping has one owner, and nothing in it is tied to a thread.
unsafe impl Send for AddressRange {}

impl AddressRange {
    /// Reserves `len` bytes of address space that nothing can read or write.
    pub fn reserve(len: Bytes) -> io::Result<AddressRange> {
        AddressRange::map(len, false)
    }

    /// Allocates `len` bytes that read as zero, and take memory as they are written.
    pub fn allocate(len: Bytes) -> io::Result<AddressRange> {
        AddressRange::map(len, true)
    }

    fn map(len: Bytes, accessible: bool) -> io::Result<AddressRange> {
        let len = len.usize().max(1);
        match NonNull::new(map(len, accessible)) {
            Some(start) => Ok(AddressRange { start, len }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Sets every byte of an allocated range. Zero gives the memory back to the system.
    pub fn fill(&self, value: u8) {
        // SAFETY: an allocated range: private, anonymous, and initialised by the system.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len);
            fill(bytes, value);
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
    pub unsafe fn from_raw(start: *mut c_void, len: usize) -> AddressRange {
        AddressRange {
            start: NonNull::new(start).expect("a mapping is never at NULL"),
            len: len.max(1),
        }
    }

    /// The first address; aligned to a page.
    pub fn start(&self) -> NonNull<c_void> {
        self.start
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made.
        unsafe { unmap(self.start.as_ptr(), self.len) };
    }
}

/// `len` fresh addresses, with memory behind them or such that any access faults; NULL if the system has none.
#[cfg(unix)]
fn map(len: usize, accessible: bool) -> *mut c_void {
    let (protection, flags) = match accessible {
        true => (libc::PROT_READ | libc::PROT_WRITE, 0),
        false => (libc::PROT_NONE, libc::MAP_NORESERVE),
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { std::ptr::null_mut() } else { start }
}

#[cfg(windows)]
use super::windows::map;

/// Gives them back.
///
/// # Safety
///
/// They came from [`map`], and nobody uses them.
unsafe fn unmap(start: *mut c_void, len: usize) {
    #[cfg(unix)]
    // SAFETY: by this function's own contract.
    unsafe {
        libc::munmap(start, len);
    }
    #[cfg(windows)]
    // SAFETY: by this function's own contract.
    unsafe {
        let _ = len;
        super::windows::unmap(start);
    }
}

/// Sets every byte. Zero gives the whole pages in it back to the system, which makes them zero when they are next touched; only Linux
/// promises that, and elsewhere zeros are written.
///
/// # Safety
///
/// The memory is private and anonymous: pages of a file would come back with what is in the file.
pub unsafe fn fill(memory: &mut [u8], value: u8) {
    let page = size();
    let head = memory.as_ptr().align_offset(page).min(memory.len());
    let (head, rest) = memory.split_at_mut(head);
    let (pages, tail) = rest.split_at_mut(rest.len() - rest.len() % page);
    head.fill(value);
    tail.fill(value);
    if value != 0 || !given_back(pages) {
        pages.fill(value);
    }
}

/// Whether the pages were given back and will be zero. Locked ones are refused.
#[cfg(target_os = "linux")]
fn given_back(pages: &mut [u8]) -> bool {
    // SAFETY: whole pages that are ours alone.
    unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn given_back(_: &mut [u8]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_set_and_no_other() {
        for (from, to) in [(0, 0), (5, 6), (1, 300_000), (4096, 8192), (100, 70_000)] {
            for value in [0, 7] {
                let mut memory = vec![9_u8; 300_000];
                // SAFETY: of the heap.
                unsafe { fill(&mut memory[from..to], value) };
                assert!(memory[from..to].iter().all(|&b| b == value));
                assert!(memory[..from].iter().chain(&memory[to..]).all(|&b| b == 9));
            }
        }
    }

    #[test]
    fn mappings_begin_with_a_page_and_are_zero() {
        for len in [0, 1, 5000, 3 << 20] {
            let made = zeroed(len).unwrap();
            assert!(made.len() >= len && made.iter().all(|&b| b == 0));
            assert_eq!(made.as_ptr().align_offset(size()), 0);
            let reserved = AddressRange::reserve(Bytes::from(len)).unwrap();
            assert_eq!(reserved.start().align_offset(size()), 0);
        }
        assert!(AddressRange::reserve(Bytes(u64::MAX / 2)).is_err());
    }

    #[test]
    fn what_was_filled_with_zeros_is_zero() {
        let range = AddressRange::allocate(Bytes(100_000)).unwrap();
        // SAFETY: as many bytes as were allocated, while the range lives.
        let bytes =
            || unsafe { std::slice::from_raw_parts(range.start().as_ptr().cast::<u8>(), 100_000) };
        assert!(bytes().iter().all(|&b| b == 0));
        range.fill(5);
        assert!(bytes().iter().all(|&b| b == 5));
        range.fill(0);
        assert!(bytes().iter().all(|&b| b == 0));
    }
}
