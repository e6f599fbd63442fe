//! What a system says of files beyond their bytes: which file a path is, which disk it is on; names that lead elsewhere, and openings
//! that wait for nobody.

use std::fs::{File, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::path::Path;

/// What tells a file from all others while it is there: its disk's number, and its own on that disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64, u64);

/// A file, as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the system says of it.
    pub meta: Metadata,
    /// Which one it is.
    pub id: Identity,
}

impl Found {
    /// What is at `path`, where a link leads to.
    ///
    /// # Errors
    ///
    /// There is nothing, or nothing that may be looked at.
    pub fn at(path: &Path) -> io::Result<Found> {
        #[cfg(unix)]
        return Ok(Found::known(std::fs::metadata(path)?));
        // Only an open file has a number there.
        #[cfg(windows)]
        Found::of(&File::open(path)?)
    }

    /// An open file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Found> {
        let meta = file.metadata()?;
        #[cfg(unix)]
        return Ok(Found::known(meta));
        #[cfg(windows)]
        {
            let numbers = winapi_util::file::information(file)?;
            let id = Identity(numbers.volume_serial_number(), numbers.file_index());
            Ok(Found { meta, id })
        }
    }

    #[cfg(unix)]
    fn known(meta: Metadata) -> Found {
        use std::os::unix::fs::MetadataExt;
        let id = Identity(meta.dev(), meta.ino());
        Found { meta, id }
    }
}

/// The number of the device that `path` is on.
///
/// # Errors
///
/// There is no such file; the system has no such numbers.
pub fn device(path: &Path) -> io::Result<u64> {
    Ok(Found::at(path)?.id.0)
}

/// The number of the device that an open file is on.
///
/// # Errors
///
/// As [`device`].
pub fn device_of(file: &File) -> io::Result<u64> {
    Ok(Found::of(file)?.id.0)
}

/// Whether this is a file, or a disk that is read like one.
pub fn holds_bytes(kind: FileType) -> bool {
    #[cfg(unix)]
    let is_disk = std::os::unix::fs::FileTypeExt::is_block_device(&kind);
    #[cfg(not(unix))]
    let is_disk = false;
    kind.is_file() || is_disk
}

/// Opens a file to be read. A pipe whose other end nobody holds is not waited for.
///
/// # Errors
///
/// What the system says.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nonblock);
    }
    options.read(true).open(path)
}

/// What a new file of the user's may be, before the user's own mask; `None` where that is no matter of a file's making.
pub fn usual_permissions() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    None
}

/// Makes `name` lead to the file `target`.
///
/// # Errors
///
/// What the system says: there is something, or links are not for this user or file system.
pub fn link(target: &Path, name: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(target, name);
    #[cfg(windows)]
    std::os::windows::fs::symlink_file(target, name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_itself_by_all_its_names_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, name, second] = ["a", "b", "name", "second"].map(|n| dir.path().join(n));
        fs::write(&a, "x").unwrap();
        fs::write(&b, "x").unwrap();
        link(Path::new("a"), &name).unwrap();
        fs::hard_link(&a, &second).unwrap();
        let found = Found::at(&a).unwrap();
        assert_eq!(found.meta.len(), 1);
        assert_eq!(Found::of(&File::open(&a).unwrap()).unwrap().id, found.id);
        for same in [&name, &second] {
            assert_eq!(Found::at(same).unwrap().id, found.id);
        }
        assert_ne!(Found::at(&b).unwrap().id, found.id);
        assert_eq!(device(&a).unwrap(), device(dir.path()).unwrap());
        assert!(Found::at(&dir.path().join("c")).is_err());
    }
}
