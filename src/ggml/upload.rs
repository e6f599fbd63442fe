//! How fast a device takes bytes from host memory, copied as weights are: from memory of its own host kind, on its own queue.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::time::{Duration, Instant};

use ggml_sys as sys;

use super::backend::{Backend, Device};
use super::gauge::Memory;
use super::result::{Error, not_null};
use super::tensors::Tensors;
use crate::units::{Bytes, MIB, Rate};

/// Host memory to copy from, and room on the device for it. (bytes)
const ROOM: Bytes = Bytes(64 * MIB.0);
/// What is copied at a time. (bytes)
const CHUNK: Bytes = Bytes(16 * MIB.0);
/// What one try copies.
const TRY: Bytes = Bytes(256 * MIB.0);
/// Tries, of which the fastest counts; and when to stop trying on a slow device.
const TRIES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(1);

/// The speed of a device's link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upload {
    /// Bytes per second to the device.
    pub rate: Rate,
    /// Whether the host memory was of the device's own kind, which it can read without help of the CPU.
    pub pinned: bool,
}

/// Copies some hundred MiB to `device`.
///
/// # Errors
///
/// Too little memory, on either side.
pub fn measure_upload(device: Device) -> Result<Upload, Error> {
    let host_type = device.host_buffer_type();
    let plain = Device::cpu()?.buffer_type();
    let wanted = host_type.unwrap_or(plain);
    // SAFETY: a valid buffer type.
    let host = unsafe { sys::ggml_backend_buft_alloc_buffer(wanted.0.as_ptr(), ROOM.usize()) };
    let host = Memory(not_null("allocating host memory", host)?);
    // SAFETY: a valid buffer. Where pinned memory is short, ggml gives ordinary one without a word.
    let given = unsafe { sys::ggml_backend_buffer_get_type(host.0.as_ptr()) };
    let pinned = host_type.is_some_and(|t| t.0.as_ptr() == given);
    let mut backend = Backend::new(device, None)?;
    let tensors = Tensors::new(1)?;
    let size = i64::try_from(ROOM.0).unwrap_or(i64::MAX);
    // SAFETY: a context with room for one tensor.
    let tensor = unsafe { sys::ggml_new_tensor_1d(tensors.as_ptr(), sys::GGML_TYPE_I8, size) };
    let tensor = not_null("measuring the link", tensor)?;
    let _memory = Memory::new(&tensors, device.buffer_type())?;
    // SAFETY: a host buffer of this size, whose pages are touched before they are measured.
    let base = unsafe {
        let base = sys::ggml_backend_buffer_get_base(host.0.as_ptr()).cast::<u8>();
        std::ptr::write_bytes(base, 1, ROOM.usize());
        not_null("measuring the link", base)?
    };
    let begin = Instant::now();
    let mut best = Duration::MAX;
    for i in 0..=TRIES {
        let start = Instant::now();
        // SAFETY: the tensor and the memory are `ROOM` large, and both live until the backend has done all of it.
        unsafe { copy(&mut backend, tensor, base) };
        // The first try wakes the link up.
        if i > 0 {
            best = best.min(start.elapsed());
        }
        if i > 0 && begin.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(Upload { rate: Rate(TRY.f64() / best.as_secs_f64().max(1e-9)), pinned })
}

/// Copies `TRY` bytes, and waits until they have arrived.
///
/// # Safety
///
/// `tensor` must have `ROOM` bytes of the backend's memory, and `base` must be the address of as many.
unsafe fn copy(backend: &mut Backend, tensor: NonNull<sys::ggml_tensor>, base: NonNull<u8>) {
    for at in (0..TRY.usize()).step_by(CHUNK.usize()) {
        let at = at % ROOM.usize();
        // SAFETY: by this function's contract; `CHUNK` divides `ROOM`.
        unsafe {
            let from = base.as_ptr().add(at).cast();
            let (to, len) = (tensor.as_ptr(), CHUNK.usize());
            sys::ggml_backend_tensor_set_async(backend.as_ptr(), to, from, at, len);
        }
    }
    backend.synchronize();
}
