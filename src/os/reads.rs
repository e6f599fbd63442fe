//! Reading files by position, past the page cache, and out of it without waiting; what of a file is on its disk. Where a system lacks
//! one of these it says so, or does nothing where that was advice.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

/// Reads from `offset` on, up to all of `out`; how many bytes that was, 0 at the end. Many threads may at once.
///
/// # Errors
///
/// What the system says.
pub fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, out, offset);
    // It moves the file's cursor, too, which nobody reads by here.
    #[cfg(windows)]
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Reads all of `out` from `offset` on.
///
/// # Errors
///
/// What the system says; the file ends before.
pub fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match read_at(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a file to be read past the page cache, with addresses, offsets and lengths that are multiples of what the disk asks for.
///
/// # Errors
///
/// What the system says; it knows no such thing.
pub fn open_direct(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
        options.read(true).open(path)
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_NO_BUFFERING;
        let mut options = std::fs::OpenOptions::new();
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, FILE_FLAG_NO_BUFFERING);
        options.read(true).open(path)
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads what the page cache has at `offset`, up to all of `out`, without ever waiting for the disk; how many bytes that was, none where
/// the system cannot tell.
#[cfg(target_os = "linux")]
pub fn read_cached(file: &File, out: &mut [u8], offset: u64) -> usize {
    use std::os::fd::AsRawFd;
    let Ok(at) = libc::off_t::try_from(offset) else { return 0 };
    let target = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: an open descriptor, and one buffer that is ours to write during the call.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &raw const target, 1, at, libc::RWF_NOWAIT) };
    usize::try_from(n).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
#[expect(missing_docs, reason = "as above")]
pub fn read_cached(_: &File, _: &mut [u8], _: u64) -> usize {
    0
}

/// Asks the system to drop clean pages of a range from the page cache. Advice: what it cannot drop stays.
#[cfg(target_os = "linux")]
pub fn drop_cached(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: takes a descriptor that is open while `file` is borrowed, and touches no memory of ours.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
#[expect(missing_docs, reason = "as above")]
pub fn drop_cached(_: &File, _: u64, _: u64) {}

/// What to look for in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// Bytes that are on the disk.
    Data,
    /// A stretch that only reads as zeros.
    Hole,
}

/// The next place at or after `from` with data, or without; `None` if there is none before the end. It moves the file's cursor.
///
/// # Errors
///
/// What the system says; it cannot tell.
#[cfg(target_os = "linux")]
pub fn seek(file: &File, from: u64, what: Seek) -> io::Result<Option<u64>> {
    use std::os::fd::AsRawFd;
    let from = i64::try_from(from).map_err(io::Error::other)?;
    let whence = if what == Seek::Data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
    // SAFETY: a descriptor that is open while `file` is borrowed.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(at) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(missing_docs, reason = "as above")]
pub fn seek(_: &File, _: u64, _: Seek) -> io::Result<Option<u64>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = File::open(&path).unwrap();
        let mut out = [0; 4];
        assert_eq!(read_at(&file, &mut out, 8).unwrap(), 2);
        assert_eq!(read_at(&file, &mut out, 10).unwrap(), 0);
        read_exact_at(&file, &mut out, 3).unwrap();
        assert_eq!(&out, b"3456");
        let early = read_exact_at(&file, &mut out, 8).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::UnexpectedEof);
    }
}
