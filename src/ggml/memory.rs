//! Memory of a device that bytes are copied to, and pinned memory of the host that they are copied from.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::{Backend, Buffer, BufferType, Device};
use super::result::{Error, not_null};
use super::tensors::Tensors;
use crate::units::Bytes;

/// A stretch of a device's memory, for weights.
#[derive(Debug)]
pub struct Area {
    /// All of it as one tensor of bytes, which is how ggml wants to be told where to copy.
    bytes: NonNull<sys::ggml_tensor>,
    _tensors: Tensors,
    buffer: Buffer,
    base: NonNull<u8>,
    len: Bytes,
}

// SAFETY: the description has one owner, this value; what is in the memory is guarded by who uses it.
unsafe impl Send for Area {}
// SAFETY: a shared value gives addresses, and clears what nobody else uses; see `Area::clear`.
unsafe impl Sync for Area {}

impl Area {
    /// Allocates `len` bytes of memory of kind `kind`.
    pub fn new(kind: BufferType, len: Bytes) -> Result<Area, Error> {
        let what = "a slot";
        let (Ok(n), true) = (i64::try_from(len.0.max(1)), len <= kind.max_size()) else {
            return Err(Error::NoMemory { what });
        };
        let tensors = Tensors::new(1)?;
        let buffer = Buffer::new(kind, Bytes(n.unsigned_abs())).ok_or(Error::NoMemory { what })?;
        // SAFETY: a valid buffer of at least a byte has an address, real or not. The context has room for one tensor, which is as
        // long as the buffer.
        unsafe {
            let base = sys::ggml_backend_buffer_get_base(buffer.as_ptr());
            let bytes = sys::ggml_new_tensor_1d(tensors.as_ptr(), sys::GGML_TYPE_I8, n);
            let bytes = not_null(what, bytes)?;
            sys::ggml_backend_tensor_alloc(buffer.as_ptr(), bytes.as_ptr(), base);
            let base = not_null(what, base.cast())?;
            Ok(Area { bytes, _tensors: tensors, buffer, base, len })
        }
    }

    /// Fills it with zeros. Nobody may use the memory meanwhile.
    pub fn clear(&self) {
        // SAFETY: a valid buffer.
        unsafe { sys::ggml_backend_buffer_clear(self.buffer.as_ptr(), 0) };
    }

    /// The buffer that owns the memory.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The address of the first byte, as the device counts; not always one that the host could follow.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }
}

impl Backend {
    /// Asks the queue to copy `len` bytes of host memory at `from` to `at` in `area`. May return before it is done.
    ///
    /// # Safety
    ///
    /// The bytes must stay as they are, and the area must be used by nobody who is not ordered by this queue or an event, until the
    /// queue has done it.
    pub unsafe fn copy(&mut self, area: &Area, at: u64, from: NonNull<u8>, len: u64) {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= area.len.0), "{len} bytes at {at} of {}", area.len);
        let (at, len) = (Bytes(at).usize(), Bytes(len).usize());
        // SAFETY: inside the area by the assertion, readable by this function's contract; ggml copies at once where the device
        // has no asynchronous copies.
        unsafe {
            let (tensor, from) = (area.bytes.as_ptr(), from.as_ptr().cast());
            sys::ggml_backend_tensor_set_async(self.as_ptr(), tensor, from, at, len);
        }
    }
}

/// Host memory that a device can copy from by itself.
#[derive(Debug)]
pub struct Pinned {
    _buffer: Buffer,
    start: NonNull<u8>,
    len: Bytes,
}

// SAFETY: the memory has one owner, this value; who reads and writes it is up to who asks for its address.
unsafe impl Send for Pinned {}
// SAFETY: as above; a shared value gives the address only.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `len` bytes of whatever value, whose address is a multiple of `align`, a power of two. `None` where the device has no such
    /// memory, or no more of it: ggml then gives ordinary memory without a word, which is found out here.
    pub fn new(device: Device, len: Bytes, align: u64) -> Option<Pinned> {
        let kind = device.host_buffer_type()?;
        if len + Bytes(align) > kind.max_size() {
            return None;
        }
        let buffer = Buffer::new(kind, len + Bytes(align))?;
        // SAFETY: a valid buffer of host memory.
        let (got, base) = unsafe {
            let got = sys::ggml_backend_buffer_get_type(buffer.as_ptr());
            (got, sys::ggml_backend_buffer_get_base(buffer.as_ptr()))
        };
        if got != kind.0.as_ptr() || !kind.is_host() {
            return None;
        }
        let base = NonNull::new(base.cast::<u8>())?;
        let skip = base.as_ptr().align_offset(Bytes(align).usize());
        // SAFETY: `skip` is less than `align`, by which the buffer is longer than `len`.
        let start = unsafe { base.add(skip) };
        Some(Pinned { _buffer: buffer, start, len })
    }

    /// The address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }
}
