//! What C sees of the stream device: ggml's five tables, filled in, and the trampolines behind them.
//!
//! What all devices' tables have in common is in `tables.rs`; entries that are not named here are absent. A panic in a trampoline never reaches C: entries with a status return
//! `GGML_STATUS_FAILED`, the others their neutral value; the device remembers the panic's message and computes nothing from then on.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ggml_sys as sys;

use super::exec::Exec;
use super::experts::Habit;
use super::tables::{self, Behind, behind, connect, device_table, memory_kind, new_backend};
use super::{Config, Error};
use crate::ggml::guard::{caught, guarded, quietly};
use crate::ggml::{BufferType, Capabilities, Device, Graph, Tensor};
use crate::os::pages::AddressRange;
use crate::source::ReadError;
use crate::units::Bytes;

/// What the device says of its memory: room for any model, because it only passes through.
const CLAIMED_MEMORY: usize = 1 << 46;

/// A stream device. ggml holds pointers into it: models that use it hold it, too.
#[derive(Debug)]
pub struct StreamDevice(Box<Inner>);

/// The tables and the state behind them; never moves.
#[derive(Debug)]
struct Inner {
    dev: sys::ggml_backend_device,
    reg: sys::ggml_backend_reg,
    weights: sys::ggml_backend_buffer_type,
    host: sys::ggml_backend_buffer_type,
    name: CString,
    description: CString,
    inner: Device,
    /// What the wrapped device can do, if its memory is its own; nothing otherwise.
    caps: Option<Capabilities>,
    exec: Mutex<Exec>,
    failure: Mutex<Failure>,
}

/// What went wrong.
#[derive(Debug, Default)]
struct Failure {
    /// Since somebody last asked. The first error is the cause.
    recent: Option<Error>,
    /// Once and for all.
    lasting: Option<Error>,
}

// SAFETY: the tables are never written after construction, and the state behind them is in mutexes.
unsafe impl Send for StreamDevice {}
// SAFETY: as above.
unsafe impl Sync for StreamDevice {}

impl StreamDevice {
    /// Allocates the slots and makes the device. Nothing is read yet.
    pub fn new(config: Config) -> Result<StreamDevice, Error> {
        let inner = config.inner;
        let description = format!("streaming to {}", inner.description());
        let mut this = Box::new(Inner {
            dev: sys::ggml_backend_device { iface: DEVICE, reg: null_mut(), context: null_mut() },
            reg: sys::ggml_backend_reg {
                api_version: sys::GGML_BACKEND_API_VERSION as i32,
                iface: REG,
                context: null_mut(),
            },
            weights: tables::buffer_type(WEIGHTS_TYPE),
            host: tables::buffer_type(HOST_TYPE),
            name: CString::new(format!("Stream:{}", inner.name())).unwrap_or_default(),
            description: CString::new(description).unwrap_or_default(),
            inner,
            caps: (!inner.buffer_type().is_host()).then(|| inner.capabilities()),
            exec: Mutex::new(Exec::new(config)?),
            failure: Mutex::default(),
        });
        let context = (&raw mut *this).cast::<c_void>();
        let parts = &mut *this;
        parts.dev.reg = &raw mut parts.reg;
        parts.reg.context = context;
        connect(&mut parts.dev, [&mut parts.weights, &mut parts.host], context);
        Ok(StreamDevice(this))
    }

    /// The device, for libllama; there as long as this is.
    pub(crate) fn device(&self) -> Device {
        Device(NonNull::from(&self.0.dev))
    }

    /// The buffer type of streamed tensors; there as long as this is.
    pub(crate) fn weights(&self) -> BufferType {
        BufferType(NonNull::from(&self.0.weights))
    }

    /// Starts reading what the first pass begins with, so that it is there when the model is loaded.
    pub fn prefetch(&self) {
        self.0.exec().prefetch();
    }

    /// How often experts are used, from what was seen of the model before. Whether any can be read ahead by [`StreamDevice::warm`].
    pub fn expect(&self, habits: &[Habit]) -> bool {
        self.0.exec().expect(habits)
    }

    /// Reads some of what is used most, while nobody computes. False when there is nothing left to do.
    pub fn warm(&self) -> bool {
        self.0.exec().warm()
    }

    /// libllama has loaded the model.
    pub fn loaded(&self) {
        self.0.exec().loaded();
    }

    /// Whether something failed that [`StreamDevice::take_error`] would tell.
    pub fn has_failed(&self) -> bool {
        self.0.has_failed()
    }

    /// Why the last computation failed, if one did since the last call, or if none can succeed any more.
    pub fn take_error(&self) -> Option<Error> {
        let mut failure = self.0.failure();
        failure.recent.take().or_else(|| failure.lasting.clone())
    }
}

impl Inner {
    fn exec(&self) -> MutexGuard<'_, Exec> {
        self.exec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something failed that nobody has asked about yet, or for good.
    fn has_failed(&self) -> bool {
        let failure = self.failure();
        failure.recent.is_some() || failure.lasting.is_some()
    }

    /// A computation failed; where nobody reads any more, all that follow do.
    fn fail(&self, error: Error) {
        let mut failure = self.failure();
        let for_good = matches!(error, Error::Read { error: ReadError::Stopped, .. });
        if for_good { &mut failure.lasting } else { &mut failure.recent }.get_or_insert(error);
    }

    /// Runs the body of a trampoline; after a panic in it, the answer is `fallback`, and the device has failed for good.
    fn watched<T>(&self, fallback: T, body: impl FnOnce() -> T) -> T {
        caught(body).unwrap_or_else(|message| {
            self.failure().lasting.get_or_insert(Error::Panicked(message));
            fallback
        })
    }
}

impl Behind for Inner {
    fn name(&self) -> &CStr {
        &self.name
    }

    fn description(&self) -> &CStr {
        &self.description
    }

    fn claimed_memory(&self) -> usize {
        CLAIMED_MEMORY
    }

    fn caps(&self) -> sys::ggml_backend_dev_caps {
        let caps = self.caps;
        sys::ggml_backend_dev_caps {
            async_: caps.is_some_and(|c| c.asynchronous),
            host_buffer: caps.is_some_and(|c| c.host_buffer),
            buffer_from_host_ptr: false,
            events: caps.is_some_and(|c| c.events),
            mmap_support: false,
        }
    }
}

/// The state behind a table.
///
/// # Safety
///
/// `context` must be that of one of the tables of a live [`StreamDevice`].
unsafe fn inner<'a>(context: *mut c_void) -> &'a Inner {
    // SAFETY: by this function's contract.
    unsafe { behind(context) }
}

// ---- buffer type: streamed weights ----

const WEIGHTS_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
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

const HOST_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
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

// ---- backend ----

/// The table of a backend; what passes through to the wrapped device is there if that device has it.
fn backend_table(wrapped: &sys::ggml_backend_i) -> sys::ggml_backend_i {
    sys::ggml_backend_i {
        get_name: Some(backend_name),
        free: Some(backend_free),
        set_tensor_async: wrapped.set_tensor_async.and(Some(backend_set_tensor_async)),
        get_tensor_async: wrapped.get_tensor_async.and(Some(backend_get_tensor_async)),
        cpy_tensor_async: wrapped.cpy_tensor_async.and(Some(backend_cpy_tensor_async)),
        synchronize: Some(backend_synchronize),
        graph_compute: Some(backend_compute),
        event_record: wrapped.event_record.and(Some(backend_event_record)),
        event_wait: wrapped.event_wait.and(Some(backend_event_wait)),
        graph_optimize: wrapped.graph_optimize.and(Some(backend_graph_optimize)),
        // Of copies by rows, ggml makes do with the plain ones.
        ..tables::NO_BACKEND
    }
}

/// Tells backends of this kind apart from all others.
static GUID: sys::ggml_guid = *b"airrun-stream-01";

unsafe extern "C" fn backend_name(backend: sys::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml passes a backend of a live device.
    unsafe { inner((*backend).context) }.name.as_ptr()
}

unsafe extern "C" fn backend_free(backend: sys::ggml_backend_t) {
    // SAFETY: the box of `device_init_backend`, freed once. The model outlives it, and may not outlive what is next.
    quietly(|| unsafe {
        inner((*backend).context).exec().synchronize();
        drop(Box::from_raw(backend));
    });
}

/// Calls an entry of the wrapped backend's table in place of `backend`.
///
/// # Safety
///
/// `backend` must be one of a live device.
unsafe fn pass_on(
    backend: sys::ggml_backend_t,
    call: impl FnOnce(sys::ggml_backend_t, &sys::ggml_backend_i),
) {
    // SAFETY: by this function's contract.
    let device = unsafe { inner((*backend).context) };
    device.watched((), || {
        // SAFETY: the wrapped backend is valid and ours alone while `exec` is locked.
        unsafe {
            let mut exec = device.exec();
            let wrapped = exec.backend().as_ptr();
            call(wrapped, &(*wrapped).iface);
        }
    });
}

unsafe extern "C" fn backend_set_tensor_async(
    backend: sys::ggml_backend_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: what ggml passes is passed on; the entry is there, or this one would not be.
    unsafe {
        pass_on(backend, |wrapped, table| {
            table.set_tensor_async.expect("an entry")(wrapped, tensor, data, offset, size);
        });
    }
}

unsafe extern "C" fn backend_get_tensor_async(
    backend: sys::ggml_backend_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as above.
    unsafe {
        pass_on(backend, |wrapped, table| {
            table.get_tensor_async.expect("an entry")(wrapped, tensor, data, offset, size);
        });
    }
}

unsafe extern "C" fn backend_cpy_tensor_async(
    from: sys::ggml_backend_t,
    to: sys::ggml_backend_t,
    src: *const sys::ggml_tensor,
    dst: *mut sys::ggml_tensor,
) -> bool {
    let mut copied = false;
    // SAFETY: as above. A source of this kind is looked through as well, unless it is another device, which would have to be locked.
    unsafe {
        let of_this_kind = std::ptr::eq((*from).guid, &raw const GUID);
        if of_this_kind && (*from).context != (*to).context {
            return false;
        }
        pass_on(to, |wrapped, table| {
            let from = if of_this_kind { wrapped } else { from };
            copied = table.cpy_tensor_async.expect("an entry")(from, wrapped, src, dst);
        });
    }
    copied
}

unsafe extern "C" fn backend_event_record(
    backend: sys::ggml_backend_t,
    event: sys::ggml_backend_event_t,
) {
    // SAFETY: as above; the event is the wrapped device's, see `device_event_new`.
    unsafe {
        pass_on(backend, |wrapped, table| table.event_record.expect("an entry")(wrapped, event));
    }
}

unsafe extern "C" fn backend_event_wait(
    backend: sys::ggml_backend_t,
    event: sys::ggml_backend_event_t,
) {
    // SAFETY: as above.
    unsafe {
        pass_on(backend, |wrapped, table| table.event_wait.expect("an entry")(wrapped, event));
    }
}

unsafe extern "C" fn backend_graph_optimize(
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
    params: *mut sys::ggml_backend_graph_optimize_params,
) {
    // SAFETY: ggml passes a backend of a live device.
    let device = unsafe { inner((*backend).context) };
    device.watched((), || {
        let Some(graph) = NonNull::new(graph) else { return };
        // SAFETY: a graph that is ours to reorder during the call. Nodes are reordered inside of runs only, so that no unit is
        // needed twice.
        unsafe {
            let mut exec = device.exec();
            let wrapped = exec.backend().as_ptr();
            let optimize = (*wrapped).iface.graph_optimize.expect("an entry");
            for run in exec.runs(&Graph::from_raw(graph)) {
                let (begin, end) = (run.nodes.start as i32, run.nodes.end as i32);
                let mut view = sys::ggml_graph_view(graph.as_ptr(), begin, end);
                optimize(wrapped, &raw mut view, params);
            }
        }
    });
}

unsafe extern "C" fn backend_synchronize(backend: sys::ggml_backend_t) {
    // SAFETY: ggml passes a backend of a live device.
    let device = unsafe { inner((*backend).context) };
    device.watched((), || device.exec().synchronize());
}

unsafe extern "C" fn backend_compute(
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: ggml passes a backend of a live device.
    let device = unsafe { inner((*backend).context) };
    device.watched(sys::GGML_STATUS_FAILED, || {
        let Some(graph) = NonNull::new(graph) else { return sys::GGML_STATUS_FAILED };
        // SAFETY: a graph that is valid and ours during the call.
        let graph = unsafe { Graph::from_raw(graph) };
        if device.has_failed() {
            return sys::GGML_STATUS_FAILED;
        }
        match device.exec().compute(&graph) {
            Ok(()) => sys::GGML_STATUS_SUCCESS,
            Err(Error::Ggml(crate::ggml::Error::Aborted)) => sys::GGML_STATUS_ABORTED,
            Err(error) => {
                device.fail(error);
                sys::GGML_STATUS_FAILED
            }
        }
    })
}

// ---- device ----

const DEVICE: sys::ggml_backend_device_i = sys::ggml_backend_device_i {
    init_backend: Some(device_init_backend),
    get_buffer_type: Some(device_buffer_type),
    get_host_buffer_type: Some(device_host_buffer_type),
    supports_op: Some(device_supports_op),
    supports_buft: Some(device_supports_buft),
    offload_op: Some(device_offload_op),
    // Events name the wrapped device, which ggml asks for the rest.
    event_new: Some(device_event_new),
    ..device_table::<Inner>()
};

unsafe extern "C" fn device_init_backend(
    dev: sys::ggml_backend_dev_t,
    _: *const c_char,
) -> sys::ggml_backend_t {
    guarded(null_mut(), || {
        // SAFETY: ggml passes a live device, whose wrapped backend is valid.
        let (context, iface) = unsafe {
            let context = (*dev).context;
            let wrapped = inner(context).exec().backend().as_ptr();
            (context, backend_table(&(*wrapped).iface))
        };
        new_backend(dev, iface, &GUID, context)
    })
}

unsafe extern "C" fn device_buffer_type(
    dev: sys::ggml_backend_dev_t,
) -> sys::ggml_backend_buffer_type_t {
    // What does not stream (KV cache, activations) is in ordinary memory of the wrapped device.
    guarded(null_mut(), || {
        // SAFETY: ggml passes a live device.
        let device = unsafe { inner((*dev).context) };
        let wrapped = device.inner.buffer_type();
        if wrapped.is_host() { (&raw const device.host).cast_mut() } else { wrapped.0.as_ptr() }
    })
}

unsafe extern "C" fn device_host_buffer_type(
    dev: sys::ggml_backend_dev_t,
) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: ggml passes a live device.
    let device = unsafe { inner((*dev).context) };
    // What computes in host memory needs no memory to copy from.
    let wrapped = device.caps.and_then(|_| device.inner.host_buffer_type());
    wrapped.map_or(null_mut(), |w| w.0.as_ptr())
}

unsafe extern "C" fn device_offload_op(
    dev: sys::ggml_backend_dev_t,
    op: *const sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes a live device and a valid tensor.
    unsafe { sys::ggml_backend_dev_offload_op(inner((*dev).context).inner.0.as_ptr(), op) }
}

unsafe extern "C" fn device_event_new(dev: sys::ggml_backend_dev_t) -> sys::ggml_backend_event_t {
    // SAFETY: ggml passes a live device.
    unsafe { sys::ggml_backend_event_new(inner((*dev).context).inner.0.as_ptr()) }
}

unsafe extern "C" fn device_supports_op(
    dev: sys::ggml_backend_dev_t,
    op: *const sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes a live device and a valid tensor.
    unsafe { sys::ggml_backend_dev_supports_op(inner((*dev).context).inner.0.as_ptr(), op) }
}

unsafe extern "C" fn device_supports_buft(
    dev: sys::ggml_backend_dev_t,
    buft: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes a live device and a valid buffer type.
    unsafe {
        let device = inner((*dev).context);
        std::ptr::eq(buft, &raw const device.weights)
            || sys::ggml_backend_dev_supports_buft(device.inner.0.as_ptr(), buft)
    }
}

// ---- registry entry ----

const REG: sys::ggml_backend_reg_i = sys::ggml_backend_reg_i {
    get_name: Some(reg_name),
    get_device_count: Some(reg_device_count),
    get_device: Some(reg_device),
    get_proc_address: Some(reg_proc_address),
};

unsafe extern "C" fn reg_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    c"Stream".as_ptr()
}

unsafe extern "C" fn reg_device_count(_: sys::ggml_backend_reg_t) -> usize {
    1
}

unsafe extern "C" fn reg_device(reg: sys::ggml_backend_reg_t, _: usize) -> sys::ggml_backend_dev_t {
    // SAFETY: ggml passes the entry of a live device.
    (&raw const unsafe { inner((*reg).context) }.dev).cast_mut()
}

unsafe extern "C" fn reg_proc_address(
    _: sys::ggml_backend_reg_t,
    name: *const c_char,
) -> *mut c_void {
    // SAFETY: ggml passes a C string.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"ggml_backend_set_n_threads" => set_n_threads as *mut c_void,
        _ => null_mut(),
    }
}

unsafe extern "C" fn set_n_threads(backend: sys::ggml_backend_t, n: i32) {
    // SAFETY: ggml passes a backend of a live device.
    let device = unsafe { inner((*backend).context) };
    device.watched((), || device.exec().set_n_threads(n));
}
