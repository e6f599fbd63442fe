//! How far a download is, for whoever draws it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::units::Bytes;

/// How far a download is. Shared with whoever draws it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that are there, of this file.
    done: AtomicU64,
    /// Bytes of this file.
    total: AtomicU64,
    /// Bytes that came over the network.
    fetched: AtomicU64,
    /// What is being done.
    step: Mutex<String>,
}

impl Progress {
    /// Bytes that are there, and all, of the file under way.
    pub fn bytes(&self) -> (Bytes, Bytes) {
        (Bytes(self.done.load(Ordering::Relaxed)), Bytes(self.total.load(Ordering::Relaxed)))
    }

    /// Bytes that came over the network so far.
    pub fn fetched(&self) -> Bytes {
        Bytes(self.fetched.load(Ordering::Relaxed))
    }

    /// What is being done.
    pub fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_step(&self, what: impl Into<String>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub(super) fn begin(&self, total: Bytes) {
        self.total.store(total.0, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    pub(super) fn set_done(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    pub(super) fn add_fetched(&self, n: u64) {
        self.fetched.fetch_add(n, Ordering::Relaxed);
    }
}
