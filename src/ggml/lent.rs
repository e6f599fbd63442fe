//! A virtual file, lent to C as a stream.

use std::ptr::NonNull;

use super::result::Error;
#[cfg(windows)]
use super::spool::Stream;
#[cfg(not(windows))]
use super::stdio::Stream;
use super::vfile::VirtualFile;

/// Calls `body` with a C stream of `file`, and closes it. If `body` fails because a read did, the read's error wins.
pub(super) fn with_stream<T>(
    file: VirtualFile,
    body: impl FnOnce(NonNull<libc::FILE>) -> Result<T, Error>,
) -> Result<T, Error> {
    let stream = Stream::open(file)?;
    let result = body(stream.start());
    match (result, stream.close()) {
        (Err(_), Some(why)) => Err(Error::Null { what: "reading the model", why }),
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ggml::{Segment, SegmentKind};

    #[test]
    fn segments_read_as_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        std::fs::write(&path, b"0123456789").unwrap();
        let memory = Segment { len: 3, kind: SegmentKind::Memory(Arc::from(*b"abc")) };
        let void = Segment { len: 2, kind: SegmentKind::Void };
        let file = Segment { len: 4, kind: SegmentKind::File { file: 0, offset: 5 } };
        let file = VirtualFile::open(&[path], vec![memory, void, file]).unwrap();
        let bytes = with_stream(file, |stream| {
            let mut out = [b'.'; 16];
            // SAFETY: a valid stream and a buffer of 16 bytes.
            let n = unsafe {
                libc::fseek(stream.as_ptr(), 1, libc::SEEK_SET);
                libc::fread(out.as_mut_ptr().cast(), 1, 16, stream.as_ptr())
            };
            Ok(out[..n].to_vec())
        })
        .unwrap();
        // What stands in for the void is whatever was in stdio's buffer.
        assert_eq!((&bytes[..2], &bytes[4..]), (b"bc".as_slice(), b"5678".as_slice()));
    }

    #[test]
    fn a_missing_byte_is_an_error_with_the_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("short");
        std::fs::write(&path, b"01").unwrap();
        let segment = Segment { len: 4, kind: SegmentKind::File { file: 0, offset: 0 } };
        let file = VirtualFile::open(&[path], vec![segment]).unwrap();
        let error = with_stream(file, |stream| {
            let mut out = [0_u8; 4];
            // SAFETY: a valid stream and a buffer of 4 bytes.
            let n = unsafe { libc::fread(out.as_mut_ptr().cast(), 1, 4, stream.as_ptr()) };
            if n == 4 { Ok(()) } else { Err(Error::Failed { what: "reading" }) }
        })
        .unwrap_err();
        assert!(error.to_string().contains("short"), "{error}");
    }
}
