//! What all readers share: a request cut into chunks, and the account of which chunks are out, in, or failed. No IO and no
//! threads except the last look at the files when a request ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::source::align::{Carver, Window};
use crate::source::files::Files;
use crate::source::{Completion, DIRECT_ALIGN, Extent, HostBuf, ReadError, ReadStats};
use crate::units::Bytes;

/// A read that says "try again" this often is taken for broken.
const MAX_AGAIN: u32 = 10_000;

/// A request: the buffer it fills, what is left to hand out, and what is being read.
#[derive(Debug)]
pub(super) struct Job {
    id: u64,
    extents: Arc<[Extent]>,
    carver: Carver,
    completion: Completion,
    chunk: u64,
    /// What is next: an extent and a place in it.
    extent: usize,
    within: u64,
    in_flight: usize,
    bytes: Bytes,
    begin: Option<Instant>,
    failure: Option<ReadError>,
}

/// A part of an extent, small enough for one read.
#[derive(Debug)]
pub(super) struct Chunk {
    job: u64,
    file: usize,
    offset: u64,
    need: usize,
    window: Window,
    got: usize,
    direct: bool,
    again: u32,
}

/// What to do with a chunk after a read.
#[derive(Debug)]
pub(super) enum Step {
    /// Read [`Chunk::target`] at [`Chunk::position`].
    Again,
    /// It is over.
    Ended(Result<(), ReadError>),
}

impl Job {
    /// Takes a request over. One that does not fit its buffer is completed here with [`ReadError::Invalid`].
    pub(super) fn new(
        extents: Arc<[Extent]>,
        buf: HostBuf,
        completion: Completion,
        files: &Files,
        chunk: Bytes,
    ) -> Option<Job> {
        if let Err(error) = validate(&extents, buf.len(), files.len()) {
            completion.complete(buf, Err(error));
            return None;
        }
        Some(Job {
            id: 0,
            extents,
            carver: Carver::new(buf),
            completion,
            chunk: chunk.0,
            extent: 0,
            within: 0,
            in_flight: 0,
            bytes: Bytes::ZERO,
            begin: None,
            failure: None,
        })
    }

    /// The next chunk to read; `None` when all are out or the request has failed.
    fn next_chunk(&mut self, files: &Files) -> Option<Chunk> {
        if !self.has_more() {
            return None;
        }
        let e = self.extents[self.extent];
        // Past the page cache whole pages are read, else only what is needed.
        let direct = e.is_aligned() && files.has_direct(e.file);
        let end = if direct { e.len } else { e.need };
        let len = self.chunk.min(end - self.within);
        let need = len.min(e.need - self.within);
        let at = Bytes(e.dst + self.within).usize();
        let window = self.carver.carve(at, Bytes(len).usize()).expect("validated by Job::new");
        let chunk = Chunk {
            job: self.id,
            file: e.file,
            offset: e.offset + self.within,
            need: Bytes(need).usize(),
            window,
            got: 0,
            direct,
            again: 0,
        };
        self.within += len;
        self.bytes += Bytes(len);
        self.in_flight += 1;
        self.begin.get_or_insert_with(Instant::now);
        Some(chunk)
    }

    /// Skips extents that are done; whether one is left.
    fn has_more(&mut self) -> bool {
        while self.failure.is_none() {
            match self.extents.get(self.extent) {
                Some(e) if self.within < e.need => return true,
                Some(_) => (self.extent, self.within) = (self.extent + 1, 0),
                None => return false,
            }
        }
        false
    }

    fn is_over(&mut self) -> bool {
        self.in_flight == 0 && !self.has_more()
    }

    /// Ends the request. That the files are as they were is asked now, at the end: it covers the whole time of reading.
    pub(super) fn finish(self, files: &Files) {
        let mut outcome = self.failure.map_or(Ok(()), Err);
        let mut checked = None;
        for e in self.extents.iter() {
            if outcome.is_ok() && checked != Some(e.file) {
                outcome = files.check(e.file);
                checked = Some(e.file);
            }
        }
        let now = Instant::now();
        let span = (self.begin.unwrap_or(now), now);
        let bytes = self.bytes;
        let buf = self.carver.into_buf().expect("a job ends after its last window is gone");
        self.completion.complete(buf, outcome.map(|()| ReadStats { bytes, span }));
    }
}

/// Checks what [`Job::next_chunk`] and the kernel rely on.
fn validate(extents: &[Extent], buf_len: usize, n_files: usize) -> Result<(), ReadError> {
    let mut from = 0;
    for (extent, e) in extents.iter().enumerate() {
        let wrong = |why| Err(ReadError::Invalid { extent, why });
        if e.file >= n_files {
            return wrong("names no file");
        }
        if e.need > e.len {
            return wrong("needs more than it reads");
        }
        if e.offset.checked_add(e.len).is_none_or(|end| i64::try_from(end).is_err()) {
            return wrong("ends beyond the largest offset");
        }
        if e.dst < from {
            return wrong("is out of order or overlaps in the buffer");
        }
        match e.dst.checked_add(e.len) {
            Some(end) if end <= buf_len as u64 => from = end,
            _ => return wrong("does not fit the buffer"),
        }
    }
    Ok(())
}

impl Chunk {
    /// Which file to read from.
    pub(super) fn file(&self) -> usize {
        self.file
    }

    /// Where in the file to read now.
    pub(super) fn position(&self) -> u64 {
        self.offset + self.got as u64
    }

    /// Whether the next read may go past the page cache: not after a read that ended inside a page.
    pub(super) fn is_direct(&self) -> bool {
        let at = self.window.start().as_ptr() as usize as u64 + self.got as u64;
        self.direct && (at | self.position()) % DIRECT_ALIGN == 0
    }

    /// Where the next read puts its bytes.
    pub(super) fn target(&mut self) -> &mut [u8] {
        let (got, need, direct) = (self.got, self.need, self.is_direct());
        let rest = &mut self.window.as_mut_slice()[got..];
        if direct { rest } else { &mut rest[..need - got] }
    }

    /// Takes note of what a read gave.
    pub(super) fn absorb(&mut self, result: io::Result<usize>, files: &Files) -> Step {
        let path = files.path(self.file);
        match result {
            Ok(0) => {
                let offset = self.position();
                Step::Ended(Err(ReadError::Truncated { path: path.display().to_string(), offset }))
            }
            Ok(n) => {
                if !self.is_direct() {
                    files.forget(self.file, self.position(), n as u64);
                }
                self.got += n;
                if self.got >= self.need { Step::Ended(Ok(())) } else { Step::Again }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Step::Again,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.again < MAX_AGAIN => {
                self.again += 1;
                std::thread::yield_now();
                Step::Again
            }
            // Some file systems refuse O_DIRECT for parts of a file only, such as an unwritten or packed tail.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && self.is_direct() => {
                self.direct = false;
                Step::Again
            }
            Err(e) => Step::Ended(Err(ReadError::io(path, self.position(), &e))),
        }
    }
}

/// The requests of one reader, first come first served.
#[derive(Debug, Default)]
pub(super) struct JobQueue {
    jobs: VecDeque<Job>,
    next_id: u64,
}

impl JobQueue {
    /// Adds a job. Gives it back to be finished if it asks for nothing.
    pub(super) fn push(&mut self, mut job: Job) -> Option<Job> {
        if job.is_over() {
            return Some(job);
        }
        job.id = self.next_id;
        self.next_id += 1;
        self.jobs.push_back(job);
        None
    }

    /// The next chunk of the oldest job that has one.
    pub(super) fn next_chunk(&mut self, files: &Files) -> Option<Chunk> {
        self.jobs.iter_mut().find_map(|job| job.next_chunk(files))
    }

    /// Takes the outcome of a chunk. Gives the job back to be finished if that was its last.
    pub(super) fn settle(&mut self, chunk: Chunk, outcome: Result<(), ReadError>) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.id == chunk.job)?;
        drop(chunk); // its window: the job gives its buffer back when none is left
        let job = &mut self.jobs[at];
        job.in_flight -= 1;
        if let Err(error) = outcome {
            job.failure.get_or_insert(error);
        }
        if job.is_over() { self.jobs.remove(at) } else { None }
    }

    /// Fails all jobs with `why`. Gives back those to be finished now; the others follow when their chunks settle.
    pub(super) fn give_up(&mut self, why: &ReadError) -> Vec<Job> {
        for job in &mut self.jobs {
            job.failure.get_or_insert_with(|| why.clone());
        }
        let (over, waiting) = self.jobs.drain(..).partition(|job| job.in_flight == 0);
        self.jobs = waiting;
        Vec::from(over)
    }
}
