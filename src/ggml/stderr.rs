//! C's `stderr`: where libllama prints what it does not give to its log, as a whole grammar that it refuses. It goes where the log goes.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::ffi::{c_char, c_void};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::cookie::{CookieIo, fopencookie};

/// Takes the place of what C prints to from now on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn install() {
    unsafe extern "C" {
        static mut stderr: *mut libc::FILE;
    }
    unsafe extern "C" fn write(_: *mut c_void, text: *const c_char, n: usize) -> isize {
        super::guard::quietly(|| {
            // SAFETY: stdio passes so many bytes.
            super::log::print(unsafe { std::slice::from_raw_parts(text.cast(), n) });
        });
        n.cast_signed()
    }
    let io = CookieIo { read: None, write: Some(write), seek: None, close: None };
    // SAFETY: the callback matches the table and holds no data. glibc allows its variable to be set; this is done once, before any other
    // thread of ours calls C++.
    unsafe {
        let stream = fopencookie(std::ptr::null_mut(), c"w".as_ptr(), io);
        if !stream.is_null() {
            libc::setvbuf(stream, std::ptr::null_mut(), libc::_IOLBF, 1 << 12);
            stderr = stream;
        }
    }
}

/// Elsewhere the variable cannot be set.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn install() {}
