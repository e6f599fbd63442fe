//! What the hardware can do, measured by doing nothing else: the disk's rate with the reader that streams and the very files, the
//! memory's rate with as many threads as compute.

use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::Error;
use crate::gguf::Index;
use crate::source::sample::{Effort, Ground, NoSample, Sample, sample};
use crate::source::{self, Choice, HostBuf, OpenError, ReaderKind};
use crate::units::{Bytes, MIB, Rate};

/// How long the disk is measured.
const DISK: Effort = Effort { least: Duration::from_millis(500), most: Duration::from_secs(2) };

/// More than the caches of any processor, so that what is read comes from memory.
const MEMORY_SAMPLE: Bytes = Bytes(512 << 20);
/// Less than this says nothing about memory.
const MIN_MEMORY_SAMPLE: Bytes = Bytes(16 << 20);
/// How long each thread reads, and how often that is repeated.
const MEMORY_TIME: Duration = Duration::from_millis(150);
const MEMORY_REPEATS: usize = 3;

/// Reads all over a model's files past the page cache, for half a second at least.
///
/// # Errors
///
/// Files that cannot be opened. That there is no rate to be had is an answer.
pub fn disk_rate(index: &Index) -> Result<Result<Sample, NoSample>, Error> {
    let paths: Vec<PathBuf> = index.files.iter().map(|f| f.path.clone()).collect();
    let mut ground = Ground::survey(&paths)?;
    let open = |kind| source::open(&paths, Choice { kind: Some(kind), ..Choice::default() });
    let source = match open(ReaderKind::Uring) {
        Err(OpenError::Unavailable { .. }) => open(ReaderKind::Pread)?,
        other => other?,
    };
    Ok(sample(source.as_ref(), &mut ground, DISK))
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
