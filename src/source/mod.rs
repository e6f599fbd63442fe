//! Bytes on time: brings ranges of the model's files into host memory. It knows offsets, not models.
//!
//! A *request* hands a [`HostBuf`] and a list of [`Extent`]s to a [`WeightSource`] and gets a [`Ticket`]. The buffer belongs to
//! the ticket until the read has ended, so that no reader can write into memory that someone else uses; it comes back
//! with the outcome, right or wrong.

mod align;
mod choice;
pub mod fault;
mod files;
pub mod layout;
mod open;
mod reader;
mod retry;
pub mod sample;
pub mod sim;
mod verdict;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use align::HostBuf;
pub use choice::{Caching, Choice, OpenError, READER_ENV, ReaderKind};
pub use layout::{Extent, Layout, Piece, Slice};
pub use open::open;
pub use retry::Retrying;

use crate::units::Bytes;

/// Offsets, lengths and addresses that O_DIRECT accepts on every common device are multiples of this.
pub const DIRECT_ALIGN: u64 = 4096;

/// How long the end of the program, or of a source, waits for reads that were cancelled.
const LET_GO: Duration = Duration::from_secs(1);

/// Something that reads extents of the model's files into memory, several requests at a time, in any order.
pub trait WeightSource: Send + Sync + fmt::Debug {
    /// Starts reading `extents` into `buf`, each at its `dst`. Returns at once. The extents are in ascending order of `dst`,
    /// do not overlap there, and end inside `buf`; others end in [`ReadError::Invalid`].
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket;

    /// Asks the source to give up the requests made so far: their tickets end soon, with [`ReadError::Cancelled`] or as read.
    /// Later requests are not affected.
    fn cancel(&self) {}

    /// What it is, for people: `io_uring, O_DIRECT`.
    fn describe(&self) -> String;
}

/// A read in flight. Dropping it waits until the reader has let go of the buffer, but not for a disk that no longer answers: then the
/// reader keeps the buffer.
#[derive(Debug)]
pub struct Ticket {
    receiver: Receiver<Done>,
    /// False once the outcome is in `done`, was taken from there, or will never come.
    pending: bool,
    done: Option<Done>,
    retry: Option<retry::Retry>,
    driver: Option<Arc<dyn Driver>>,
}

/// What goes on with a source's reads where no thread does, whenever somebody waits for one: a simulator's disk.
pub trait Driver: Send + Sync + fmt::Debug {
    /// Lets the next thing happen that happens within `limit`. False if there is nothing to come: then nobody ends the reads either.
    fn drive(&self, limit: Duration) -> bool;
}

/// The reader's end of a [`Ticket`].
#[derive(Debug)]
pub struct Completion(SyncSender<Done>);

/// A request that has ended: the buffer, and whether it holds what was asked for.
#[derive(Debug)]
pub struct Done {
    /// The memory that was lent to the request.
    pub buf: HostBuf,
    /// Statistics, or why the bytes are not there.
    pub outcome: Result<ReadStats, ReadError>,
}

/// What a finished request cost.
#[derive(Clone, Copy, Debug)]
pub struct ReadStats {
    /// Bytes asked of the device, alignment included.
    pub bytes: Bytes,
    /// When the reader began and ended.
    pub span: (Instant, Instant),
}

/// Why a range could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The system said no.
    #[error("cannot read {path} at offset {offset}: {message}")]
    Io {
        /// The file.
        path: String,
        /// Where in the file the failing read began.
        offset: u64,
        /// The system's message.
        message: String,
    },
    /// The file is shorter than its header says, or became so.
    #[error("{path} ended at offset {offset}: the file was truncated or replaced")]
    Truncated {
        /// The file.
        path: String,
        /// Where the bytes stopped.
        offset: u64,
    },
    /// The file was written to since it was opened, so old and new bytes may be mixed.
    #[error("{path} was modified while it was in use")]
    Changed {
        /// The file.
        path: String,
    },
    /// The request itself is wrong: a bug of the caller.
    #[error("bad read request: extent {extent} {why}")]
    Invalid {
        /// Which of the request's extents.
        extent: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// [`WeightSource::cancel`] was called.
    #[error("reading was cancelled")]
    Cancelled,
    /// The reader is gone; a bug, or the end of the program.
    #[error("the reader has stopped")]
    Stopped,
}

impl ReadError {
    /// An error of the system while reading `path` at `offset`.
    fn io(path: &Path, offset: u64, error: &io::Error) -> ReadError {
        ReadError::Io { path: path.display().to_string(), offset, message: error.to_string() }
    }
}

impl Ticket {
    /// A ticket and the end that completes it.
    pub fn new() -> (Completion, Ticket) {
        let (sender, receiver) = sync_channel(1);
        let ticket = Ticket { receiver, pending: true, done: None, retry: None, driver: None };
        (Completion(sender), ticket)
    }

    /// The same, of a read that goes on only while `driver` is driven.
    pub fn driven_by(self, driver: Arc<dyn Driver>) -> Ticket {
        // (There is a `Drop`, so that fields cannot be moved out.)
        let mut this = self;
        this.driver = Some(driver);
        this
    }

    /// Whether the read has ended. One that failed may still be repeated by whoever waits for it: looking is not waiting, and the disk
    /// may be well again when the bytes are needed.
    pub fn is_done(&mut self) -> bool {
        if self.pending {
            match self.receiver.try_recv() {
                Ok(done) => self.end(Some(done)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.end(None),
            }
        }
        !self.pending
    }

    /// Waits for the end of the read. `None` if the reader died without giving the buffer back.
    pub fn wait(mut self) -> Option<Done> {
        while !self.wait_timeout(Duration::MAX) {}
        self.done.take()
    }

    /// Waits at most `limit`; whether [`Ticket::wait`] would now return at once.
    pub fn wait_timeout(&mut self, limit: Duration) -> bool {
        let begin = Instant::now();
        self.repeat_if_failed();
        while self.pending {
            if let Some(driver) = self.driver.clone() {
                let goes_on = driver.drive(limit);
                match self.is_done() {
                    false if goes_on => return false,
                    false => self.end(None),
                    true => {}
                }
            } else {
                match self.receiver.recv_timeout(limit.saturating_sub(begin.elapsed())) {
                    Ok(done) => self.end(Some(done)),
                    Err(RecvTimeoutError::Timeout) => return false,
                    Err(RecvTimeoutError::Disconnected) => self.end(None),
                }
            }
            self.repeat_if_failed();
        }
        true
    }

    /// Keeps the outcome.
    fn end(&mut self, done: Option<Done>) {
        self.done = done;
        self.pending = false;
    }

    /// Starts the one retry that a failed request has.
    fn repeat_if_failed(&mut self) {
        let failed = |done: &mut Done| matches!(done.outcome, Err(ReadError::Io { .. }));
        let Some(retry) = self.retry.take_if(|retry| retry.is_wanted()) else { return };
        match self.done.take_if(failed) {
            Some(done) => {
                let mut again = retry.start(done.buf);
                std::mem::swap(&mut self.receiver, &mut again.receiver);
                self.pending = std::mem::take(&mut again.pending);
            }
            None => self.retry = Some(retry),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            while !self.is_done() && driver.drive(LET_GO) {}
        } else if self.pending {
            // The buffer is not freed while the reader writes into it: until the end of the read it is the reader's.
            drop(self.receiver.recv_timeout(LET_GO));
        }
    }
}

/// Waits for threads that were told to end; those that the system holds in a read are left to it.
fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let begin = Instant::now();
    for thread in threads {
        while !thread.is_finished() && begin.elapsed() < LET_GO {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            drop(thread.join());
        }
    }
}

impl Completion {
    /// Ends the request and gives the buffer back.
    pub fn complete(self, buf: HostBuf, outcome: Result<ReadStats, ReadError>) {
        // An error means that the ticket is gone, and the buffer is freed here.
        drop(self.0.send(Done { buf, outcome }));
    }
}
