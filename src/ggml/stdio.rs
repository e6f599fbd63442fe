//! A C stream of a virtual file, whose bytes come from functions of ours.

use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::result::Error;
use super::vfile::{SegmentKind, VirtualFile};

/// The stream's buffer: C reads custom streams by whole buffers only, and the usual one is 8 KiB. A power of two.
const BUFFER: usize = 256 << 10;

/// An open stream.
pub(super) struct Stream {
    start: NonNull<libc::FILE>,
    /// What it reads from. In a place of its own: C knows its address.
    reader: Box<Reader>,
    /// What it uses until it is closed.
    _buffer: Vec<u8>,
}

impl Stream {
    /// Opens one of `file`.
    pub(super) fn open(file: VirtualFile) -> Result<Stream, Error> {
        let mut reader = Box::new(Reader { file, position: 0, error: None });
        let start = open_stream(&mut reader)?;
        let mut buffer = vec![0_u8; BUFFER];
        // SAFETY: a fresh stream, and a buffer that lives until it is closed. A refusal leaves the stream's own buffer.
        unsafe { libc::setvbuf(start.as_ptr(), buffer.as_mut_ptr().cast(), libc::_IOFBF, BUFFER) };
        Ok(Stream { start, reader, _buffer: buffer })
    }

    /// C's name of it, until it is closed.
    pub(super) fn start(&self) -> NonNull<libc::FILE> {
        self.start
    }

    /// Closes it; why a read failed, if one did.
    pub(super) fn close(self) -> Option<String> {
        // SAFETY: `open` opened it, nobody kept it, and what it reads from is still there.
        unsafe { libc::fclose(self.start.as_ptr()) };
        self.reader.error
    }
}

/// A virtual file with a place in it.
struct Reader {
    file: VirtualFile,
    position: u64,
    /// Why a read failed; libllama only learns that it did.
    error: Option<String>,
}

impl Reader {
    /// Reads at the position; 0 at the end, `None` on an error that is kept for the caller.
    fn read(&mut self, out: &mut Uninit<'_>) -> Option<usize> {
        let mut done = 0;
        while done < out.len && self.position < self.file.len {
            let i = self.file.starts.partition_point(|&s| s <= self.position) - 1;
            let skip = self.position - self.file.starts[i];
            let left = self.file.segments[i].len - skip;
            let room = out.len - done;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(room);
            match &self.file.segments[i].kind {
                SegmentKind::Void => {}
                SegmentKind::Memory(bytes) => {
                    let skip = skip as usize;
                    let bytes = bytes.get(skip..skip + n)?;
                    out.slice(done, n).iter_mut().zip(bytes).for_each(|(to, from)| {
                        to.write(*from);
                    });
                }
                SegmentKind::File { file, offset } => {
                    let (file, path) = self.file.files.get(*file)?;
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
            libc::SEEK_END => self.file.len,
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
        // SAFETY: the cookie is the `Reader` of `Stream::open`, used by one thread at a time (stdio locks the stream).
        let reader = unsafe { &mut *cookie.cast::<Reader>() };
        reader.read(&mut Uninit { start: out.cast(), len: n, _out: std::marker::PhantomData })
    })
}

unsafe fn seek_callback(cookie: *mut c_void, offset: i64, whence: c_int) -> Option<u64> {
    super::guard::guarded(None, || {
        // SAFETY: as for `read_callback`.
        unsafe { &mut *cookie.cast::<Reader>() }.seek(offset, whence)
    })
}

#[cfg(target_os = "linux")]
fn open_stream(reader: &mut Reader) -> Result<NonNull<libc::FILE>, Error> {
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
    // SAFETY: the callbacks match the table, and `reader` outlives the stream (`Stream::close` closes it).
    let stream = unsafe { fopencookie(std::ptr::from_mut(reader).cast(), c"rb".as_ptr(), io) };
    NonNull::new(stream).ok_or(Error::NoMemory { what: "a stream over the model file" })
}

#[cfg(not(target_os = "linux"))]
fn open_stream(reader: &mut Reader) -> Result<NonNull<libc::FILE>, Error> {
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
    // SAFETY: the callbacks match, and `reader` outlives the stream (`Stream::close` closes it).
    let stream =
        unsafe { funopen(std::ptr::from_mut(reader).cast(), Some(read), None, Some(seek), None) };
    NonNull::new(stream).ok_or(Error::NoMemory { what: "a stream over the model file" })
}
