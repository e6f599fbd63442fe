//! What all readers share: a request cut into chunks, and the account of which chunks are out, in, or failed. No IO and no
//! threads except the last look at the files when a request ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::source::align::{Carver, Window};
use crate::source::files::Files;
use crate::source::{Completion, DIRECT_ALIGN, Extent, HostBuf, ReadError, ReadStats, Ticket};
use crate::units::Bytes;

/// A read that says "try again" this often is taken for broken.
const MAX_AGAIN: u32 = 10_000;

/// A request: the buffer it fills, what is left to hand out, and what is being read.
#[derive(Debug)]
pub(in crate::source) struct Job {
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
pub(in crate::source) struct Chunk {
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
pub(in crate::source) enum Step {
    /// Read [`Chunk::target`] at [`Chunk::position`].
    Again,
    /// It is over.
    Ended(Result<(), ReadError>),
}

impl Job {
    /// Takes a request over. One that does not fit its buffer is completed here with [`ReadError::Invalid`].
    pub(in crate::source) fn new(
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

    /// Ends the request before it began.
    pub(in crate::source) fn refuse(self, ticket: Ticket) -> Ticket {
        match self.carver.into_buf() {
            Some(buf) => self.completion.complete(buf, Err(ReadError::Stopped)),
            None => drop(self.completion),
        }
        ticket
    }

    /// Ends the request. That the files are as they were is asked now, at the end: it covers the whole time of reading.
    pub(in crate::source) fn finish(self, files: &Files) {
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

/// Reads a whole request on the calling thread if the page cache has all of it. `None` if not, or if anything else is in the
/// way: then the request takes the ordinary path, which says what.
pub(in crate::source) fn read_now(
    extents: &[Extent],
    buf: &mut HostBuf,
    files: &Files,
) -> Option<Bytes> {
    validate(extents, buf.len(), files.len()).ok()?;
    let mut bytes = Bytes::ZERO;
    for e in extents {
        let start = Bytes(e.dst).usize();
        let target = &mut buf.as_mut_slice()[start..start + Bytes(e.need).usize()];
        if files.read_cached(e.file, e.offset, target) != target.len() {
            return None;
        }
        bytes += Bytes(e.need);
    }
    let mut checked = None;
    for e in extents {
        if checked.replace(e.file) != Some(e.file) {
            files.check(e.file).ok()?;
        }
    }
    Some(bytes)
}

impl Chunk {
    /// The number of its job.
    pub(in crate::source) fn job(&self) -> u64 {
        self.job
    }

    /// Which file to read from.
    pub(in crate::source) fn file(&self) -> usize {
        self.file
    }

    /// Where in the file to read now.
    pub(in crate::source) fn position(&self) -> u64 {
        self.offset + self.got as u64
    }

    /// Whether the next read may go past the page cache: not after a read that ended inside a page.
    pub(in crate::source) fn is_direct(&self) -> bool {
        let at = self.window.start().as_ptr() as usize as u64 + self.got as u64;
        self.direct && (at | self.position()).is_multiple_of(DIRECT_ALIGN)
    }

    /// Where the next read puts its bytes.
    pub(in crate::source) fn target(&mut self) -> &mut [u8] {
        let (got, need, direct) = (self.got, self.need, self.is_direct());
        let rest = &mut self.window.as_mut_slice()[got..];
        if direct { rest } else { &mut rest[..need - got] }
    }

    /// Takes note of what a read gave.
    pub(in crate::source) fn absorb(&mut self, result: io::Result<usize>, files: &Files) -> Step {
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
pub(in crate::source) struct JobQueue {
    jobs: VecDeque<Job>,
    next_id: u64,
}

impl JobQueue {
    /// Adds a job. Gives it back to be finished if it asks for nothing.
    pub(in crate::source) fn push(&mut self, mut job: Job) -> Option<Job> {
        if job.is_over() {
            return Some(job);
        }
        job.id = self.next_id;
        self.next_id += 1;
        self.jobs.push_back(job);
        None
    }

    /// The number of the job that was added last.
    pub(in crate::source) fn last_id(&self) -> u64 {
        self.next_id.saturating_sub(1)
    }

    /// Whether all jobs are over.
    pub(in crate::source) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The next chunk of the oldest job that has one.
    pub(in crate::source) fn next_chunk(&mut self, files: &Files) -> Option<Chunk> {
        self.jobs.iter_mut().find_map(|job| job.next_chunk(files))
    }

    /// Takes the outcome of a chunk. Gives the job back to be finished if that was its last.
    pub(in crate::source) fn settle(
        &mut self,
        chunk: Chunk,
        outcome: Result<(), ReadError>,
    ) -> Option<Job> {
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
    pub(in crate::source) fn give_up(&mut self, why: &ReadError) -> Vec<Job> {
        for job in &mut self.jobs {
            job.failure.get_or_insert_with(|| why.clone());
        }
        let (over, waiting) = self.jobs.drain(..).partition(|job| job.in_flight == 0);
        self.jobs = waiting;
        Vec::from(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::files::PageCache;
    use proptest::prelude::*;

    /// What the bytes of the imagined file are.
    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8
    }

    /// Extents one behind the other: (gap in the file, bytes needed, whether aligned).
    fn extents(list: &[(u64, u64, bool)]) -> Vec<Extent> {
        let (mut offset, mut dst) = (0_u64, 0_u64);
        let mut out = Vec::new();
        for &(gap, need, aligned) in list {
            let align = if aligned { DIRECT_ALIGN } else { 1 };
            offset = (offset + gap).next_multiple_of(align);
            dst = dst.next_multiple_of(align);
            let len = need.next_multiple_of(align);
            out.push(Extent { file: 0, offset, len, dst, need });
            (offset, dst) = (offset + len, dst + len);
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        /// Whatever a read gives, and in whatever order the answers come, every needed byte arrives at its place.
        #[test]
        fn short_and_late_answers_add_up(
            list in prop::collection::vec((0_u64..9000, 0_u64..70_000, any::<bool>()), 0..6),
            answers in prop::collection::vec((1_usize..20_000, 0_usize..4, 0_u8..8), 1..40),
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let files = Files::open(&[file.path().to_owned()], PageCache::Avoid).unwrap();
            let extents: Arc<[Extent]> = extents(&list).into();
            let len = extents.last().map_or(0, |e| e.dst + e.len);
            let (completion, ticket) = Ticket::new();
            let buf = HostBuf::new(Bytes(len)).unwrap();
            let job = Job::new(Arc::clone(&extents), buf, completion, &files, Bytes(16 << 10));
            let mut queue = JobQueue::default();
            let mut over = queue.push(job.unwrap());
            let mut out = Vec::new();
            let mut answers = answers.iter().cycle();
            let mut failed = false; // no two failures in a row, so that it ends
            while over.is_none() {
                while out.len() < 4 && let Some(chunk) = queue.next_chunk(&files) {
                    out.push(chunk);
                }
                let &(most, which, kind) = answers.next().unwrap();
                let mut chunk = out.swap_remove(which % out.len());
                let at = chunk.position();
                failed = kind < 3 && !failed;
                let result = match kind {
                    0 if failed => Err(io::ErrorKind::Interrupted.into()),
                    1 if failed => Err(io::ErrorKind::WouldBlock.into()),
                    2 if failed && chunk.is_direct() => Err(io::ErrorKind::InvalidInput.into()),
                    _ => {
                        let target = chunk.target();
                        let n = target.len().min(most);
                        (at..).zip(&mut target[..n]).for_each(|(i, b)| *b = byte(i));
                        Ok(n)
                    }
                };
                match chunk.absorb(result, &files) {
                    Step::Again => out.push(chunk),
                    Step::Ended(outcome) => over = queue.settle(chunk, outcome),
                }
            }
            over.unwrap().finish(&files);
            let done = ticket.wait().unwrap();
            prop_assert!(done.outcome.is_ok());
            for e in extents.iter() {
                let got = &done.buf.as_slice()[e.dst as usize..(e.dst + e.need) as usize];
                prop_assert!(got.iter().zip(e.offset..).all(|(b, i)| *b == byte(i)), "{e:?}");
            }
        }
    }
}
