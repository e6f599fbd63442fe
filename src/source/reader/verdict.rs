//! Which reader is fastest on a device: measured once in a fraction of a second with the very file, and remembered for a week.
//! Only the choice among readers is made here; it is never needed for right answers, so nothing in here fails for good.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{OpenError, ReaderKind, start};
use crate::memo;
use crate::source::files::{Files, PageCache, drop_pages};
use crate::source::{Extent, HostBuf, WeightSource};
use crate::units::{Bytes, MIB};

/// What each reader reads at most, and for how long.
const SAMPLE: Bytes = Bytes(24 << 20);
const SAMPLE_TIME: Duration = Duration::from_millis(30);
/// One request of the sample; two are in flight.
const STEP: Bytes = Bytes(4 << 20);
/// How much faster than the best one before it a reader must be to be chosen. Samples as short as these differ by a third
/// from chance alone; io_uring comes first because it needs the least of the processor, buffered reads last because they
/// need the most.
const MARGIN: f64 = 1.5;

/// All verdicts, by device number.
type Verdicts = BTreeMap<String, Verdict>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Verdict {
    reader: ReaderKind,
    /// Seconds since 1970.
    measured: u64,
}

/// The reader for files like the first of `paths`, when they do not fit the page cache.
pub(super) fn best_reader(paths: &[PathBuf]) -> Result<ReaderKind, OpenError> {
    let files = Files::open(&paths[..paths.len().min(1)], PageCache::Avoid)?;
    if !files.any_direct() {
        return Ok(ReaderKind::Pread);
    }
    if files.file_len(0) < SAMPLE * 3 {
        return Ok(ReaderKind::Uring);
    }
    let memory = memo::path("readers.json");
    let key = files.device(0).map(|dev| dev.to_string()).unwrap_or_default();
    let mut verdicts: Verdicts = memory.as_deref().and_then(memo::recall).unwrap_or_default();
    verdicts.retain(|_, v| memo::holds(v.measured));
    if let Some(verdict) = verdicts.get(&key) {
        return Ok(verdict.reader);
    }
    let reader = judge(&measure(&paths[..1], &files));
    verdicts.insert(key, Verdict { reader, measured: memo::now() });
    if let Some(memory) = memory {
        memo::remember(&memory, &verdicts);
    }
    Ok(reader)
}

/// The first of the measured readers, unless a later one is faster by [`MARGIN`]. [bytes per second]
fn judge(rates: &[(ReaderKind, f64)]) -> ReaderKind {
    let Some((&first, later)) = rates.split_first() else { return ReaderKind::Pread };
    let mut best = first;
    for &(kind, rate) in later {
        if rate > best.1 * MARGIN {
            best = (kind, rate);
        }
    }
    best.0
}

/// The rate of each reader that works here, each on its own part of the file so that none profits from another's reads.
fn measure(paths: &[PathBuf], files: &Files) -> Vec<(ReaderKind, f64)> {
    let part = files.file_len(0).0 / 3 / MIB.0 * MIB.0;
    let kinds = [ReaderKind::Uring, ReaderKind::Pread, ReaderKind::Buffered];
    let sample = |(i, kind): (u64, ReaderKind)| {
        let source = start(paths, kind, PageCache::Avoid).ok()?;
        // Past the page cache it makes no difference; through it, a cached page would look like a fast disk.
        if kind == ReaderKind::Buffered {
            drop_pages(files.handle(0, false), i * part, SAMPLE.0);
        }
        Some((kind, rate(source.as_ref(), i * part)?))
    };
    (0..).zip(kinds).filter_map(sample).collect()
}

/// Reads on from `offset` until the sample or its time is over; 0 where not even two steps are done by then. [bytes per second]
fn rate(source: &dyn WeightSource, offset: u64) -> Option<f64> {
    let request = |i: u64, buf| {
        let extent =
            Extent { file: 0, offset: offset + i * STEP.0, len: STEP.0, dst: 0, need: STEP.0 };
        source.request(Arc::new([extent]), buf)
    };
    let begin = Instant::now();
    let mut asked = 0;
    let mut tickets = VecDeque::new();
    for _ in 0..2 {
        let mut buf = HostBuf::new(STEP).ok()?;
        buf.as_mut_slice().fill(1); // the first touch of its pages is not part of reading
        tickets.push_back(request(asked, buf));
        asked += 1;
    }
    let mut ends = Vec::new();
    while let Some(mut ticket) = tickets.pop_front() {
        if !ticket.wait_timeout(SAMPLE_TIME.saturating_sub(begin.elapsed())) {
            tickets.push_back(ticket);
            break;
        }
        let done = ticket.wait()?;
        ends.push(done.outcome.ok()?.span.1);
        if asked < SAMPLE.0 / STEP.0 && begin.elapsed() < SAMPLE_TIME {
            tickets.push_back(request(asked, done.buf));
            asked += 1;
        }
    }
    source.cancel(); // so that dropping the tickets waits for the reads in flight only
    // From the end of the first step on, when threads and device are awake.
    let [first, .., last] = &ends[..] else { return Some(0.0) };
    let seconds = (*last - *first).as_secs_f64();
    Some(STEP.f64() * (ends.len() - 1) as f64 / seconds.max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_reader_must_be_clearly_faster() {
        use ReaderKind::{Buffered, Pread, Uring};
        for (rates, want) in [
            (&[(Uring, 2.0), (Pread, 2.9), (Buffered, 2.9)][..], Uring),
            (&[(Uring, 2.0), (Pread, 3.1), (Buffered, 4.0)], Pread),
            (&[(Uring, 1.0), (Pread, 1.0), (Buffered, 1.6)], Buffered),
            (&[(Pread, 1.0)], Pread),
            (&[(Uring, 0.0), (Pread, 0.0), (Buffered, 0.0)], Uring),
            (&[], Pread),
        ] {
            assert_eq!(judge(rates), want, "{rates:?}");
        }
    }
}
