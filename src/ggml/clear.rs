//! Plain memory is cleared by giving its pages back. libllama clears the KV cache of a new context by writing zeros to all of it, so
//! that a long context costs its whole size, and the time for it, before the first token; this way, pages come with the tokens.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::guard::quietly;

/// A buffer was made; if it is plain memory of the CPU's, it is cleared by [`clear`] from now on.
pub(super) fn made(buffer: NonNull<sys::ggml_backend_buffer>, _: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: a fresh buffer that nobody else has yet.
    unsafe {
        if (*buffer.as_ptr()).buft == sys::ggml_backend_cpu_buffer_type() {
            (*buffer.as_ptr()).iface.clear = Some(clear);
        }
    }
}

#[cfg(target_os = "linux")]
unsafe extern "C" fn clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    quietly(|| {
        // SAFETY: ggml passes a buffer of plain memory, which C's heap gave it: private and anonymous.
        let memory = unsafe {
            let start = sys::ggml_backend_buffer_get_base(buffer).cast::<u8>();
            std::slice::from_raw_parts_mut(start, (*buffer).size)
        };
        fill(memory, value);
    });
}

/// Sets every byte. Zero gives the whole pages in it back to the system, which makes them zero when they are next touched.
#[cfg(target_os = "linux")]
fn fill(memory: &mut [u8], value: u8) {
    let page = page_size();
    let head = memory.as_ptr().align_offset(page).min(memory.len());
    let (head, rest) = memory.split_at_mut(head);
    let (pages, tail) = rest.split_at_mut(rest.len() - rest.len() % page);
    head.fill(value);
    tail.fill(value);
    // SAFETY: whole pages that are ours alone. Locked pages are refused, and written below.
    let given = value == 0
        && unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_DONTNEED) }
            == 0;
    if !given {
        pages.fill(value);
    }
}

#[cfg(target_os = "linux")]
fn page_size() -> usize {
    // SAFETY: takes a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(1 << 16)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_set_and_no_other() {
        for (from, to) in [(0, 0), (5, 6), (1, 300_000), (4096, 8192), (100, 70_000)] {
            for value in [0, 7] {
                let mut memory = vec![9_u8; 300_000];
                fill(&mut memory[from..to], value);
                assert!(memory[from..to].iter().all(|&b| b == value));
                assert!(memory[..from].iter().chain(&memory[to..]).all(|&b| b == 9));
            }
        }
    }
}
