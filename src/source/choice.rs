//! The readers by their names, what is asked of them, and why files could not be opened.

use std::fmt;
use std::io;
use std::str::FromStr;

/// The environment variable that overrides the automatic choice: `uring`, `pread` or `buffered`.
pub const READER_ENV: &str = "AIRRUN_READER";

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
