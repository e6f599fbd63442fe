//! A pool of threads that read with `pread`: works everywhere. Past the page cache where the files allow it, else through it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::job::{self, Chunk, Job, JobQueue, Step};
use crate::os::reads::read_at;
use crate::source::files::Files;
use crate::source::{self, Extent, HostBuf, ReadError, ReadStats, Ticket, WeightSource};
use crate::units::{Bytes, MIB};

/// What one `pread` asks for.
const CHUNK: Bytes = MIB;
/// Requests up to this size stay on one thread: waking a second one costs more than it saves.
const SMALL: Bytes = Bytes(2 << 20);
/// Threads past the page cache: each is one place in the device's queue.
const THREADS_DIRECT: usize = 8;
/// Threads through the page cache, where each is busy copying.
const THREADS_BUFFERED: usize = 4;

/// Reads with `pread` on several threads.
#[derive(Debug)]
pub(super) struct PreadSource {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: JobQueue,
    closed: bool,
    /// A thread has died: nothing is read any more.
    dead: bool,
}

impl PreadSource {
    /// Starts the threads.
    pub(super) fn start(files: Files) -> std::io::Result<PreadSource> {
        let n = if files.any_direct() { THREADS_DIRECT } else { THREADS_BUFFERED };
        let shared = Arc::new(Shared { files, state: Mutex::default(), wake: Condvar::new() });
        let mut source = PreadSource { shared, threads: Vec::with_capacity(n) };
        for i in 0..n {
            let shared = Arc::clone(&source.shared);
            let thread = std::thread::Builder::new().name(format!("airrun-read-{i}"));
            source.threads.push(thread.spawn(move || shared.live())?);
        }
        Ok(source)
    }
}

impl WeightSource for PreadSource {
    fn request(&self, extents: Arc<[Extent]>, mut buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        let total: Bytes = extents.iter().map(|e| Bytes(e.len)).sum();
        let small = total <= SMALL;
        if small && !self.shared.files.any_direct() {
            // Waking a thread and taking a core from the computation costs more than copying so little.
            let begin = Instant::now();
            if let Some(bytes) = job::read_now(&extents, &mut buf, &self.shared.files) {
                completion.complete(buf, Ok(ReadStats { bytes, span: (begin, Instant::now()) }));
                return ticket;
            }
        }
        let chunk = if small { SMALL } else { CHUNK };
        let files = &self.shared.files;
        if let Some(job) = Job::new(extents, buf, completion, files, chunk) {
            let mut state = self.shared.lock();
            if state.dead {
                drop(state);
                return job.refuse(ticket);
            }
            let idle = state.queue.push(job);
            drop(state);
            match idle {
                Some(job) => job.finish(files),
                None if small => self.shared.wake.notify_one(),
                None => self.shared.wake.notify_all(),
            }
        }
        ticket
    }

    fn cancel(&self) {
        self.shared.give_up(&ReadError::Cancelled);
    }

    fn describe(&self) -> String {
        let how = if self.shared.files.any_direct() { "O_DIRECT" } else { "buffered" };
        format!("pread, {how}")
    }
}

impl Drop for PreadSource {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.give_up(&ReadError::Stopped);
        self.shared.wake.notify_all();
        source::join(self.threads.drain(..));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, why: &ReadError) {
        let over = self.lock().queue.give_up(why);
        over.into_iter().for_each(|job| job.finish(&self.files));
    }

    /// A thread's life. If it dies, so does the pool: a part of a request would never be read, and who waits for it waits for ever.
    fn live(&self) {
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let mut state = self.lock();
            (state.closed, state.dead) = (true, true);
            let queue = std::mem::take(&mut state.queue);
            drop(state);
            // Memory that other threads still read into is kept by what they read; who waits is told.
            drop(queue);
            self.wake.notify_all();
        }
    }

    /// Takes chunks while there are any, sleeps when there are none.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(mut chunk) = state.queue.next_chunk(&self.files) {
                drop(state);
                let outcome = self.read(&mut chunk);
                state = self.lock();
                if let Some(job) = state.queue.settle(chunk, outcome) {
                    drop(state);
                    job.finish(&self.files);
                    state = self.lock();
                }
            } else if state.closed {
                return;
            } else {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn read(&self, chunk: &mut Chunk) -> Result<(), ReadError> {
        loop {
            let file = self.files.handle(chunk.file(), chunk.is_direct());
            let position = chunk.position();
            let result = read_at(file, chunk.target(), position);
            if let Step::Ended(outcome) = chunk.absorb(result, &self.files) {
                return outcome;
            }
        }
    }
}
