//! Weights in slots: tensors that are pointed at other memory for the length of a run, and experts that are counted as a pool does.

use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::Buffer;
use super::graph::Tensor;

/// Weights pointed at a slot for the length of a run; they are to be pointed back after it, because libllama keeps the tensors.
#[derive(Debug, Default)]
pub struct Placement {
    saved: Vec<Origin>,
    /// Products whose third operand is another for now, with the one they had.
    renumbered: Vec<(Tensor, *mut sys::ggml_tensor)>,
    /// Tensors of the model that have their address back, but not their buffer.
    lent: Vec<(Tensor, *mut sys::ggml_backend_buffer)>,
}

/// Where a tensor was.
#[derive(Debug)]
struct Origin {
    tensor: Tensor,
    data: *mut std::ffi::c_void,
    buffer: *mut sys::ggml_backend_buffer,
    /// Bytes from one element, row, matrix to the next.
    nb: [usize; 4],
    /// How many matrices.
    n: i64,
}

/// Numbers of experts as a pool counts them: a table that stands in for the router's own, which others read, too.
#[derive(Debug)]
pub struct Numbers {
    tensor: Box<sys::ggml_tensor>,
}

// SAFETY: the description has one owner, and its memory is somebody's who keeps it alive; see `Numbers::over`.
unsafe impl Send for Numbers {}

impl Numbers {
    /// A table of the shape of `like`, whose elements are those at `base`, one behind the other. It takes the place of `spare`, which
    /// no product uses any more: there is one for each block of each pass.
    ///
    /// # Safety
    ///
    /// `base` must be memory of `buffer` for as many 32-bit integers as `like` has elements, as long as the value is used.
    pub unsafe fn over(
        spare: Option<Numbers>,
        like: Tensor,
        buffer: &Buffer,
        base: NonNull<u8>,
    ) -> Numbers {
        // SAFETY: `like` is a valid tensor; a description is plain data.
        let like = unsafe { *like.0.as_ptr() };
        let mut tensor = match spare {
            Some(Numbers { mut tensor }) => {
                *tensor = like;
                tensor
            }
            None => Box::new(like),
        };
        tensor.op = sys::GGML_OP_NONE;
        tensor.src.fill(std::ptr::null_mut());
        tensor.view_src = std::ptr::null_mut();
        tensor.view_offs = 0;
        tensor.buffer = buffer.as_ptr();
        tensor.data = base.as_ptr().cast();
        let row = usize::try_from(tensor.ne[0]).unwrap_or(0) * size_of::<i32>();
        let all = row * usize::try_from(tensor.ne[1]).unwrap_or(0);
        tensor.nb = [size_of::<i32>(), row, all, all];
        Numbers { tensor }
    }

    pub(super) fn as_ptr(&self) -> *const sys::ggml_tensor {
        &raw const *self.tensor
    }
}

impl Placement {
    /// Lets the product `node` count experts by `numbers` instead of the router's.
    ///
    /// # Safety
    ///
    /// As [`Placement::place`]; `numbers` must live until the product was restored.
    pub unsafe fn renumber(&mut self, node: Tensor, numbers: &Numbers) {
        // SAFETY: by this function's contract.
        unsafe {
            let n = node.0.as_ptr();
            self.renumbered.push((node, (*n).src[2]));
            (*n).src[2] = (&raw const *numbers.tensor).cast_mut();
        }
    }

    /// As [`Placement::place`], of `n` matrices with so many bytes from one to the next.
    ///
    /// # Safety
    ///
    /// As [`Placement::place`], for each of the matrices that are used.
    pub unsafe fn place_apart(
        &mut self,
        tensor: Tensor,
        buffer: &Buffer,
        base: NonNull<u8>,
        (n, stride): (usize, u64),
    ) {
        // SAFETY: by this function's contract.
        unsafe {
            self.place(tensor, buffer, base, 0);
            let t = tensor.0.as_ptr();
            (*t).ne[2] = i64::try_from(n).unwrap_or(i64::MAX);
            (*t).nb[2] = stride as usize;
            (*t).nb[3] = stride as usize * n;
        }
    }

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
            let (data, was_in, nb, n) = ((*t).data, (*t).buffer, (*t).nb, (*t).ne[2]);
            self.saved.push(Origin { tensor, data, buffer: was_in, nb, n });
            (*t).data = base.as_ptr().wrapping_add(offset as usize).cast();
            (*t).buffer = buffer.as_ptr();
        }
    }

    /// Points every tensor back to where it was; the list's memory is kept for the next run.
    pub fn restore(&mut self) {
        self.restore_numbers();
        for Origin { tensor, data, buffer, nb, n } in self.saved.drain(..).rev() {
            let t = tensor.0.as_ptr();
            // SAFETY: valid by the contract of `place`.
            unsafe {
                (*t).data = data;
                (*t).buffer = buffer;
                (*t).nb = nb;
                (*t).ne[2] = n;
            }
        }
    }

    /// Gives every product the router's numbers back.
    fn restore_numbers(&mut self) {
        for (node, ids) in self.renumbered.drain(..).rev() {
            // SAFETY: valid by the contract of `renumber`.
            unsafe { (*node.0.as_ptr()).src[2] = ids };
        }
    }

    /// Gives every tensor its address back, but not yet its buffer: a queue that computes later than it is asked to may look at the
    /// buffers of what it was asked for until it has been waited for. Views, which are the graph's and may be gone by then,
    /// keep the slot's buffer.
    pub fn restore_addresses(&mut self) {
        self.restore_numbers();
        for Origin { tensor, data, buffer, nb, n } in self.saved.drain(..).rev() {
            let t = tensor.0.as_ptr();
            // SAFETY: valid by the contract of `place`; buffers that tensors were in are valid.
            unsafe {
                (*t).data = data;
                (*t).nb = nb;
                (*t).ne[2] = n;
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
