//! The virtual file where C's library lets nobody write a stream of his own: a file without a name, with holes for what nobody looks at,
//! which is gone when it is closed. The bytes that libllama must hold are written once and read once more.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::vfile::{SegmentKind, VirtualFile};

/// Writes all segments to `to`, an empty file, and goes back to its beginning.
pub(super) fn copy(file: &VirtualFile, to: &mut File) -> io::Result<()> {
    // What is not written then reads as zeros.
    to.set_len(file.len)?;
    for (segment, start) in file.segments.iter().zip(&file.starts) {
        to.seek(SeekFrom::Start(*start))?;
        match &segment.kind {
            SegmentKind::Void => {}
            SegmentKind::Memory(bytes) => {
                let n = usize::try_from(segment.len).unwrap_or(usize::MAX);
                to.write_all(bytes.get(..n).ok_or(io::ErrorKind::UnexpectedEof)?)?;
            }
            SegmentKind::File { file: i, offset } => {
                let (from, path) = file.files.get(*i).ok_or(io::ErrorKind::NotFound)?;
                let named =
                    |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
                let mut from = from;
                from.seek(SeekFrom::Start(*offset)).map_err(named)?;
                let n = io::copy(&mut from.take(segment.len), to).map_err(named)?;
                if n < segment.len {
                    return Err(named(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
    to.rewind()
}

/// An open C stream of such a file.
#[cfg(windows)]
pub(super) struct Stream(std::ptr::NonNull<libc::FILE>);

#[cfg(windows)]
impl Stream {
    /// Opens one of `file`. Where there is no room on the disk for it, the error says so.
    pub(super) fn open(file: VirtualFile) -> Result<Stream, super::result::Error> {
        use std::os::windows::io::IntoRawHandle;

        use super::result::Error;
        let failed = |e: io::Error| Error::Null {
            what: "keeping the weights that do not stream in a file for libllama",
            why: format!("{}: {e}", std::env::temp_dir().display()),
        };
        let mut spool = tempfile::tempfile().map_err(failed)?;
        // A file system without holes has room for all of it, or the next step fails.
        let _ = crate::os::windows::make_sparse(&spool);
        copy(&file, &mut spool).map_err(failed)?;
        let handle = spool.into_raw_handle();
        // SAFETY: C's library takes a handle that is ours alone, and a descriptor that is ours alone; it closes both with the stream.
        let stream = unsafe {
            let descriptor = libc::open_osfhandle(handle as isize, libc::O_RDONLY | libc::O_BINARY);
            libc::fdopen(descriptor, c"rb".as_ptr())
        };
        let stream = std::ptr::NonNull::new(stream).map(Stream);
        stream.ok_or(Error::NoMemory { what: "a stream over the model file" })
    }

    /// C's name of it, until it is closed.
    pub(super) fn start(&self) -> std::ptr::NonNull<libc::FILE> {
        self.0
    }

    /// Closes it. Why a read failed, nobody knows.
    pub(super) fn close(self) -> Option<String> {
        // SAFETY: `open` opened it, and nobody kept it.
        unsafe { libc::fclose(self.0.as_ptr()) };
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::vfile::Segment;
    use super::*;

    #[test]
    fn a_copy_holds_all_segments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        std::fs::write(&path, b"0123456789").unwrap();
        let segments = |end| {
            vec![
                Segment { len: 3, kind: SegmentKind::Memory(Arc::from(*b"abc")) },
                Segment { len: 2, kind: SegmentKind::Void },
                Segment { len: 4, kind: SegmentKind::File { file: 0, offset: 5 } },
                Segment { len: 1 << 20, kind: SegmentKind::Void },
                Segment { len: end, kind: SegmentKind::File { file: 0, offset: 0 } },
                Segment { len: 7, kind: SegmentKind::Void },
            ]
        };
        let open = |end| VirtualFile::open(std::slice::from_ref(&path), segments(end)).unwrap();
        let mut spool = tempfile::tempfile().unwrap();
        copy(&open(2), &mut spool).unwrap();
        let mut bytes = Vec::new();
        spool.read_to_end(&mut bytes).unwrap();
        let want = [b"abc\0\x005678".as_slice(), &[0; 1 << 20], b"01", &[0; 7]].concat();
        assert!(bytes == want);
        let error = copy(&open(11), &mut tempfile::tempfile().unwrap()).unwrap_err();
        assert!(error.to_string().contains("part"), "{error}");
    }
}
