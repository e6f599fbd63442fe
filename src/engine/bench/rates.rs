//! What the hardware can do, measured by doing nothing else: the disk's rate with the reader that streams and the very files, the
//! memory's rate with as many threads as compute.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::gguf::Index;
use crate::source::{self, DIRECT_ALIGN, Extent, HostBuf, ReaderKind, Ticket, WeightSource};
use crate::units::{Bytes, MIB, Rate};

/// One request to the reader, which cuts it into reads of 1 MiB ...
const STEP: Bytes = Bytes(4 << 20);
/// ... and so many requests at a time keep its queue of 16 full.
const IN_FLIGHT: usize = 5;

/// More than the caches of any processor, so that what is read comes from memory.
const MEMORY_SAMPLE: Bytes = Bytes(512 << 20);
/// Less than this says nothing about memory.
const MIN_MEMORY_SAMPLE: Bytes = Bytes(16 << 20);
/// How long each thread reads, and how often that is repeated.
const MEMORY_TIME: Duration = Duration::from_millis(150);
const MEMORY_REPEATS: usize = 3;

/// Reads a model's files from their beginning to their end and over again, past the page cache.
#[derive(Debug)]
pub struct DiskProbe {
    source: Box<dyn WeightSource>,
    /// Whole pages of each file.
    lens: Vec<u64>,
    /// Where the next read begins: file and offset.
    at: (usize, u64),
    buffers: Vec<HostBuf>,
}

impl DiskProbe {
    /// Opens the files of `index`. `None` if they are smaller than a page.
    ///
    /// # Errors
    ///
    /// Files that cannot be opened, memory that cannot be had.
    pub fn open(index: &Index) -> Result<Option<DiskProbe>, crate::engine::Error> {
        let paths: Vec<PathBuf> = index.files.iter().map(|f| f.path.clone()).collect();
        let open =
            |kind| source::open(&paths, source::Choice { kind: Some(kind), ..Default::default() });
        let source = match open(ReaderKind::Uring) {
            Err(source::OpenError::Unavailable { .. }) => open(ReaderKind::Pread)?,
            other => other?,
        };
        let page = |len: u64| len - len % DIRECT_ALIGN;
        let lens: Vec<u64> = index.files.iter().map(|f| page(f.len.0)).collect();
        if lens.iter().all(|&len| len == 0) {
            return Ok(None);
        }
        // The first touch of a buffer's pages is not part of reading.
        let touched = |mut buf: HostBuf| {
            buf.as_mut_slice().fill(1);
            buf
        };
        let buffers: Result<Vec<_>, _> =
            (0..IN_FLIGHT).map(|_| HostBuf::new(STEP).map(touched)).collect();
        let Ok(buffers) = buffers else { return Ok(None) };
        Ok(Some(DiskProbe { source, lens, at: (0, 0), buffers }))
    }

    /// How it reads, for people.
    pub fn describe(&self) -> String {
        self.source.describe()
    }

    /// Reads on for about `time` and returns the rate from the first arrival to the last: the queue is full between the two.
    /// `None` if a read fails.
    pub fn sample(&mut self, time: Duration) -> Option<Rate> {
        let begin = Instant::now();
        let mut tickets = VecDeque::with_capacity(IN_FLIGHT);
        while let Some(buf) = self.buffers.pop() {
            tickets.push_back(self.request(buf));
        }
        let mut first = None;
        let mut last = begin;
        let mut bytes = Bytes::ZERO;
        let mut failed = false;
        while let Some((len, ticket)) = tickets.pop_front() {
            let done = ticket.wait()?;
            failed |= done.outcome.is_err();
            last = Instant::now();
            match first {
                None => first = Some(last),
                Some(_) => bytes += len,
            }
            if failed || begin.elapsed() >= time {
                self.buffers.push(done.buf);
            } else {
                tickets.push_back(self.request(done.buf));
            }
        }
        let seconds = last.duration_since(first?).as_secs_f64();
        (!failed && seconds > 0.0).then(|| Rate(bytes.f64() / seconds))
    }

    /// Asks for the next step, and says how long it is.
    fn request(&mut self, buf: HostBuf) -> (Bytes, Ticket) {
        while self.at.1 >= self.lens[self.at.0] {
            // Some file is not empty, so this ends.
            self.at = ((self.at.0 + 1) % self.lens.len(), 0);
        }
        let (file, offset) = self.at;
        let len = STEP.0.min(self.lens[file] - offset);
        self.at.1 += len;
        let extent = Extent { file, offset, len, dst: 0, need: len };
        (Bytes(len), self.source.request(Arc::new([extent]), buf))
    }
}

/// The rate at which `threads` threads together read memory; the best of a few tries, because only other programs make it
/// slower. At most a quarter of `available` is used; `None` if that is too little.
pub fn memory_rate(threads: usize, available: Bytes) -> Option<Rate> {
    let len = Bytes(MEMORY_SAMPLE.0.min(available.0 / 4) / MIB.0 * MIB.0);
    if len < MIN_MEMORY_SAMPLE {
        return None;
    }
    let mut buf = HostBuf::new(len).ok()?;
    let part = len.usize().div_ceil(threads.max(1)).next_multiple_of(64);
    thread::scope(|scope| {
        // Each thread touches what it will read, so that it lies in its own part of the memory where there are several.
        for part in buf.as_mut_slice().chunks_mut(part) {
            scope.spawn(|| part.fill(1));
        }
    });
    let parts: Vec<&[u8]> = buf.as_slice().chunks(part).collect();
    let rates = (0..MEMORY_REPEATS).map(|_| read_all(&parts));
    rates.max_by(f64::total_cmp).filter(|&rate| rate > 0.0).map(Rate)
}

/// The sum of the rates of threads that each read a part over and over. [bytes per second]
fn read_all(parts: &[&[u8]]) -> f64 {
    let start = Barrier::new(parts.len());
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .map(|part| {
                scope.spawn(|| {
                    start.wait();
                    read_over_and_over(part)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

/// Reads `part` until the time is over. [bytes per second]
fn read_over_and_over(part: &[u8]) -> f64 {
    /// How much is read between two looks at the clock.
    const STRETCH: usize = 4 << 20;
    let begin = Instant::now();
    let mut bytes = 0_u64;
    for stretch in part.chunks(STRETCH).cycle() {
        std::hint::black_box(sum(stretch));
        bytes += stretch.len() as u64;
        if begin.elapsed() >= MEMORY_TIME {
            break;
        }
    }
    Bytes(bytes).f64() / begin.elapsed().as_secs_f64()
}

/// Adds all bytes up, eight sums of eight bytes at a time: the compiler makes whole vectors of them.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0_u64; 8];
    let (lines, _) = bytes.as_chunks::<64>();
    for line in lines {
        let (words, _) = line.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |all, &s| all.wrapping_add(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_measured_with_what_there_is() {
        assert!(memory_rate(2, MIB * 4).is_none());
        assert!(memory_rate(2, MIB * 128).is_some_and(|rate| rate.0 > 1e8));
    }

    #[test]
    fn sums_see_every_byte() {
        assert_eq!(sum(&[0; 128]), 0);
        assert_eq!(sum(&1_u64.to_ne_bytes().repeat(16)), 16);
    }
}
