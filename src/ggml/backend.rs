//! Devices and buffer types (handles that own nothing), and backends, buffers and thread pools (which own what they name).

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use ggml_sys as sys;

use super::graph::Graph;
use super::lease::{Held, Lease};
use super::result::{Error, check, not_null};
use super::tensors::Tensors;
use crate::units::Bytes;

/// A ggml device. Devices live as long as the program, except those that airrun makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(pub(crate) NonNull<sys::ggml_backend_device>);

// SAFETY: a device is a table of functions that ggml allows from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// A kind of buffer: where tensors of it live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferType(pub(crate) NonNull<sys::ggml_backend_buffer_type>);

// SAFETY: a buffer type is a table of functions that ggml allows from any thread.
unsafe impl Send for BufferType {}
// SAFETY: as above.
unsafe impl Sync for BufferType {}

impl Device {
    /// The CPU.
    pub fn cpu() -> Result<Device, Error> {
        super::init();
        // SAFETY: takes a constant; the registry is ready after `init`.
        let dev = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
        not_null("finding the CPU device", dev).map(Device)
    }

    /// Short name, such as `CPU`.
    pub fn name(self) -> String {
        // SAFETY: the handle is valid, and its name is a C string that lives as long as it.
        unsafe { super::owned(sys::ggml_backend_dev_name(self.0.as_ptr())) }
    }

    /// What people call it, such as the processor's model.
    pub fn description(self) -> String {
        // SAFETY: as for `name`.
        unsafe { super::owned(sys::ggml_backend_dev_description(self.0.as_ptr())) }
    }

    /// Its preferred buffer type. The first call may start the driver.
    pub fn buffer_type(self) -> BufferType {
        // ggml's Vulkan starts a device at the first question, and falls over if two threads ask it.
        static STARTING: Mutex<()> = Mutex::new(());
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle is valid; ggml asserts that every device has one.
        let buft = unsafe { sys::ggml_backend_dev_buffer_type(self.0.as_ptr()) };
        BufferType(NonNull::new(buft).expect("every ggml device has a buffer type"))
    }

    /// Host memory that it can copy from by itself, if there is such.
    pub fn host_buffer_type(self) -> Option<BufferType> {
        // SAFETY: the handle is valid; NULL is the answer of devices without.
        let buft = unsafe { sys::ggml_backend_dev_host_buffer_type(self.0.as_ptr()) };
        NonNull::new(buft).map(BufferType)
    }

    /// The types of memory in which its weights have another order than in files, for speed.
    pub fn extra_buffer_types(self) -> Vec<BufferType> {
        let mut kinds = Vec::new();
        // SAFETY: a valid device; the function has this type by its name, and its list ends with NULL.
        unsafe {
            let reg = sys::ggml_backend_dev_backend_reg(self.0.as_ptr());
            let name = c"ggml_backend_dev_get_extra_bufts";
            let entry = sys::ggml_backend_reg_get_proc_address(reg, name.as_ptr());
            if entry.is_null() {
                return kinds;
            }
            let mut at = std::mem::transmute::<*mut c_void, ExtraTypes>(entry)(self.0.as_ptr());
            while let Some(kind) = NonNull::new(at).and_then(|at| NonNull::new(*at.as_ptr())) {
                kinds.push(BufferType(kind));
                at = at.add(1);
            }
        }
        kinds
    }

    /// What it says that it can do. Some devices look up their free memory to answer.
    pub fn capabilities(self) -> Capabilities {
        // SAFETY: plain data, filled in by the call; the handle is valid.
        let caps = unsafe {
            let mut props: sys::ggml_backend_dev_props = std::mem::zeroed();
            sys::ggml_backend_dev_get_props(self.0.as_ptr(), &raw mut props);
            props.caps
        };
        Capabilities {
            asynchronous: caps.async_,
            host_buffer: caps.host_buffer,
            events: caps.events,
        }
    }
}

/// `ggml_backend_dev_get_extra_bufts_t`.
type ExtraTypes =
    unsafe extern "C" fn(*mut sys::ggml_backend_device) -> *mut *mut sys::ggml_backend_buffer_type;

/// What a device can do beyond computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Computations and copies may return before they are done.
    pub asynchronous: bool,
    /// There is host memory that it copies from by itself.
    pub host_buffer: bool,
    /// Its queues can wait for each other.
    pub events: bool,
}

impl BufferType {
    /// What an address of a tensor in it must be a multiple of (bytes).
    pub fn alignment(self) -> u64 {
        // SAFETY: the handle is valid.
        unsafe { sys::ggml_backend_buft_get_alignment(self.0.as_ptr()) as u64 }
    }

    /// The longest buffer of it.
    pub fn max_size(self) -> Bytes {
        // SAFETY: the handle is valid.
        Bytes(unsafe { sys::ggml_backend_buft_get_max_size(self.0.as_ptr()) } as u64)
    }

    /// What a tensor of ggml's type `ty` and of this shape takes in it, what its kernels read beyond the end included. `None` for a
    /// type, a row or a size that ggml does not know.
    pub fn room_for(self, ty: u32, shape: &[u64]) -> Option<Bytes> {
        if ty >= sys::GGML_TYPE_COUNT || shape.is_empty() || shape.len() > 4 {
            return None;
        }
        // SAFETY: a type that ggml knows.
        let block = unsafe { sys::ggml_blck_size(ty) }.unsigned_abs();
        if block == 0 || !shape[0].is_multiple_of(block) {
            return None;
        }
        let elements = shape.iter().try_fold(1_u64, |n, &len| n.checked_mul(len));
        let shape: Vec<i64> =
            shape.iter().map(|&n| i64::try_from(n).ok()).collect::<Option<_>>()?;
        // No type takes more than 16 bytes for an element.
        elements.filter(|&n| n < 1 << 58)?;
        let tensors = Tensors::new(1).ok()?;
        // SAFETY: a context with room for one tensor, a type and a shape that were checked.
        unsafe {
            let n_dims = i32::try_from(shape.len()).ok()?;
            let tensor = sys::ggml_new_tensor(tensors.as_ptr(), ty, n_dims, shape.as_ptr());
            let size = sys::ggml_backend_buft_get_alloc_size(self.0.as_ptr(), tensor);
            Some(Bytes(size as u64))
        }
    }

    /// Whether its memory can be read and written by the CPU.
    pub fn is_host(self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { sys::ggml_backend_buft_is_host(self.0.as_ptr()) }
    }
}

/// Threads that compute, kept for many graphs: without one, ggml creates threads for every graph.
#[derive(Debug)]
pub struct Threadpool {
    ptr: NonNull<sys::ggml_threadpool>,
    n_threads: i32,
    /// Has whoever computes with them: a pool knows one graph at a time.
    lease: Lease,
}

// SAFETY: ggml guards the pool's state by its own mutex and atomics; the lease lets one graph at a time use it.
unsafe impl Send for Threadpool {}
// SAFETY: as above.
unsafe impl Sync for Threadpool {}

impl Threadpool {
    /// `n_threads` threads, the caller of a computation among them. `poll` (0 to 100) says how long idle ones spin.
    pub fn new(n_threads: u32, poll: u32) -> Result<Threadpool, Error> {
        super::init();
        let n = i32::try_from(n_threads.clamp(1, sys::GGML_MAX_N_THREADS)).unwrap_or(1);
        // SAFETY: plain data, filled in by the next call.
        let mut params: sys::ggml_threadpool_params = unsafe { std::mem::zeroed() };
        // SAFETY: `params` is a valid place to write to, and `ggml_threadpool_new` copies what it needs of it.
        let pool = unsafe {
            sys::ggml_threadpool_params_init(&raw mut params, n);
            params.poll = poll;
            sys::ggml_threadpool_new(&raw mut params)
        };
        let ptr = not_null("starting the compute threads", pool)?;
        Ok(Threadpool { ptr, n_threads: n, lease: Lease::default() })
    }

    /// Its threads.
    pub fn n_threads(&self) -> u32 {
        self.n_threads.unsigned_abs()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.ptr.as_ptr()
    }

    /// Waits until no other thread computes with them. To be held while something is computed.
    pub(super) fn lease(&self) -> Held<'_> {
        self.lease.take()
    }
}

impl Drop for Threadpool {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_threadpool_new`, and every backend that used it holds an `Arc` that is gone by now.
        unsafe { sys::ggml_threadpool_free(self.ptr.as_ptr()) };
    }
}

/// A stream of work on a device.
#[derive(Debug)]
pub struct Backend {
    ptr: NonNull<sys::ggml_backend>,
    /// Kept alive: the backend holds a pointer to it.
    threads: Option<Arc<Threadpool>>,
}

// SAFETY: a backend may be used from any thread, by one at a time; methods that compute take `&mut self`.
unsafe impl Send for Backend {}

impl Backend {
    /// A backend of `device`. On the CPU it computes with `threads`.
    pub fn new(device: Device, threads: Option<Arc<Threadpool>>) -> Result<Backend, Error> {
        // SAFETY: the device is valid; NULL parameters are the defaults.
        let ptr = unsafe { sys::ggml_backend_dev_init(device.0.as_ptr(), std::ptr::null()) };
        let ptr = not_null("starting the backend", ptr)?;
        // SAFETY: `ptr` is a valid backend.
        let is_cpu = unsafe { sys::ggml_backend_is_cpu(ptr.as_ptr()) };
        if let (true, Some(pool)) = (is_cpu, &threads) {
            // SAFETY: a CPU backend and a live pool, which `threads` keeps alive as long as the backend.
            unsafe {
                sys::ggml_backend_cpu_set_n_threads(ptr.as_ptr(), pool.n_threads);
                sys::ggml_backend_cpu_set_threadpool(ptr.as_ptr(), pool.as_ptr());
            }
        }
        Ok(Backend { ptr, threads: threads.filter(|_| is_cpu) })
    }

    /// Computes nodes `range` of `graph`, and waits for the result.
    pub fn compute(
        &mut self,
        graph: &Graph<'_>,
        range: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let result = self.begin_compute(graph, range);
        self.synchronize();
        result
    }

    /// Asks the queue to compute nodes `range` of `graph`. May return before it is done; where the tensors are is read before.
    pub fn begin_compute(
        &mut self,
        graph: &Graph<'_>,
        range: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let mut view = graph.view(range);
        let _leased = self.lease();
        // SAFETY: the view borrows `graph`, whose nodes are valid, and the backend is ours alone during the call.
        let status =
            unsafe { sys::ggml_backend_graph_compute_async(self.ptr.as_ptr(), &raw mut view) };
        check("computing a part of the graph", status)
    }

    /// Its threads for what it computes next. The CPU is done when the call returns.
    pub(super) fn lease(&self) -> Option<Held<'_>> {
        self.threads.as_deref().map(Threadpool::lease)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ggml_backend {
        self.ptr.as_ptr()
    }

    /// Waits until everything asked of the backend is done.
    pub fn synchronize(&mut self) {
        // SAFETY: a valid backend.
        unsafe { sys::ggml_backend_synchronize(self.ptr.as_ptr()) };
    }

    /// Sets how many threads a CPU backend computes with; no effect elsewhere. At most the thread pool's.
    pub fn set_n_threads(&mut self, n: i32) {
        // SAFETY: a valid backend; the call is made on CPU backends only.
        unsafe {
            if sys::ggml_backend_is_cpu(self.ptr.as_ptr()) {
                sys::ggml_backend_cpu_set_n_threads(self.ptr.as_ptr(), n.max(1));
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_backend_dev_init` and not freed before.
        unsafe { sys::ggml_backend_free(self.ptr.as_ptr()) };
    }
}

/// A buffer of tensors.
#[derive(Debug)]
pub struct Buffer(NonNull<sys::ggml_backend_buffer>);

// SAFETY: the handle may move between threads; what is in the buffer is guarded by who uses it.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A buffer of `len` bytes for weights; `None` where there is no memory for it.
    pub(super) fn new(kind: BufferType, len: Bytes) -> Option<Buffer> {
        // SAFETY: the handle is valid; NULL is the answer where memory is short.
        let ptr = unsafe { sys::ggml_backend_buft_alloc_buffer(kind.0.as_ptr(), len.usize()) };
        let buffer = Buffer(NonNull::new(ptr)?);
        buffer.is_for_weights();
        Some(buffer)
    }

    /// A buffer over host memory that somebody else owns, for weights.
    ///
    /// # Safety
    ///
    /// `start` must be aligned to a page, and its `len` bytes must outlive the buffer and everything computed from it.
    pub unsafe fn over_host(start: NonNull<u8>, len: Bytes) -> Result<Buffer, Error> {
        // SAFETY: by this function's contract; ggml asserts an alignment of 32.
        let ptr =
            unsafe { sys::ggml_backend_cpu_buffer_from_ptr(start.as_ptr().cast(), len.usize()) };
        let buffer = Buffer(not_null("wrapping host memory", ptr)?);
        buffer.is_for_weights();
        Ok(buffer)
    }

    fn is_for_weights(&self) {
        let usage = sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
        // SAFETY: a valid buffer.
        unsafe { sys::ggml_backend_buffer_set_usage(self.0.as_ptr(), usage) };
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ggml_backend_buffer {
        self.0.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: a buffer that is ours and not freed before.
        unsafe { sys::ggml_backend_buffer_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a processor that has AMX, too, whose kernels may end the program (docs/decisions/ggml.md).
    #[test]
    fn no_weights_are_repacked_for_amx() {
        let kinds = Device::cpu().unwrap().extra_buffer_types();
        // SAFETY: valid handles, whose names are C strings that ggml keeps.
        let name = |kind: &BufferType| unsafe {
            super::super::owned(sys::ggml_backend_buft_name(kind.0.as_ptr()))
        };
        let names: Vec<String> = kinds.iter().map(name).collect();
        assert!(!names.iter().any(|name| name == "AMX"), "{names:?}");
    }
}
