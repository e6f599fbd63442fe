//! Weights in slots: tensors that are pointed at other memory for the length of a run.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::Buffer;
use super::graph::Tensor;

/// Weights pointed at a slot for the length of a run; they are to be pointed back after it, because libllama keeps the tensors.
#[derive(Debug, Default)]
pub struct Placement {
    saved: Vec<Origin>,
    /// Tensors of the model that have their address back, but not their buffer.
    lent: Vec<(Tensor, *mut sys::ggml_backend_buffer)>,
}

/// Where a tensor was.
#[derive(Debug)]
struct Origin {
    tensor: Tensor,
    data: *mut std::ffi::c_void,
    buffer: *mut sys::ggml_backend_buffer,
}

impl Placement {
    /// Points `tensor` at `base + offset` inside `buffer`, whose addresses need not be the host's.
    ///
    /// # Safety
    ///
    /// The tensor must be valid until it was restored, belong to the graph that is being computed by this thread, and its bytes
    /// must lie at `base + offset` in `buffer` when the computation comes to it.
    pub unsafe fn place(
        &mut self,
        tensor: Tensor,
        buffer: &Buffer,
        base: NonNull<u8>,
        offset: u64,
    ) {
        let t = tensor.0.as_ptr();
        // SAFETY: by this function's contract.
        unsafe {
            self.saved.push(Origin { tensor, data: (*t).data, buffer: (*t).buffer });
            (*t).data = base.as_ptr().wrapping_add(offset as usize).cast();
            (*t).buffer = buffer.as_ptr();
        }
    }

    /// Points every tensor back to where it was; the list's memory is kept for the next run.
    pub fn restore(&mut self) {
        for Origin { tensor, data, buffer } in self.saved.drain(..).rev() {
            let t = tensor.0.as_ptr();
            // SAFETY: valid by the contract of `place`.
            unsafe {
                (*t).data = data;
                (*t).buffer = buffer;
            }
        }
    }

    /// Gives every tensor its address back, but not yet its buffer: a queue that computes later than it is asked to may look at the
    /// buffers of what it was asked for until it has been waited for. Views, which are the graph's and may be gone by then,
    /// keep the slot's buffer.
    pub fn restore_addresses(&mut self) {
        for Origin { tensor, data, buffer } in self.saved.drain(..).rev() {
            let t = tensor.0.as_ptr();
            // SAFETY: valid by the contract of `place`; buffers that tensors were in are valid.
            unsafe {
                (*t).data = data;
                let was_lent = !buffer.is_null() && (*buffer).buft == (*(*t).buffer).buft;
                if (*t).view_src.is_null() && !was_lent {
                    self.lent.push((tensor, buffer));
                }
            }
        }
    }

    /// Gives the model's tensors their buffers back; the model must still be there.
    pub fn restore_buffers(&mut self) {
        for (tensor, buffer) in self.lent.drain(..).rev() {
            // SAFETY: valid by the contract of `place`.
            unsafe { (*tensor.0.as_ptr()).buffer = buffer };
        }
    }
}

// SAFETY: the pointers are only put back where they came from, by the thread that computes.
unsafe impl Send for Placement {}
