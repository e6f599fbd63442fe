//! What ggml's tables have in common for devices that are written in Rust: who the device is, what it says of its memory, and the boxes
//! behind pointers. The stream device (`vtable.rs`) and the tests' device (`mock.rs`) add what they are about.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use ggml_sys as sys;

use crate::os::pages::AddressRange;

/// What is behind the tables of a device: the `context` of the device and of its buffer types points to it.
pub(super) trait Behind {
    fn name(&self) -> &CStr;
    fn description(&self) -> &CStr;
    /// What the device says of its memory, free as in all. (bytes)
    fn claimed_memory(&self) -> usize;
    fn caps(&self) -> sys::ggml_backend_dev_caps;
}

/// The state behind a table.
///
/// # Safety
///
/// `context` must be that of a table of a live device whose state is a `T`.
pub(super) unsafe fn behind<'a, T>(context: *mut c_void) -> &'a T {
    // SAFETY: by this function's contract.
    unsafe { &*context.cast::<T>() }
}

// ---- device ----

/// A device that says who it is; what it can do is not there yet.
pub(super) const fn device_table<T: Behind>() -> sys::ggml_backend_device_i {
    sys::ggml_backend_device_i {
        get_name: Some(device_name::<T>),
        get_description: Some(device_description::<T>),
        get_memory: Some(device_memory::<T>),
        get_type: Some(device_type),
        get_props: Some(device_props::<T>),
        init_backend: None,
        get_buffer_type: None,
        get_host_buffer_type: None,
        buffer_from_host_ptr: None,
        supports_op: None,
        supports_buft: None,
        offload_op: None,
        event_new: None,
        event_free: None,
        event_synchronize: None,
    }
}

/// Points a device and its buffer types at each other, and all at the state behind them.
pub(super) fn connect<const N: usize>(
    dev: &mut sys::ggml_backend_device,
    kinds: [&mut sys::ggml_backend_buffer_type; N],
    context: *mut c_void,
) {
    dev.context = context;
    for kind in kinds {
        kind.device = &raw mut *dev;
        kind.context = context;
    }
}

unsafe extern "C" fn device_name<T: Behind>(dev: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: ggml passes a live device.
    unsafe { behind::<T>((*dev).context) }.name().as_ptr()
}

unsafe extern "C" fn device_description<T: Behind>(dev: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: ggml passes a live device.
    unsafe { behind::<T>((*dev).context) }.description().as_ptr()
}

unsafe extern "C" fn device_memory<T: Behind>(
    dev: sys::ggml_backend_dev_t,
    free: *mut usize,
    total: *mut usize,
) {
    // SAFETY: ggml passes a live device and two places to write to.
    unsafe {
        let claimed = behind::<T>((*dev).context).claimed_memory();
        (*free, *total) = (claimed, claimed);
    }
}

unsafe extern "C" fn device_type(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type {
    // libllama gives layers to GPUs only.
    sys::GGML_BACKEND_DEVICE_TYPE_GPU
}

unsafe extern "C" fn device_props<T: Behind>(
    dev: sys::ggml_backend_dev_t,
    props: *mut sys::ggml_backend_dev_props,
) {
    // SAFETY: ggml passes a live device and a place to write to.
    unsafe {
        let device = behind::<T>((*dev).context);
        *props = sys::ggml_backend_dev_props {
            name: device.name().as_ptr(),
            description: device.description().as_ptr(),
            memory_free: device.claimed_memory(),
            memory_total: device.claimed_memory(),
            type_: sys::GGML_BACKEND_DEVICE_TYPE_GPU,
            device_id: null(),
            caps: device.caps(),
        };
    }
}

// ---- queues ----

/// A queue that can do nothing yet.
pub(super) const NO_BACKEND: sys::ggml_backend_i = sys::ggml_backend_i {
    get_name: None,
    free: None,
    set_tensor_async: None,
    get_tensor_async: None,
    set_tensor_2d_async: None,
    get_tensor_2d_async: None,
    cpy_tensor_async: None,
    synchronize: None,
    graph_plan_create: None,
    graph_plan_free: None,
    graph_plan_update: None,
    graph_plan_compute: None,
    graph_compute: None,
    event_record: None,
    event_wait: None,
    graph_optimize: None,
};

/// A queue of a device, in a box that its table's `free` drops. `guid`, by its address, tells its kind from all others.
pub(super) fn new_backend(
    device: sys::ggml_backend_dev_t,
    iface: sys::ggml_backend_i,
    guid: &'static sys::ggml_guid,
    context: *mut c_void,
) -> sys::ggml_backend_t {
    let guid = (&raw const *guid).cast_mut();
    Box::into_raw(Box::new(sys::ggml_backend { guid, iface, device, context }))
}

// ---- buffer types ----

/// A kind of memory that is allocated by `alloc`; what it does not say is as ggml has it.
pub(super) const fn memory_kind(
    get_name: unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> *const c_char,
    alloc: unsafe extern "C" fn(
        sys::ggml_backend_buffer_type_t,
        usize,
    ) -> sys::ggml_backend_buffer_t,
    get_alignment: unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> usize,
) -> sys::ggml_backend_buffer_type_i {
    sys::ggml_backend_buffer_type_i {
        get_name: Some(get_name),
        alloc_buffer: Some(alloc),
        alloc_buffer_n: None,
        get_alignment: Some(get_alignment),
        get_max_size: None,
        get_alloc_size: None,
        get_alloc_size_n: None,
        is_host: None,
    }
}

/// A buffer type that [`connect`] has yet to tell whose it is.
pub(super) const fn buffer_type(
    iface: sys::ggml_backend_buffer_type_i,
) -> sys::ggml_backend_buffer_type {
    sys::ggml_backend_buffer_type { iface, device: null_mut(), context: null_mut() }
}

/// `is_host` of host memory.
pub(super) unsafe extern "C" fn is_host(_: sys::ggml_backend_buffer_type_t) -> bool {
    true
}

// ---- buffers that are a range of addresses ----

/// A buffer that is a range and can be freed by `free`, which has [`take_range`]; the rest of its table is not there yet.
pub(super) const fn range_table(
    free: unsafe extern "C" fn(sys::ggml_backend_buffer_t),
) -> sys::ggml_backend_buffer_i {
    sys::ggml_backend_buffer_i {
        free_buffer: Some(free),
        get_base: Some(range_base),
        init_tensor: None,
        memset_tensor: None,
        set_tensor: None,
        get_tensor: None,
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: None,
        reset: None,
    }
}

/// A buffer of `size` bytes that owns its range.
///
/// # Safety
///
/// `kind` must be a valid buffer type, and `table` made of [`range_table`].
pub(super) unsafe fn range_buffer(
    kind: sys::ggml_backend_buffer_type_t,
    table: sys::ggml_backend_buffer_i,
    range: AddressRange,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let context = Box::into_raw(Box::new(range)).cast();
    // SAFETY: by this function's contract; the table's functions expect this context.
    unsafe { sys::ggml_backend_buffer_init(kind, table, context, size) }
}

/// The range of a buffer.
///
/// # Safety
///
/// The buffer must be alive, and of [`range_buffer`].
pub(super) unsafe fn range<'a>(buffer: sys::ggml_backend_buffer_t) -> &'a AddressRange {
    // SAFETY: by this function's contract.
    unsafe { behind((*buffer).context) }
}

/// Takes the range out of a buffer that is freed.
///
/// # Safety
///
/// The buffer must be of [`range_buffer`], and is used no more.
pub(super) unsafe fn take_range(buffer: sys::ggml_backend_buffer_t) -> Box<AddressRange> {
    // SAFETY: by this function's contract.
    unsafe { Box::from_raw((*buffer).context.cast::<AddressRange>()) }
}

unsafe extern "C" fn range_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: the tables that name this are of buffers that are a range.
    unsafe { range(buffer) }.start().as_ptr()
}
