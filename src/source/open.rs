//! Which reader reads a model's files: the one that was asked for, the page cache where that pays, or the fastest.

use std::path::PathBuf;
use std::sync::Arc;

use super::choice::{Caching, Choice, OpenError, READER_ENV, ReaderKind};
use super::files::{Files, PageCache};
use super::reader::start;
use super::{Retrying, WeightSource, verdict};

/// Slower disks are worth the page cache for what is read once at the start of a program: another start is then many times faster. (bytes per second)
const SLOW: f64 = 1e9;

/// Pages that are looked for in the page cache.
const SAMPLES: u64 = 64;

/// Opens the files of a model for streaming; extents number them in this order. Reads that the system refuses are tried
/// twice. The probe of an unknown device takes about a fifth of a second, once a week.
pub fn open(paths: &[PathBuf], choice: Choice) -> Result<Box<dyn WeightSource>, OpenError> {
    let from_env = std::env::var(READER_ENV).ok().filter(|name| !name.is_empty());
    let kind = match (choice.kind, from_env) {
        (Some(kind), _) => Some(kind),
        (None, Some(name)) => Some(name.parse()?),
        (None, None) if choice.cache == Caching::Expect => Some(ReaderKind::Buffered),
        (None, None) if choice.cache == Caching::Allow && are_cached(paths)? => {
            Some(ReaderKind::Buffered)
        }
        (None, None) => None,
    };
    let inner = match kind {
        Some(kind) => start(paths, kind, page_cache(kind))?,
        None => automatic(paths, choice.cache)?,
    };
    Ok(Box::new(Retrying::new(inner)))
}

/// What the probe, or its memory, says for the device of the first file; the pool of threads where all else fails.
fn automatic(paths: &[PathBuf], cache: Caching) -> Result<Arc<dyn WeightSource>, OpenError> {
    let verdict = verdict::best_reader(paths)?;
    if cache == Caching::Allow && verdict.rate.is_some_and(|rate| rate < SLOW) {
        return start(paths, ReaderKind::Buffered, PageCache::Use);
    }
    match start(paths, verdict.reader, PageCache::Avoid) {
        Err(OpenError::Unavailable { .. }) => start(paths, ReaderKind::Pread, PageCache::Avoid),
        other => other,
    }
}

/// Whether the page cache has nearly all of the files, by a sample of their pages.
fn are_cached(paths: &[PathBuf]) -> Result<bool, OpenError> {
    let files = Files::open_buffered(paths, PageCache::Use)?;
    let all: u64 = (0..files.len()).map(|i| files.file_len(i).0).sum();
    let mut cached = 0;
    for sample in 0..SAMPLES {
        let mut at = all / SAMPLES * sample + all / SAMPLES / 2;
        let mut file = 0;
        while file + 1 < files.len() && at >= files.file_len(file).0 {
            at -= files.file_len(file).0;
            file += 1;
        }
        cached += files.read_cached(file, at, &mut [0]) as u64;
    }
    Ok(cached * 16 >= SAMPLES * 15)
}

fn page_cache(kind: ReaderKind) -> PageCache {
    if kind == ReaderKind::Buffered { PageCache::Use } else { PageCache::Avoid }
}
