//! Reads through io_uring: one thread owns the ring and keeps the device's queue full across requests; the bytes go straight
//! into the buffers. A buffer belongs to its request until the kernel has answered for every read into it.
//!
//! Buffers are not registered with the ring: it counts against the user's limit of locked memory, and huge pages (see
//! `HostBuf::new`) already bring the processor's part to a hundredth of a second per gigabyte.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};

use super::job::{Chunk, Job, JobQueue, Step};
use crate::source::files::Files;
use crate::source::{self, Completion, Extent, HostBuf, ReadError, Ticket, WeightSource};
use crate::units::{Bytes, MIB};

/// What one read asks for.
const CHUNK: Bytes = MIB;
/// Reads in flight. From 4 on the rate is the disk's where we measured; more than this only delays cancelling.
const DEPTH: usize = 16;
/// Marks the read that waits for the bell; chunks are marked with their place in `Ring::chunks`.
const BELL: u64 = u64::MAX;
/// Waiting for the kernel may fail this often in a row before the ring is given up.
const MAX_FAILURES: u32 = 1000;

/// Reads through io_uring.
#[derive(Debug)]
pub(super) struct UringSource {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    direct: bool,
}

/// The way into the ring's thread: commands, and a bell that ends its wait.
#[derive(Debug)]
struct Inbox {
    state: Mutex<Commands>,
    bell: File,
}

#[derive(Debug, Default)]
struct Commands {
    list: Vec<Command>,
    /// The thread is gone: nobody will read the list.
    dead: bool,
}

#[derive(Debug)]
enum Command {
    Read { extents: Arc<[Extent]>, buf: HostBuf, completion: Completion },
    Cancel,
    Close,
}

/// The ring and everything its thread owns.
struct Ring {
    ring: IoUring,
    files: Files,
    inbox: Arc<Inbox>,
    /// Where the read of the bell puts its eight bytes.
    bell: Box<[u8; 8]>,
    bell_armed: bool,
    queue: JobQueue,
    /// What is being read, by the number that the kernel gives back.
    chunks: Vec<Option<Chunk>>,
    free: Vec<usize>,
    closing: bool,
}

impl UringSource {
    /// Sets a ring up for `files` and starts its thread. Fails where the system does not allow io_uring.
    pub(super) fn start(files: Files) -> io::Result<UringSource> {
        let direct = files.any_direct();
        let inbox = Arc::new(Inbox { state: Mutex::default(), bell: eventfd()? });
        let (report, reported) = sync_channel(1);
        let for_thread = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name("airrun-ring".into())
            .spawn(move || run(files, for_thread, &report))?;
        let source = UringSource { inbox, thread: Some(thread), direct };
        match reported.recv() {
            Ok(Ok(())) => Ok(source),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the ring's thread died")),
        }
    }
}

impl WeightSource for UringSource {
    fn request(&self, extents: Arc<[Extent]>, buf: HostBuf) -> Ticket {
        let (completion, ticket) = Ticket::new();
        self.inbox.send(Command::Read { extents, buf, completion });
        ticket
    }

    fn cancel(&self) {
        self.inbox.send(Command::Cancel);
    }

    fn describe(&self) -> String {
        format!("io_uring, {}", if self.direct { "O_DIRECT" } else { "buffered" })
    }
}

impl Drop for UringSource {
    fn drop(&mut self) {
        self.inbox.send(Command::Close);
        source::join(self.thread.take());
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Commands> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: Command) {
        let mut commands = self.lock();
        if commands.dead {
            drop(commands);
            command.refuse();
            return;
        }
        commands.list.push(command);
        let first = commands.list.len() == 1;
        drop(commands);
        if first {
            // An eventfd refuses a write only when 2^64 - 1 rings are unheard; the thread is awake then.
            drop((&self.bell).write(&1_u64.to_ne_bytes()));
        }
    }

    /// Ends the inbox with its thread, whichever way that ends.
    fn die(&self) {
        let left = {
            let mut commands = self.lock();
            commands.dead = true;
            std::mem::take(&mut commands.list)
        };
        left.into_iter().for_each(Command::refuse);
    }
}

impl Command {
    fn refuse(self) {
        if let Command::Read { buf, completion, .. } = self {
            completion.complete(buf, Err(ReadError::Stopped));
        }
    }
}

/// The thread's life. The ring is made here because the kernel works best when one thread makes and uses it.
fn run(files: Files, inbox: Arc<Inbox>, report: &SyncSender<io::Result<()>>) {
    struct Mourner(Arc<Inbox>);
    impl Drop for Mourner {
        fn drop(&mut self) {
            self.0.die();
        }
    }
    let _mourner = Mourner(Arc::clone(&inbox));
    match Ring::new(files, inbox) {
        Ok(ring) => {
            drop(report.send(Ok(())));
            ring.serve();
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

impl Ring {
    fn new(files: Files, inbox: Arc<Inbox>) -> io::Result<Ring> {
        // Room for every chunk and the bell, so that a round never finds the submission queue full.
        let entries = (DEPTH + 1).next_power_of_two() as u32;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|_| IoUring::new(entries))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring cannot read here"));
        }
        ring.submitter().register_files(&descriptors(&files))?;
        let chunks = (0..DEPTH).map(|_| None).collect();
        Ok(Ring {
            ring,
            files,
            inbox,
            bell: Box::new([0; 8]),
            bell_armed: false,
            queue: JobQueue::default(),
            chunks,
            free: (0..DEPTH).collect(),
            closing: false,
        })
    }

    /// Serves commands until told to close and the kernel has let go of everything.
    fn serve(mut self) {
        let mut failures = 0;
        loop {
            self.obey();
            self.fill();
            if self.closing && self.free.len() == DEPTH && !self.bell_armed {
                return;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => failures = 0,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if failures < MAX_FAILURES => {
                    // Out of some resource for now (EAGAIN, EBUSY, ENOMEM): answers that are there may free it.
                    failures += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(_) => return self.abandon(),
            }
            self.reap();
        }
    }

    /// Carries out what has arrived in the inbox.
    fn obey(&mut self) {
        let commands = std::mem::take(&mut self.inbox.lock().list);
        for command in commands {
            match command {
                Command::Read { extents, buf, completion } => {
                    let job = Job::new(extents, buf, completion, &self.files, CHUNK);
                    if let Some(job) = job.and_then(|job| self.queue.push(job)) {
                        job.finish(&self.files);
                    }
                }
                Command::Cancel => self.give_up(&ReadError::Cancelled),
                Command::Close => {
                    self.closing = true;
                    self.give_up(&ReadError::Stopped);
                }
            }
        }
    }

    fn give_up(&mut self, why: &ReadError) {
        let over = self.queue.give_up(why);
        over.into_iter().for_each(|job| job.finish(&self.files));
    }

    /// Puts reads into the submission queue until the depth is reached, and the bell's read if it is not there.
    fn fill(&mut self) {
        while let Some(&slot) = self.free.last() {
            let Some(chunk) = self.queue.next_chunk(&self.files) else { break };
            self.free.pop();
            self.chunks[slot] = Some(chunk);
            self.read(slot);
        }
        if !self.bell_armed && !self.closing {
            let bell = types::Fd(self.inbox.bell.as_raw_fd());
            let entry = opcode::Read::new(bell, self.bell.as_mut_ptr(), 8).build().user_data(BELL);
            self.push(&entry);
            self.bell_armed = true;
        }
    }

    /// Puts the next read of the chunk in `slot` into the submission queue.
    fn read(&mut self, slot: usize) {
        let Some(chunk) = &mut self.chunks[slot] else { return };
        let direct = chunk.is_direct();
        let file = types::Fixed(descriptor_index(chunk.file(), direct));
        let offset = chunk.position();
        let target = chunk.target();
        // At most CHUNK, which fits.
        let entry = opcode::Read::new(file, target.as_mut_ptr(), target.len() as u32)
            .offset(offset)
            .build()
            .user_data(slot as u64);
        self.push(&entry);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the read's target is the bell's box or a chunk's window, which this ring keeps (in `bell`, in `chunks`)
        // until the kernel has answered, and leaks rather than frees if it never does; see `abandon` and `drop`.
        let pushed = unsafe { self.ring.submission().push(entry) };
        debug_assert!(pushed.is_ok(), "the submission queue has room for every slot and the bell");
    }

    /// Takes the kernel's answers.
    fn reap(&mut self) {
        while let Some(answer) = self.next_answer() {
            if answer.user_data() == BELL {
                self.bell_armed = false;
            } else {
                self.answered(answer.user_data() as usize, answer.result());
            }
        }
    }

    fn next_answer(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    fn answered(&mut self, slot: usize, result: i32) {
        let Some(chunk) = self.chunks.get_mut(slot).and_then(Option::as_mut) else { return };
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        match chunk.absorb(result, &self.files) {
            Step::Again => self.read(slot),
            Step::Ended(outcome) => {
                if let Some(chunk) = self.chunks[slot].take() {
                    self.free.push(slot);
                    if let Some(job) = self.queue.settle(chunk, outcome) {
                        job.finish(&self.files);
                    }
                }
            }
        }
    }

    /// The ring no longer answers. Ends what the kernel does not hold; `drop` leaks the rest.
    fn abandon(mut self) {
        self.give_up(&ReadError::Stopped);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Whatever the kernel has not answered for may still be written to: its memory is never freed.
        for chunk in self.chunks.drain(..).flatten() {
            std::mem::forget(chunk);
        }
        if self.bell_armed {
            std::mem::forget(std::mem::take(&mut self.bell));
        }
    }
}

/// Two descriptors for each file: what [`Files::handle`] gives with and without `direct`.
fn descriptors(files: &Files) -> Vec<RawFd> {
    (0..files.len())
        .flat_map(|i| [files.handle(i, false).as_raw_fd(), files.handle(i, true).as_raw_fd()])
        .collect()
}

fn descriptor_index(file: usize, direct: bool) -> u32 {
    (2 * file + usize::from(direct)) as u32
}

fn eventfd() -> io::Result<File> {
    // SAFETY: takes plain numbers; the result is checked before use.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}
