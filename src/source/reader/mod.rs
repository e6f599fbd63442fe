//! The readers: different ways to read extents, behind one trait, under the same tests; and the choice among them.

mod job;
pub mod pread;
#[cfg(target_os = "linux")]
pub mod uring;
mod verdict;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use self::pread::PreadSource;
#[cfg(target_os = "linux")]
use self::uring::UringSource;
use crate::source::files::{Files, PageCache};
use crate::source::{Retrying, WeightSource};

/// The environment variable that overrides the automatic choice: `uring`, `pread` or `buffered`.
pub const READER_ENV: &str = "AIRRUN_READER";

/// Slower disks are worth the page cache for what is read once at the start of a program: another start is then many times faster. (bytes per second)
const SLOW: f64 = 1e9;

/// Pages that are looked for in the page cache.
const SAMPLES: u64 = 64;

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReaderKind {
    /// io_uring, past the page cache where the file system allows it.
    Uring,
    /// A pool of threads, past the page cache where the file system allows it.
    Pread,
    /// A pool of threads, through the page cache.
    Buffered,
}

/// What the caller knows about the reads to come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// This reader and no other; `None` leaves it to [`READER_ENV`], and then to a probe.
    pub kind: Option<ReaderKind>,
    /// What the page cache may hold of it.
    pub cache: Caching,
}

/// What the page cache may hold of the bytes to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// Nothing: there are more than it has room for, or it has better things to hold.
    #[default]
    Avoid,
    /// All of it, for the next time: there is room. It is used if it has them already, or if the disk is slow.
    Allow,
    /// All of it: they are read again and again, which is several times faster through it.
    Expect,
}

/// Why the files could not be opened for reading.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file is not there, or not ours to read.
    #[error("cannot open {path}: {error}")]
    Open {
        /// The file.
        path: String,
        /// The system's answer.
        error: io::Error,
    },
    /// A reader that was asked for by name does not work here.
    #[error("the reader '{kind}' does not work here: {error}")]
    Unavailable {
        /// Which.
        kind: ReaderKind,
        /// The system's answer.
        error: io::Error,
    },
    /// The environment variable names no reader.
    #[error("{READER_ENV}: '{0}' is not a reader; it is uring, pread or buffered")]
    Unknown(String),
}

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

/// Opens the files and starts a reader of the given kind.
fn start(
    paths: &[PathBuf],
    kind: ReaderKind,
    cache: PageCache,
) -> Result<Arc<dyn WeightSource>, OpenError> {
    let unavailable = |error| OpenError::Unavailable { kind, error };
    let files = match kind {
        ReaderKind::Buffered => Files::open_buffered(paths, cache)?,
        _ => Files::open(paths, cache)?,
    };
    match kind {
        #[cfg(target_os = "linux")]
        ReaderKind::Uring => Ok(Arc::new(UringSource::start(files).map_err(unavailable)?)),
        #[cfg(not(target_os = "linux"))]
        ReaderKind::Uring => Err(unavailable(io::ErrorKind::Unsupported.into())),
        ReaderKind::Pread | ReaderKind::Buffered => {
            Ok(Arc::new(PreadSource::start(files).map_err(unavailable)?))
        }
    }
}

impl fmt::Display for ReaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ReaderKind::Uring => "uring",
            ReaderKind::Pread => "pread",
            ReaderKind::Buffered => "buffered",
        })
    }
}

impl FromStr for ReaderKind {
    type Err = OpenError;

    fn from_str(name: &str) -> Result<ReaderKind, OpenError> {
        match name {
            "uring" => Ok(ReaderKind::Uring),
            "pread" => Ok(ReaderKind::Pread),
            "buffered" => Ok(ReaderKind::Buffered),
            _ => Err(OpenError::Unknown(name.to_owned())),
        }
    }
}
