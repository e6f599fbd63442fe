//! The readers: different ways to read extents, behind one trait, under the same tests.

pub(super) mod job;
mod pread;
#[cfg(target_os = "linux")]
mod uring;

#[cfg(test)]
mod tests;

#[cfg(not(target_os = "linux"))]
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use self::pread::PreadSource;
#[cfg(target_os = "linux")]
use self::uring::UringSource;
use crate::source::WeightSource;
use crate::source::choice::{OpenError, ReaderKind};
use crate::source::files::{Files, PageCache};

/// Opens the files and starts a reader of the given kind.
pub(super) fn start(
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
