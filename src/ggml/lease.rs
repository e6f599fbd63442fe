//! A lock for what one thread at a time may use, and may ask for again while it does: what libllama computes calls devices that compute
//! with the same threads.

use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// The lock.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Who has it, and how often.
    holder: Mutex<Option<(ThreadId, usize)>>,
    free: Condvar,
}

/// It is held until this is dropped, by the same thread.
#[derive(Debug)]
pub(super) struct Held<'a> {
    lease: &'a Lease,
    _stays: PhantomData<*const ()>,
}

impl Lease {
    /// Waits until no other thread has it.
    pub(super) fn take(&self) -> Held<'_> {
        let me = thread::current().id();
        let is_others = |holder: &mut Option<(ThreadId, usize)>| holder.is_some_and(|h| h.0 != me);
        let holder = self.free.wait_while(self.lock(), is_others);
        let mut holder = holder.unwrap_or_else(PoisonError::into_inner);
        holder.get_or_insert((me, 0)).1 += 1;
        Held { lease: self, _stays: PhantomData }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(ThreadId, usize)>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut holder = self.lease.lock();
        *holder = holder.map(|(who, n)| (who, n.saturating_sub(1))).filter(|&(_, n)| n > 0);
        if holder.is_none() {
            self.lease.free.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_thread_at_a_time_as_often_as_it_likes() {
        let (lease, inside, rounds) = (Lease::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _outer = lease.take();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        drop(lease.take());
                        // The inner one did not let others in.
                        thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(rounds.into_inner(), 4000);
        assert_eq!(*lease.lock(), None);
    }
}
