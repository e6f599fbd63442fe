//! The owner of tensors' descriptions: a ggml context without data.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};

use ggml_sys as sys;

use super::result::{Error, not_null};

/// A ggml context, which owns tensors' descriptions.
#[derive(Debug)]
pub(super) struct Tensors(NonNull<sys::ggml_context>);

// SAFETY: the descriptions have one owner, this value, and nothing in them is tied to a thread.
unsafe impl Send for Tensors {}

impl Tensors {
    /// Room for the descriptions of `n` tensors and a graph.
    pub(super) fn new(n: usize) -> Result<Tensors, Error> {
        // SAFETY: plain numbers; without a buffer of ours, ggml allocates one.
        let context = unsafe {
            let size = sys::ggml_tensor_overhead() * n + sys::ggml_graph_overhead();
            let params =
                sys::ggml_init_params { mem_size: size, mem_buffer: null_mut(), no_alloc: true };
            sys::ggml_init(params)
        };
        not_null("describing tensors", context).map(Tensors)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_context {
        self.0.as_ptr()
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::ggml_free(self.0.as_ptr()) };
    }
}
