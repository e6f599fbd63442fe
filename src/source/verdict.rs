//! Which reader is fastest on a device: measured once in a fraction of a second with the very file, and remembered for a week.
//! Only the choice among readers is made here; it is never needed for right answers, so nothing in here fails for good.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::choice::{OpenError, ReaderKind};
use super::reader::start;
use crate::memo;
use crate::source::files::{Files, PageCache};
use crate::source::sample::{Effort, Ground, NoSample, sample};
use crate::units::{Bytes, MIB};

/// How long each reader reads: a choice needs no more.
const EFFORT: Effort = Effort { least: Duration::from_millis(30), most: Duration::from_millis(60) };
/// Files with less than this are not worth choosing for.
const LEAST: Bytes = Bytes(72 * MIB.0);
/// How much faster than the best one before it a reader must be to be chosen. Samples as short as these differ by a third
/// from chance alone; io_uring comes first because it needs the least of the processor, buffered reads last because they
/// need the most.
const MARGIN: f64 = 1.5;

/// All verdicts, by device number.
type Verdicts = BTreeMap<String, Verdict>;

/// The reader for a device.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Verdict {
    pub(super) reader: ReaderKind,
    /// How fast it was, if it was measured; roughly. (bytes per second)
    pub(super) rate: Option<f64>,
    /// Seconds since 1970.
    measured: u64,
}

impl Verdict {
    fn unmeasured(reader: ReaderKind) -> Verdict {
        Verdict { reader, rate: None, measured: 0 }
    }
}

/// The reader for files like the first of `paths`, when they do not fit the page cache.
pub(super) fn best_reader(paths: &[PathBuf]) -> Result<Verdict, OpenError> {
    let files = Files::open(&paths[..paths.len().min(1)], PageCache::Avoid)?;
    if !files.any_direct() {
        return Ok(Verdict::unmeasured(ReaderKind::Pread));
    }
    let ground = Ground::survey(&paths[..1])?;
    if ground.bytes() < LEAST {
        return Ok(Verdict::unmeasured(ReaderKind::Uring));
    }
    let memory = memo::path("readers.json");
    let key = files.device(0).map(|dev| dev.to_string()).unwrap_or_default();
    let mut verdicts: Verdicts = memory.as_deref().and_then(memo::recall).unwrap_or_default();
    verdicts.retain(|_, v| memo::holds(v.measured));
    if let Some(verdict) = verdicts.get(&key) {
        return Ok(*verdict);
    }
    let rates = measure(&paths[..1], ground);
    let reader = judge(&rates);
    let rate = rates.iter().find(|(kind, _)| *kind == reader).map(|&(_, rate)| rate);
    let verdict = Verdict { reader, rate, measured: memo::now() };
    verdicts.insert(key, verdict);
    if let Some(memory) = memory {
        memo::remember(&memory, &verdicts);
    }
    Ok(verdict)
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

/// The rate of each reader that works here, 0 where hardly anything arrived; none reads what another one has read.
fn measure(paths: &[PathBuf], mut ground: Ground) -> Vec<(ReaderKind, f64)> {
    let kinds = [ReaderKind::Uring, ReaderKind::Pread, ReaderKind::Buffered];
    let mut rate = |kind| {
        let source = start(paths, kind, PageCache::Avoid).ok()?;
        ground.drop_cached(kind == ReaderKind::Buffered);
        match sample(source.as_ref(), &mut ground, EFFORT) {
            Ok(sample) => Some((kind, sample.rate().0)),
            Err(NoSample::TooSlow(_)) => Some((kind, 0.0)),
            Err(_) => None,
        }
    };
    kinds.into_iter().filter_map(&mut rate).collect()
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
