//! What C sees of the stream device: ggml's five tables, filled in, and the trampolines behind them. Those of its memory are in `memory`, those of what
//! computes in `backend`.
//!
//! What all devices' tables have in common is in `tables.rs`; entries that are not named here are absent. A panic in a trampoline never reaches C: entries with a status return
//! `GGML_STATUS_FAILED`, the others their neutral value; the device remembers the panic's message and computes nothing from then on.
#![allow(unsafe_code)]

mod backend;
mod memory;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ggml_sys as sys;

use self::backend::{GUID, backend_table, set_n_threads};
use self::memory::{HOST_TYPE, WEIGHTS_TYPE};
use super::exec::Exec;
use super::experts::Habit;
use super::tables::{self, Behind, behind, connect, device_table, new_backend};
use super::{Config, Error};
use crate::ggml::guard::{caught, guarded};
use crate::ggml::{BufferType, Capabilities, Device};
use crate::source::ReadError;

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
