//! Experts that are used most, read into the pool while nobody asks for anything: a thread that does a little at a time, and ends with the
//! first pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::stream::experts::Habit;
use crate::stream::{Monitor, StreamDevice};

/// How often it looks what has arrived.
const INTERVAL: Duration = Duration::from_millis(2);

/// The thread; dropping it ends it.
#[derive(Debug)]
pub(super) struct Warmer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Warmer {
    /// Begins to read what `habits` say is used most. `None` where there is nothing to do it for.
    pub(super) fn start(
        stream: &Arc<StreamDevice>,
        monitor: &Arc<Monitor>,
        habits: &[Habit],
    ) -> Option<Warmer> {
        if !stream.expect(habits) {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stream, monitor, stopped) = (stream.clone(), monitor.clone(), stop.clone());
        let work = move || {
            let before = monitor.snapshot().passes;
            while !stopped.load(Ordering::Relaxed)
                && monitor.snapshot().passes == before
                && stream.warm()
            {
                std::thread::sleep(INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("airrun-warm".into()).spawn(work).ok()?;
        Some(Warmer { stop, thread: Some(thread) })
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It panics only where the device has failed, which says so itself.
        self.thread.take().map(JoinHandle::join);
    }
}
