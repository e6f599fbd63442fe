//! Files that are their owner's alone. On Unix by the permissions; on Windows what lies in a user's folders is that user's by the
//! folders' own rules, and nothing is added to them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory, and those above it, if it is not there.
///
/// # Errors
///
/// What the system says.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// As [`make_dir`]; one that is there is made this user's alone.
///
/// # Errors
///
/// What the system says; it is somebody else's, or a link.
pub fn own_dir(dir: &Path) -> io::Result<()> {
    make_dir(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || !is_ours(&found) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// Makes a file that is there its owner's alone.
///
/// # Errors
///
/// What the system says.
pub fn own_file(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    #[cfg(not(unix))]
    fs::metadata(path).map(drop)
}

/// A new file, or one that was there and is now empty, to be written and read.
///
/// # Errors
///
/// What the system says.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.read(true).write(true).create(true).truncate(true).open(path)
}

/// Opens a regular file of this user's to be read, and nothing that a link leads to.
///
/// # Errors
///
/// What the system says; it is something else.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    // The link itself, which is then no file.
    #[cfg(windows)]
    {
        use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_OPEN_REPARSE_POINT;
        std::os::windows::fs::OpenOptionsExt::custom_flags(
            &mut options,
            FILE_FLAG_OPEN_REPARSE_POINT,
        );
    }
    let file = options.read(true).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || !is_ours(&found) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

#[cfg(unix)]
fn is_ours(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    found.uid() == rustix::process::getuid().as_raw()
}

#[cfg(not(unix))]
fn is_ours(_: &fs::Metadata) -> bool {
    true
}
