//! The virtual file: what libllama reads a model from. Bytes it must hold are real, streamed ranges are answered without
//! touching disk or memory, and the parts of a split model look like one file.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

use super::result::Error;

/// A stretch of a virtual file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Bytes.
    pub len: u64,
    /// What they are.
    pub kind: SegmentKind,
}

/// Where the bytes of a segment come from.
#[derive(Clone, Debug)]
pub enum SegmentKind {
    /// Memory.
    Memory(Arc<[u8]>),
    /// A real file, from this offset on.
    File {
        /// Index into the virtual file's list.
        file: usize,
        /// Offset of the segment's first byte.
        offset: u64,
    },
    /// Bytes nobody looks at: reading them succeeds and writes nothing.
    Void,
}

/// The stream's buffer: C reads custom streams by whole buffers only, and the usual one is 8 KiB. A power of two.
const BUFFER: usize = 256 << 10;

/// A read-only file made of segments.
#[derive(Debug)]
pub struct VirtualFile {
    files: Vec<(File, PathBuf)>,
    /// Start of each segment in the virtual file.
    starts: Vec<u64>,
    segments: Vec<Segment>,
    len: u64,
    position: u64,
    /// Why a read failed; libllama only learns that it did.
    error: Option<String>,
}

impl VirtualFile {
    /// Opens `paths` and lays the segments end to end.
    pub fn open(paths: &[PathBuf], segments: Vec<Segment>) -> std::io::Result<VirtualFile> {
        let files = paths.iter().map(|p| Ok((File::open(p)?, p.clone())));
        let files = files.collect::<std::io::Result<Vec<_>>>()?;
        let mut len = 0;
        let mut starts = Vec::with_capacity(segments.len());
        for segment in &segments {
            starts.push(len);
            len += segment.len;
        }
        Ok(VirtualFile { files, starts, segments, len, position: 0, error: None })
    }

    /// Calls `body` with a C stream of this file, and closes it. If `body` fails because a read did, the read's error wins.
    pub(super) fn with_stream<T>(
        mut self,
        body: impl FnOnce(NonNull<libc::FILE>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let stream = open_stream(&mut self)?;
        let mut buffer = vec![0_u8; BUFFER];
        // SAFETY: a fresh stream, and a buffer that lives until it is closed. A refusal leaves the stream's own buffer.
        unsafe { libc::setvbuf(stream.as_ptr(), buffer.as_mut_ptr().cast(), libc::_IOFBF, BUFFER) };
        let result = body(stream);
        // SAFETY: `stream` was just opened and nobody kept it; `self` outlives it.
        unsafe { libc::fclose(stream.as_ptr()) };
        match (result, self.error) {
            (Err(_), Some(why)) => Err(Error::Null { what: "reading the model", why }),
            (result, _) => result,
        }
    }

    /// Reads at the position; 0 at the end, `None` on an error that is kept for the caller.
    fn read(&mut self, out: &mut Uninit<'_>) -> Option<usize> {
        let mut done = 0;
        while done < out.len && self.position < self.len {
            let i = self.starts.partition_point(|&s| s <= self.position) - 1;
            let skip = self.position - self.starts[i];
            let left = self.segments[i].len - skip;
            let room = out.len - done;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(room);
            match &self.segments[i].kind {
                SegmentKind::Void => {}
                SegmentKind::Memory(bytes) => {
                    let skip = skip as usize;
                    let bytes = bytes.get(skip..skip + n)?;
                    out.slice(done, n).iter_mut().zip(bytes).for_each(|(to, from)| {
                        to.write(*from);
                    });
                }
                SegmentKind::File { file, offset } => {
                    let (file, path) = self.files.get(*file)?;
                    if let Err(e) = read_whole(file, out.slice(done, n), offset + skip) {
                        self.error = Some(format!("{}: {e}", path.display()));
                        return None;
                    }
                }
            }
            done += n;
            self.position += n as u64;
        }
        Some(done)
    }

    fn seek(&mut self, offset: i64, whence: c_int) -> Option<u64> {
        let base = match whence {
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => self.position,
            libc::SEEK_END => self.len,
            _ => return None,
        };
        self.position = base.checked_add_signed(offset)?;
        Some(self.position)
    }
}

/// Fills `out` with what is in the file from `offset` on.
fn read_whole(
    file: &File,
    mut out: &mut [MaybeUninit<u8>],
    mut offset: u64,
) -> std::io::Result<()> {
    while !out.is_empty() {
        match rustix::io::pread(file, &mut *out, offset) {
            Ok(([], _)) => {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok((read, _)) => {
                let n = read.len();
                offset += n as u64;
                out = &mut out[n..];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// C's destination of a read: it may be uninitialised, and the part of a `Void` segment is left so.
struct Uninit<'a> {
    start: *mut u8,
    len: usize,
    _out: std::marker::PhantomData<&'a mut [u8]>,
}

impl Uninit<'_> {
    /// `n` bytes from `at` on.
    fn slice(&mut self, at: usize, n: usize) -> &mut [MaybeUninit<u8>] {
        assert!(at + n <= self.len);
        // SAFETY: inside C's buffer, which nobody else touches during the call.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at).cast(), n) }
    }
}

/// What both kinds of C callbacks do to read.
unsafe fn read_callback(cookie: *mut c_void, out: *mut c_char, n: usize) -> Option<usize> {
    super::guard::guarded(None, || {
        // SAFETY: the cookie is the `VirtualFile` of `open_stream`, used by one thread at a time (stdio locks the stream).
        let file = unsafe { &mut *cookie.cast::<VirtualFile>() };
        file.read(&mut Uninit { start: out.cast(), len: n, _out: std::marker::PhantomData })
    })
}

unsafe fn seek_callback(cookie: *mut c_void, offset: i64, whence: c_int) -> Option<u64> {
    super::guard::guarded(None, || {
        // SAFETY: as for `read_callback`.
        unsafe { &mut *cookie.cast::<VirtualFile>() }.seek(offset, whence)
    })
}

#[cfg(target_os = "linux")]
fn open_stream(file: &mut VirtualFile) -> Result<NonNull<libc::FILE>, Error> {
    use super::cookie::{CookieIo, fopencookie};
    unsafe extern "C" fn read(cookie: *mut c_void, out: *mut c_char, n: usize) -> isize {
        // SAFETY: passed on under the same contract.
        unsafe { read_callback(cookie, out, n) }.map_or(-1, |n| n as isize)
    }
    unsafe extern "C" fn seek(cookie: *mut c_void, offset: *mut i64, whence: c_int) -> c_int {
        // SAFETY: stdio passes a valid place for the offset; the rest is passed on.
        unsafe {
            match seek_callback(cookie, *offset, whence) {
                Some(position) => {
                    *offset = position as i64;
                    0
                }
                None => -1,
            }
        }
    }
    let io = CookieIo { read: Some(read), write: None, seek: Some(seek), close: None };
    // SAFETY: the callbacks match the table, and `file` outlives the stream (`with_stream` closes it).
    let stream = unsafe { fopencookie(std::ptr::from_mut(file).cast(), c"rb".as_ptr(), io) };
    NonNull::new(stream).ok_or(Error::NoMemory { what: "a stream over the model file" })
}

#[cfg(not(target_os = "linux"))]
fn open_stream(file: &mut VirtualFile) -> Result<NonNull<libc::FILE>, Error> {
    unsafe extern "C" {
        fn funopen(
            cookie: *const c_void,
            read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, c_int) -> c_int>,
            write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, c_int) -> c_int>,
            seek: Option<unsafe extern "C" fn(*mut c_void, libc::off_t, c_int) -> libc::off_t>,
            close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
        ) -> *mut libc::FILE;
    }
    unsafe extern "C" fn read(cookie: *mut c_void, out: *mut c_char, n: c_int) -> c_int {
        // SAFETY: passed on under the same contract.
        unsafe { read_callback(cookie, out, usize::try_from(n).unwrap_or(0)) }
            .map_or(-1, |n| n as c_int)
    }
    unsafe extern "C" fn seek(
        cookie: *mut c_void,
        offset: libc::off_t,
        whence: c_int,
    ) -> libc::off_t {
        // SAFETY: passed on under the same contract.
        unsafe { seek_callback(cookie, offset, whence) }.map_or(-1, |p| p as libc::off_t)
    }
    // SAFETY: the callbacks match, and `file` outlives the stream (`with_stream` closes it).
    let stream =
        unsafe { funopen(std::ptr::from_mut(file).cast(), Some(read), None, Some(seek), None) };
    NonNull::new(stream).ok_or(Error::NoMemory { what: "a stream over the model file" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_read_as_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        std::fs::write(&path, b"0123456789").unwrap();
        let memory = Segment { len: 3, kind: SegmentKind::Memory(Arc::from(*b"abc")) };
        let void = Segment { len: 2, kind: SegmentKind::Void };
        let file = Segment { len: 4, kind: SegmentKind::File { file: 0, offset: 5 } };
        let file = VirtualFile::open(&[path], vec![memory, void, file]).unwrap();
        let bytes = file
            .with_stream(|stream| {
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
        let error = file
            .with_stream(|stream| {
                let mut out = [0_u8; 4];
                // SAFETY: a valid stream and a buffer of 4 bytes.
                let n = unsafe { libc::fread(out.as_mut_ptr().cast(), 1, 4, stream.as_ptr()) };
                if n == 4 { Ok(()) } else { Err(Error::Failed { what: "reading" }) }
            })
            .unwrap_err();
        assert!(error.to_string().contains("short"), "{error}");
    }
}
