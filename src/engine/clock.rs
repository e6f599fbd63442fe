//! What time it is to whoever must not wait for ever: the system's, or a simulator's. It measures nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// One that somebody else moves: when it began, and the microseconds since then.
    Told(Instant, Arc<AtomicU64>),
}

impl Clock {
    /// What time it is.
    pub fn now(&self) -> Instant {
        match self {
            Clock::System => Instant::now(),
            Clock::Told(begin, since) => {
                *begin + Duration::from_micros(since.load(Ordering::Relaxed))
            }
        }
    }
}
