//! What glibc and musl make a stream of C's stdio of: functions of ours, and what they work on.

use std::ffi::{c_char, c_int, c_void};

/// Their `cookie_io_functions_t`.
#[repr(C)]
pub(super) struct CookieIo {
    pub(super) read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    pub(super) write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    pub(super) seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    pub(super) close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    /// A stream whose functions are those of `io`, each of which is given `cookie`; null without memory for it.
    pub(super) fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        io: CookieIo,
    ) -> *mut libc::FILE;
}
