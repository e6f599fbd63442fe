//! One second chance for a read that the system refused: a passing EIO ends in the right bytes. It works over every source;
//! the retry is started by whoever looks at the ticket, so it needs no thread. Truncated, changed and cancelled reads are final.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::{Extent, HostBuf, Ticket, WeightSource};

/// A source whose requests are repeated once, as a whole, when they end in [`crate::source::ReadError::Io`].
#[derive(Debug)]
pub struct Retrying {
    inner: Arc<dyn WeightSource>,
    /// Counts the calls of `cancel`: what was requested before one is not repeated after it.
    cancels: Arc<AtomicU64>,
}

/// What a ticket needs to repeat its request.
#[derive(Debug)]
pub(super) struct Retry {
    source: Arc<dyn WeightSource>,
    extents: Arc<[Extent]>,
    cancels: Arc<AtomicU64>,
    cancels_at_request: u64,
}

impl Retrying {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn WeightSource>) -> Retrying {
        Retrying { inner, cancels: Arc::new(AtomicU64::new(0)) }
    }
}

impl WeightSource for Retrying {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let retry = Retry {
            source: Arc::clone(&self.inner),
            extents: Arc::clone(&extents),
            cancels: Arc::clone(&self.cancels),
            cancels_at_request: self.cancels.load(Ordering::Acquire),
        };
        let mut ticket = self.inner.request(extents, buf);
        ticket.retry = Some(retry);
        ticket
    }

    fn cancel(&self) {
        self.cancels.fetch_add(1, Ordering::AcqRel);
        self.inner.cancel();
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

impl Retry {
    /// Whether the request has not been cancelled meanwhile.
    pub(super) fn is_wanted(&self) -> bool {
        self.cancels.load(Ordering::Acquire) == self.cancels_at_request
    }

    /// Requests the same again.
    pub(super) fn start(self, buf: HostBuf) -> Ticket {
        self.source.request(self.extents, buf)
    }
}
