//! A ggml device for tests that behaves like a GPU: memory that is not the host's, queues that do later what they are asked for,
//! events between them. It computes on the CPU, and a referee watches it. What is wrong with it can be chosen.
#![allow(unsafe_code)]

mod queue;
mod referee;
mod sim;
mod tests;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ggml_sys as sys;

use self::queue::{Passed, Queue, Snapshot, Task, lock};
use self::referee::{Access, HOST, Mark, Referee};
use super::tables::{self, Behind, behind, connect, device_table, memory_kind, new_backend};
use crate::ggml::Device;
use crate::os::pages::AddressRange;
use crate::units::Bytes;

/// What kind of device to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    /// Threads with delays that follow from this number; without it, everything is done when it is asked for.
    pub(super) seed: Option<u64>,
    /// Whether there are events.
    pub(super) events: bool,
    /// Whether copies can be asked for.
    pub(super) copies: bool,
    /// Whether host memory is pinned, or only said to be.
    pub(super) pinned: bool,
    /// The queue that does not wait when it is told to.
    pub(super) deaf: Option<usize>,
    /// Seconds for a byte to be copied, and for a product to be computed.
    pub(super) costs: (f64, f64),
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            seed: None,
            events: true,
            copies: true,
            pinned: true,
            deaf: None,
            costs: (0.0, 0.0),
        }
    }
}

/// The device. ggml holds pointers into it.
#[derive(Debug)]
pub(super) struct Mock(Box<Inner>);

#[derive(Debug)]
struct Inner {
    dev: sys::ggml_backend_device,
    memory: sys::ggml_backend_buffer_type,
    host: sys::ggml_backend_buffer_type,
    behaviour: Behaviour,
    referee: Arc<Mutex<Referee>>,
    n_queues: AtomicUsize,
    /// The most recordings of one event that the host did not know to have passed when it was recorded again.
    ahead: AtomicU64,
    /// The most that was asked of a queue between two times that the host waited for all of it.
    backlog: AtomicU64,
}

/// An event: what it stands for to the referee, and to the threads.
#[derive(Debug, Default)]
struct Event {
    mark: Mark,
    passed: Arc<Passed>,
    number: u64,
    /// Up to which recording the host has waited for it.
    known: AtomicU64,
}

impl Mock {
    pub(super) fn new(behaviour: Behaviour) -> Mock {
        let mut this = Box::new(Inner {
            dev: sys::ggml_backend_device { iface: DEVICE, reg: null_mut(), context: null_mut() },
            memory: tables::buffer_type(MEMORY_TYPE),
            host: tables::buffer_type(HOST_TYPE),
            behaviour,
            referee: Arc::default(),
            n_queues: AtomicUsize::new(0),
            ahead: AtomicU64::new(0),
            backlog: AtomicU64::new(0),
        });
        if !behaviour.events {
            this.dev.iface.event_new = None;
        }
        let context = (&raw mut *this).cast::<c_void>();
        let parts = &mut *this;
        connect(&mut parts.dev, [&mut parts.memory, &mut parts.host], context);
        Mock(this)
    }

    pub(super) fn device(&self) -> Device {
        Device(NonNull::from(&self.0.dev))
    }

    /// What was found wrong so far.
    pub(super) fn reports(&self) -> Vec<String> {
        lock(&self.0.referee).reports.clone()
    }

    /// How many recordings of one event there were at most that the host had not waited for.
    pub(super) fn ahead(&self) -> u64 {
        self.0.ahead.load(Ordering::Relaxed)
    }

    /// How many things a queue was asked for at most before the host waited for all of them.
    pub(super) fn backlog(&self) -> u64 {
        self.0.backlog.load(Ordering::Relaxed)
    }

    /// The time on the host's calendar. (seconds)
    pub(super) fn now(&self) -> f64 {
        lock(&self.0.referee).times[HOST]
    }

    /// Who is to be told what the host writes to its own memory.
    fn referee(&self) -> Arc<Mutex<Referee>> {
        self.0.referee.clone()
    }
}

impl Behind for Inner {
    fn name(&self) -> &CStr {
        c"Mock"
    }

    fn description(&self) -> &CStr {
        self.name()
    }

    fn claimed_memory(&self) -> usize {
        1 << 30
    }

    fn caps(&self) -> sys::ggml_backend_dev_caps {
        sys::ggml_backend_dev_caps {
            async_: self.behaviour.copies,
            host_buffer: true,
            buffer_from_host_ptr: false,
            events: self.behaviour.events,
            mmap_support: false,
        }
    }
}

/// The state behind a device or buffer type.
///
/// # Safety
///
/// `context` must be that of a table of a live [`Mock`].
unsafe fn inner<'a>(context: *mut c_void) -> &'a Inner {
    // SAFETY: by this function's contract.
    unsafe { behind(context) }
}

/// A queue and its device.
///
/// # Safety
///
/// `backend` must be one that `device_init_backend` made, and used by one thread at a time.
unsafe fn queue<'a>(backend: sys::ggml_backend_t) -> (&'a mut Queue, &'a Inner) {
    // SAFETY: by this function's contract.
    unsafe { (&mut *(*backend).context.cast::<Queue>(), inner((*(*backend).device).context)) }
}

// ---- buffer types ----

/// What kernels read behind a tensor of quantised rows. (bytes)
const PADDING: usize = 48;

const MEMORY_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
    get_alloc_size: Some(alloc_size),
    ..memory_kind(name, memory_alloc, alignment)
};

const HOST_TYPE: sys::ggml_backend_buffer_type_i = sys::ggml_backend_buffer_type_i {
    is_host: Some(tables::is_host),
    ..memory_kind(host_name, host_alloc, alignment)
};

unsafe extern "C" fn name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"Mock".as_ptr()
}

unsafe extern "C" fn host_name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"Mock_Host".as_ptr()
}

unsafe extern "C" fn alignment(_: sys::ggml_backend_buffer_type_t) -> usize {
    128
}

unsafe extern "C" fn alloc_size(
    _: sys::ggml_backend_buffer_type_t,
    tensor: *const sys::ggml_tensor,
) -> usize {
    // SAFETY: ggml passes a valid tensor.
    unsafe {
        let padded = sys::ggml_is_quantized((*tensor).type_);
        sys::ggml_nbytes(tensor) + if padded { PADDING } else { 0 }
    }
}

unsafe extern "C" fn memory_alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let range = AddressRange::allocate(Bytes::from(size)).unwrap();
    // Whoever relies on what nobody wrote is to be found out.
    range.fill(0xA5);
    // SAFETY: ggml passes a valid buffer type.
    unsafe { tables::range_buffer(buft, MEMORY, range, size) }
}

unsafe extern "C" fn host_alloc(
    buft: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: the CPU's buffers are like any other; only their kind says what they are for.
    unsafe {
        let cpu = sys::ggml_backend_cpu_buffer_type();
        let buffer = sys::ggml_backend_buft_alloc_buffer(cpu, size);
        if inner((*buft).context).behaviour.pinned {
            (*buffer).buft = buft;
        }
        buffer
    }
}

// ---- buffer ----

const MEMORY: sys::ggml_backend_buffer_i = sys::ggml_backend_buffer_i {
    set_tensor: Some(memory_set),
    get_tensor: Some(memory_get),
    clear: Some(memory_clear),
    ..tables::range_table(memory_free)
};

unsafe extern "C" fn memory_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: a buffer of a live device, of `memory_alloc`, freed once.
    let (device, len, range) = unsafe {
        let device = inner((*(*buffer).buft).context);
        let len = sys::ggml_backend_buffer_get_size(buffer);
        (device, len, tables::take_range(buffer))
    };
    let start = range.start().as_ptr() as usize;
    let bytes = start..start + len;
    // To whoever still uses it, this is as bad as a write.
    lock(&device.referee).step(HOST, 0.0, &[Access { bytes, write: true }]);
}

unsafe extern "C" fn memory_set(
    _: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml has checked that it is inside the tensor, which is in a buffer of a live device.
    unsafe {
        let device = inner((*(*(*tensor).buffer).buft).context);
        let to = (*tensor).data as usize + offset;
        lock(&device.referee).step(HOST, 0.0, &[Access { bytes: to..to + size, write: true }]);
        std::ptr::copy(data.cast::<u8>(), to as *mut u8, size);
    }
}

unsafe extern "C" fn memory_get(
    _: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as above.
    unsafe { std::ptr::copy((*tensor).data.cast::<u8>().add(offset), data.cast::<u8>(), size) };
}

unsafe extern "C" fn memory_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: a buffer of a live device, with the box of `memory_alloc`.
    let (device, start, len) = unsafe {
        let start = (*(*buffer).context.cast::<AddressRange>()).start().as_ptr() as usize;
        (inner((*(*buffer).buft).context), start, sys::ggml_backend_buffer_get_size(buffer))
    };
    let bytes = start..start + len;
    lock(&device.referee).step(HOST, 0.0, &[Access { bytes, write: true }]);
    // SAFETY: a buffer of `memory_alloc`.
    unsafe { tables::range(buffer) }.fill(value);
}

// ---- backend ----

const BACKEND: sys::ggml_backend_i = sys::ggml_backend_i {
    get_name: Some(backend_name),
    free: Some(backend_free),
    set_tensor_async: Some(backend_copy),
    synchronize: Some(backend_synchronize),
    graph_compute: Some(backend_compute),
    event_record: Some(backend_record),
    event_wait: Some(backend_wait),
    ..tables::NO_BACKEND
};

static GUID: sys::ggml_guid = *b"airrun-mock-0001";

unsafe extern "C" fn backend_name(_: sys::ggml_backend_t) -> *const c_char {
    c"Mock".as_ptr()
}

unsafe extern "C" fn backend_free(backend: sys::ggml_backend_t) {
    // SAFETY: a queue of a live device, with the boxes of `device_init_backend`, freed once.
    unsafe {
        let device = inner((*(*backend).device).context);
        let queue = Box::from_raw((*backend).context.cast::<Queue>());
        lock(&device.referee).close(queue.actor);
        drop(queue);
        drop(Box::from_raw(backend));
    }
}

unsafe extern "C" fn backend_copy(
    backend: sys::ggml_backend_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml passes a queue of a live device, and has checked that it is inside the tensor.
    let (queue, device) = unsafe { queue(backend) };
    // SAFETY: as above.
    let (to, from) = (unsafe { (*tensor).data } as usize + offset, data as usize);
    let touched = [
        Access { bytes: to..to + size, write: true },
        Access { bytes: from..from + size, write: false },
    ];
    #[expect(clippy::cast_precision_loss, reason = "tests copy less than 2^53 bytes")]
    let seconds = device.behaviour.costs.0 * size as f64;
    lock(&device.referee).step(queue.actor, seconds, &touched);
    queue.ask(Task::Copy { to, from, len: size });
}

unsafe extern "C" fn backend_synchronize(backend: sys::ggml_backend_t) {
    // SAFETY: ggml passes a queue of a live device.
    let (queue, device) = unsafe { queue(backend) };
    device.backlog.fetch_max(queue.finish(), Ordering::Relaxed);
    let mut referee = lock(&device.referee);
    let mark = referee.mark(queue.actor);
    referee.wait(HOST, mark);
}

unsafe extern "C" fn backend_compute(
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: ggml passes a queue of a live device, and a graph that is valid during the call.
    let ((queue, device), snapshot) = unsafe { (queue(backend), Snapshot::new(graph)) };
    let products = u32::try_from(snapshot.products()).unwrap();
    let seconds = device.behaviour.costs.1 * f64::from(products);
    lock(&device.referee).step(queue.actor, seconds, &snapshot.touched);
    queue.ask(Task::Compute(snapshot));
    sys::GGML_STATUS_SUCCESS
}

unsafe extern "C" fn backend_record(
    backend: sys::ggml_backend_t,
    event: sys::ggml_backend_event_t,
) {
    // SAFETY: ggml passes a queue of a live device, and an event that it made.
    let ((queue, device), event) =
        unsafe { (queue(backend), &mut *(*event).context.cast::<Event>()) };
    let unknown = event.number - event.known.load(Ordering::Relaxed);
    device.ahead.fetch_max(unknown, Ordering::Relaxed);
    event.mark = lock(&device.referee).mark(queue.actor);
    event.number += 1;
    queue.ask(Task::Pass(event.passed.clone(), event.number));
}

unsafe extern "C" fn backend_wait(backend: sys::ggml_backend_t, event: sys::ggml_backend_event_t) {
    // SAFETY: as above.
    let ((queue, device), event) =
        unsafe { (queue(backend), &mut *(*event).context.cast::<Event>()) };
    if device.behaviour.deaf != Some(queue.actor) {
        lock(&device.referee).wait(queue.actor, event.mark);
        queue.ask(Task::WaitFor(event.passed.clone(), event.number));
    }
}

// ---- device ----

const DEVICE: sys::ggml_backend_device_i = sys::ggml_backend_device_i {
    init_backend: Some(device_init_backend),
    get_buffer_type: Some(device_buffer_type),
    get_host_buffer_type: Some(device_host_type),
    supports_op: Some(device_supports_op),
    supports_buft: Some(device_supports_buft),
    event_new: Some(device_event_new),
    event_free: Some(device_event_free),
    event_synchronize: Some(device_event_synchronize),
    ..device_table::<Inner>()
};

unsafe extern "C" fn device_init_backend(
    dev: sys::ggml_backend_dev_t,
    _: *const c_char,
) -> sys::ggml_backend_t {
    // SAFETY: ggml passes a live device.
    let device = unsafe { inner((*dev).context) };
    let actor = HOST + 1 + device.n_queues.fetch_add(1, Ordering::Relaxed);
    let queue = Queue::new(actor, device.referee.clone(), device.behaviour.seed);
    let mut iface = BACKEND;
    if !device.behaviour.copies {
        iface.set_tensor_async = None;
    }
    if !device.behaviour.events {
        (iface.event_record, iface.event_wait) = (None, None);
    }
    new_backend(dev, iface, &GUID, Box::into_raw(Box::new(queue)).cast())
}

unsafe extern "C" fn device_buffer_type(
    dev: sys::ggml_backend_dev_t,
) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: ggml passes a live device.
    (&raw const unsafe { inner((*dev).context) }.memory).cast_mut()
}

unsafe extern "C" fn device_host_type(
    dev: sys::ggml_backend_dev_t,
) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: ggml passes a live device.
    (&raw const unsafe { inner((*dev).context) }.host).cast_mut()
}

unsafe extern "C" fn device_supports_op(
    _: sys::ggml_backend_dev_t,
    _: *const sys::ggml_tensor,
) -> bool {
    true
}

unsafe extern "C" fn device_supports_buft(
    dev: sys::ggml_backend_dev_t,
    buft: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes a live device.
    std::ptr::eq(buft, unsafe { &raw const inner((*dev).context).memory })
}

unsafe extern "C" fn device_event_new(dev: sys::ggml_backend_dev_t) -> sys::ggml_backend_event_t {
    let context = Box::into_raw(Box::new(Event::default())).cast();
    Box::into_raw(Box::new(sys::ggml_backend_event { device: dev, context }))
}

unsafe extern "C" fn device_event_free(
    _: sys::ggml_backend_dev_t,
    event: sys::ggml_backend_event_t,
) {
    // SAFETY: the boxes of `device_event_new`, freed once.
    unsafe {
        drop(Box::from_raw((*event).context.cast::<Event>()));
        drop(Box::from_raw(event));
    }
}

unsafe extern "C" fn device_event_synchronize(
    dev: sys::ggml_backend_dev_t,
    event: sys::ggml_backend_event_t,
) {
    // SAFETY: ggml passes a live device and an event that it made.
    let (device, event) = unsafe { (inner((*dev).context), &*(*event).context.cast::<Event>()) };
    event.passed.wait_for(event.number);
    event.known.store(event.number, Ordering::Relaxed);
    lock(&device.referee).wait(HOST, event.mark);
}
