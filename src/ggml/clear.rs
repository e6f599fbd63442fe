//! Plain memory is cleared by giving its pages back. libllama clears the KV cache of a new context by writing zeros to all of it, so
//! that a long context costs its whole size, and the time for it, before the first token; this way, pages come with the tokens.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::guard::quietly;
use crate::os::pages;

/// A buffer was made; if it is plain memory of the CPU's, it is cleared by [`clear`] from now on.
pub(super) fn made(buffer: NonNull<sys::ggml_backend_buffer>, _: usize) {
    // SAFETY: a fresh buffer that nobody else has yet.
    unsafe {
        if (*buffer.as_ptr()).buft == sys::ggml_backend_cpu_buffer_type() {
            (*buffer.as_ptr()).iface.clear = Some(clear);
        }
    }
}

unsafe extern "C" fn clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    quietly(|| {
        // SAFETY: ggml passes a buffer of plain memory, which C's heap gave it: private and anonymous.
        unsafe {
            let start = sys::ggml_backend_buffer_get_base(buffer).cast::<u8>();
            pages::fill(std::slice::from_raw_parts_mut(start, (*buffer).size), value);
        }
    });
}
