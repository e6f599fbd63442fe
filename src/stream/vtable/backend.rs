//! What computes on the stream device: the loop behind ggml's table of a backend, and what goes through it to the wrapped one.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use ggml_sys as sys;

use super::inner;
use crate::ggml::Graph;
use crate::ggml::guard::quietly;
use crate::stream::{Error, tables};

/// The table of a backend; what passes through to the wrapped device is there if that device has it.
pub(super) fn backend_table(wrapped: &sys::ggml_backend_i) -> sys::ggml_backend_i {
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
pub(super) static GUID: sys::ggml_guid = *b"airrun-stream-01";

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

pub(super) unsafe extern "C" fn set_n_threads(backend: sys::ggml_backend_t, n: i32) {
    // SAFETY: ggml passes a backend of a live device.
    let device = unsafe { inner((*backend).context) };
    device.watched((), || device.exec().set_n_threads(n));
}
