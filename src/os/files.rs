//! What a system says of files beyond their bytes: which disk they are on, which file a path is.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

/// The number of the device that `path` is on.
///
/// # Errors
///
/// There is no such file; the system has no such numbers.
pub fn device(path: &Path) -> io::Result<u64> {
    device_of(&fs::metadata(path)?).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The number of the device that a file is on, where the system has such numbers.
pub fn device_of(file: &Metadata) -> Option<u64> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::MetadataExt::dev(file));
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}
