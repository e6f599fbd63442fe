//! Events: marks in a queue of a device that another queue of it, or the host, can wait for.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use ggml_sys as sys;

use super::backend::{Backend, Device};

/// A mark that a queue passes.
#[derive(Debug)]
pub struct Event {
    ptr: NonNull<sys::ggml_backend_event>,
    recorded: bool,
}

// SAFETY: the handle may move between threads; it is used by one at a time.
unsafe impl Send for Event {}

impl Device {
    /// A new event; `None` where the device has none.
    pub fn event(self) -> Option<Event> {
        // SAFETY: a valid device; ggml answers NULL where it has no events.
        let ptr = unsafe { sys::ggml_backend_event_new(self.0.as_ptr()) };
        NonNull::new(ptr).map(|ptr| Event { ptr, recorded: false })
    }
}

impl Event {
    /// The host waits until the queue has come to where the event was last recorded; not at all if it never was.
    pub fn synchronize(&self) {
        if self.recorded {
            // SAFETY: a valid event.
            unsafe { sys::ggml_backend_event_synchronize(self.ptr.as_ptr()) };
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_backend_event_new`, and freed once.
        unsafe { sys::ggml_backend_event_free(self.ptr.as_ptr()) };
    }
}

impl Backend {
    /// Whether its queue can record events and wait for them.
    pub fn has_events(&self) -> bool {
        // SAFETY: a valid backend.
        let iface = unsafe { &(*self.as_ptr()).iface };
        iface.event_record.is_some() && iface.event_wait.is_some()
    }

    /// The queue passes `event` when all that was asked of it so far is done. The queue must have events.
    pub fn record(&mut self, event: &mut Event) {
        assert!(self.has_events(), "a queue without events");
        event.recorded = true;
        // SAFETY: a valid event and a backend that has events.
        unsafe { sys::ggml_backend_event_record(event.ptr.as_ptr(), self.as_ptr()) };
    }

    /// What is asked of the queue from now on begins after `event` has passed in its queue. The host does not wait.
    pub fn wait(&mut self, event: &Event) {
        assert!(self.has_events(), "a queue without events");
        if event.recorded {
            // SAFETY: a valid event of the same device, and a backend that has events.
            unsafe { sys::ggml_backend_event_wait(self.as_ptr(), event.ptr.as_ptr()) };
        }
    }
}
