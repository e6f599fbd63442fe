//! The stream device's two kinds of memory: addresses of streamed weights, and host memory that costs nothing until it is touched.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;

use ggml_sys as sys;

use super::inner;
use crate::ggml::Tensor;
use crate::ggml::guard::{guarded, quietly};
use crate::os::pages::AddressRange;
use crate::stream::Error;
use crate::stream::tables::{self, memory_kind};
use crate::units::Bytes;

// ---- buffer type: streamed weights ----

pub(super) const WEIGHTS_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
    get_alloc_size: Some(weights_type_alloc_size),
    ..memory_kind(weights_type_name, weights_type_alloc, weights_type_alignment)
};

unsafe extern "C" fn weights_type_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"Stream".as_ptr()
}

unsafe extern "C" fn weights_type_alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    guarded(null_mut(), || {
        let Ok(range) = AddressRange::reserve(Bytes::from(size)) else { return null_mut() };
        // SAFETY: ggml passes a valid buffer type.
        unsafe { tables::range_buffer(buft, WEIGHTS, range, size) }
    })
}

unsafe extern "C" fn weights_type_alignment(buft: sys::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: ggml passes the table of a live device.
    guarded(1, || unsafe { inner((*buft).context) }.inner.buffer_type().alignment() as usize)
}

unsafe extern "C" fn weights_type_alloc_size(
    buft: sys::ggml_backend_buffer_type_t,
    tensor: *const sys::ggml_tensor,
) -> usize {
    // SAFETY: ggml passes the table of a live device and a valid tensor.
    guarded(0, || unsafe {
        let wrapped = inner((*buft).context).inner.buffer_type();
        sys::ggml_backend_buft_get_alloc_size(wrapped.0.as_ptr(), tensor)
    })
}

// ---- buffer: addresses of streamed weights ----

const WEIGHTS: sys::ggml_backend_buffer_i = sys::ggml_backend_buffer_i {
    init_tensor: Some(weights_init_tensor),
    memset_tensor: Some(weights_memset_tensor),
    set_tensor: Some(weights_set_tensor),
    get_tensor: Some(weights_get_tensor),
    clear: Some(weights_clear),
    ..tables::range_table(weights_free)
};

unsafe extern "C" fn weights_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: a buffer of `weights_type_alloc`, which ggml frees once.
    quietly(|| drop(unsafe { tables::take_range(buffer) }));
}

unsafe extern "C" fn weights_init_tensor(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
) -> sys::ggml_status {
    // SAFETY: ggml passes a buffer of this type.
    let device = unsafe { inner((*(*buffer).buft).context) };
    device.watched(sys::GGML_STATUS_FAILED, || {
        // SAFETY: a tensor that lives as long as the model.
        let known = unsafe {
            Tensor::from_raw(tensor).is_some_and(|t| t.root().0 != t || device.exec().register(t))
        };
        if known { sys::GGML_STATUS_SUCCESS } else { sys::GGML_STATUS_FAILED }
    })
}

unsafe extern "C" fn weights_memset_tensor(
    _: sys::ggml_backend_buffer_t,
    _: *mut sys::ggml_tensor,
    _: u8,
    _: usize,
    _: usize,
) {
    // The bytes come from the file, whatever anyone writes.
}

unsafe extern "C" fn weights_set_tensor(
    _: sys::ggml_backend_buffer_t,
    _: *mut sys::ggml_tensor,
    _: *const c_void,
    _: usize,
    _: usize,
) {
    // The bytes come from the file, whatever anyone writes.
}

unsafe extern "C" fn weights_get_tensor(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    out: *mut c_void,
    offset: usize,
    len: usize,
) {
    // SAFETY: ggml passes a buffer of this type.
    let device = unsafe { inner((*(*buffer).buft).context) };
    device.watched((), || {
        // SAFETY: ggml passes a valid tensor, and `len` bytes to write to, which have a value from here on.
        unsafe {
            std::ptr::write_bytes(out.cast::<u8>(), 0, len);
            let out = std::slice::from_raw_parts_mut(out.cast::<u8>(), len);
            let Some(tensor) = Tensor::from_raw(tensor.cast_mut()) else { return };
            let read = device.exec().read(tensor, offset as u64, out);
            match read {
                // Who asked to stop is heard by the next run, too.
                Ok(()) | Err(Error::Ggml(crate::ggml::Error::Aborted)) => {}
                // What is computed with these bytes is worth nothing: the next run fails.
                Err(error) => device.fail(error),
            }
        }
    });
}

unsafe extern "C" fn weights_clear(_: sys::ggml_backend_buffer_t, _: u8) {}

// ---- buffer type and buffer: host memory that costs nothing until it is touched ----
//
// libllama clears a new KV cache by writing zeros to all of it, so that a long context would cost its whole size from the
// first token on. Fresh mappings are zero already: clearing them is free, and pages come with the tokens that fill them.

pub(super) const HOST_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
    get_alloc_size: Some(weights_type_alloc_size),
    is_host: Some(tables::is_host),
    ..memory_kind(host_type_name, host_type_alloc, weights_type_alignment)
};

unsafe extern "C" fn host_type_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"Stream_Host".as_ptr()
}

unsafe extern "C" fn host_type_alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    guarded(null_mut(), || {
        let Ok(range) = AddressRange::allocate(Bytes::from(size)) else { return null_mut() };
        // SAFETY: page-aligned memory of this size. ggml's CPU buffer brings the functions that read and write it; only
        // freeing and clearing are ours. The range is freed by `host_free`, from the same address and size.
        unsafe {
            let buffer = sys::ggml_backend_cpu_buffer_from_ptr(range.start().as_ptr(), size);
            if !buffer.is_null() {
                range.leak();
                (*buffer).buft = buft;
                (*buffer).iface.free_buffer = Some(host_free);
                (*buffer).iface.clear = Some(host_clear);
            }
            buffer
        }
    })
}

unsafe extern "C" fn host_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: address and size are those of the range that `host_type_alloc` leaked, and ggml frees a buffer once.
    quietly(|| drop(unsafe { host_range(buffer) }));
}

unsafe extern "C" fn host_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    quietly(|| {
        // SAFETY: the range is alive, and leaked again below.
        let range = unsafe { host_range(buffer) };
        range.fill(value);
        range.leak();
    });
}

/// The memory of a buffer that `host_type_alloc` made.
///
/// # Safety
///
/// The buffer must be one of those, and the range must be leaked again if the buffer lives on.
unsafe fn host_range(buffer: sys::ggml_backend_buffer_t) -> AddressRange {
    // SAFETY: a CPU buffer's context is its memory.
    unsafe { AddressRange::from_raw((*buffer).context, (*buffer).size) }
}
