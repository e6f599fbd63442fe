//! The program's heap: how much of it a single thread may take, and giving back what is free. What ggml and libllama allocate does not
//! pass here.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The system's heap, which counts what threads with an [`Account`] take.
struct Counted;

#[global_allocator]
static HEAP: Counted = Counted;

thread_local! {
    /// The account of this thread, while it has one.
    static MINE: Cell<*const Account> = const { Cell::new(ptr::null()) };
}

/// What a thread may take.
#[derive(Debug)]
pub struct Account {
    most: usize,
    /// Bytes now. What the thread frees for others is no credit.
    used: AtomicUsize,
    /// How often it took some.
    times: AtomicUsize,
    is_over: AtomicBool,
}

impl Account {
    /// One for `most` bytes.
    pub fn new(most: usize) -> Arc<Account> {
        let [used, times] = [const { AtomicUsize::new(0) }; 2];
        Arc::new(Account { most, used, times, is_over: AtomicBool::new(false) })
    }

    /// Does `work` on this account. A thread that wants more than it may have, or that was stopped, never comes back: it sleeps
    /// where it wanted memory, for a thread cannot be ended from outside. So `work` must hold nothing that others wait for.
    pub fn pay<T>(self: &Arc<Account>, work: impl FnOnce() -> T) -> T {
        struct Own(*const Account);
        impl Drop for Own {
            fn drop(&mut self) {
                MINE.set(self.0);
            }
        }
        let _own = Own(MINE.replace(Arc::as_ptr(self)));
        work()
    }

    /// Lets the thread sleep for ever when it wants memory next.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it wanted more than it may have, or was stopped.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// How often it took memory, however much.
    pub fn times(&self) -> usize {
        self.times.load(Ordering::Relaxed)
    }

    fn charge(&self, bytes: usize) {
        self.times.fetch_add(1, Ordering::Relaxed);
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.most || self.is_over() {
            self.stop();
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    }

    fn refund(&self, bytes: usize) {
        let less = |used: usize| Some(used.saturating_sub(bytes));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Tells the thread's account, if there is one.
fn tell(what: impl FnOnce(&Account)) {
    // A thread that is about to end has no account any more.
    let mine = MINE.try_with(Cell::get).unwrap_or(ptr::null());
    // SAFETY: null, or an account that `pay` holds until it has put back what was here before.
    if let Some(account) = unsafe { mine.as_ref() } {
        what(account);
    }
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        tell(|account| account.charge(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        tell(|account| account.charge(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        tell(|account| account.refund(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // For a moment, both may be there.
        tell(|account| account.charge(new_size));
        // SAFETY: as the caller promises.
        let moved = unsafe { System.realloc(at, layout, new_size) };
        let gone = if moved.is_null() { new_size } else { layout.size() };
        tell(|account| account.refund(gone));
        moved
    }
}

/// Whether the system would grant so much at once: where it would not, taking it piece by piece ends the program.
pub fn has_room(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// Makes the system's allocator keep little that is free, whatever many threads do for however long. To be called before there are
/// threads.
pub fn keep_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Heaps that threads share. There would be one for each thread, up to eight for a core, and each keeps what it grew to.
        const ARENAS: i32 = 4;
        /// What is this long is memory of its own, which the system has back as soon as it is free. Left alone, the allocator raises
        /// this to 32 MiB with what is freed, and bodies of requests leave holes in every heap. (bytes)
        const OWN: i32 = 4 << 20;
        for (what, value) in [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, OWN)] {
            // SAFETY: takes no pointers. Where it is refused, memory is only kept for longer.
            unsafe { libc::mallopt(what, value) };
        }
    }
}

/// Gives memory that is free back to the system. Takes some milliseconds where much is.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointers, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    use super::*;

    /// What comes of `work`, which may take a megabyte at a time, if anything does.
    fn paid<T: Send + 'static>(
        account: &Arc<Account>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = channel();
        let payer = account.clone();
        thread::spawn(move || sender.send(payer.pay(work)));
        loop {
            match result.recv_timeout(Duration::from_millis(1)) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) if account.is_over() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the thread has gone"),
            }
        }
    }

    #[test]
    fn threads_take_what_they_may() {
        let account = Account::new(1 << 20);
        let many = || (0..1000).map(|i| vec![0_u8; 100_000 + i].len()).sum::<usize>();
        assert!(paid(&account, many).is_some() && !account.is_over());
        // Others' memory is not this thread's.
        let others = vec![0_u8; 8 << 20];
        assert_eq!(paid(&account, move || drop(others)), Some(()));
        assert_eq!(paid(&account, || vec![0_u8; 2 << 20].len()), None);
        let grows = || {
            let mut all = Vec::new();
            (0..100_000_u64).for_each(|i| all.push(i));
            all.len()
        };
        assert_eq!(paid(&Account::new(100_000), grows), None);
        assert_eq!(paid(&Account::new(4 << 20), grows), Some(100_000));
    }

    #[test]
    fn what_nobody_has_is_not_granted() {
        assert!(has_room(1 << 20) && !has_room(isize::MAX as usize));
    }

    #[test]
    fn a_thread_that_is_stopped_takes_no_more() {
        let account = Account::new(1 << 20);
        let stopper = account.clone();
        let work = move || {
            stopper.stop();
            vec![0_u8; 10].len()
        };
        assert_eq!(paid(&account, work), None);
    }
}
