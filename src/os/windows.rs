//! The few calls of Windows that no crate wraps.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::FSCTL_SET_SPARSE;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_NOACCESS, PAGE_READWRITE, VirtualAlloc, VirtualFree,
};
use windows_sys::Win32::System::Threading::{GetCurrentThread, GetThreadTimes};

/// `len` fresh addresses; with memory behind them, which comes as it is written, or such that any access faults. NULL if the system has
/// none.
pub(super) fn map(len: usize, accessible: bool) -> *mut c_void {
    let (kind, protection) = match accessible {
        true => (MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE),
        false => (MEM_RESERVE, PAGE_NOACCESS),
    };
    // SAFETY: addresses of the system's choice, which nobody has yet.
    unsafe { VirtualAlloc(null(), len, kind, protection) }
}

/// Gives back what [`map`] gave.
///
/// # Safety
///
/// `start` came from [`map`], and nobody uses or gives back what is there.
pub(super) unsafe fn unmap(start: *mut c_void) {
    // SAFETY: by this function's own contract; all of it goes, as length 0 says.
    unsafe { VirtualFree(start, 0, MEM_RELEASE) };
}

/// Lets what is never written of a file take no room on the disk.
pub(crate) fn make_sparse(file: &File) -> io::Result<()> {
    let mut n = 0;
    // SAFETY: an open handle, a code without input or output, and a place for the length of that.
    let done = unsafe {
        DeviceIoControl(
            file.as_raw_handle(),
            FSCTL_SET_SPARSE,
            null(),
            0,
            null_mut(),
            0,
            &raw mut n,
            null_mut(),
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes that this user may still write to the disk of a directory.
pub(super) fn free_space(dir: &Path) -> Option<u64> {
    let dir: Vec<u16> = dir.as_os_str().encode_wide().chain([0]).collect();
    let mut free = 0;
    // SAFETY: a text that ends with 0, and a place for the answer; the other two are not asked for.
    let done = unsafe { GetDiskFreeSpaceExW(dir.as_ptr(), &raw mut free, null_mut(), null_mut()) };
    (done != 0).then_some(free)
}

/// What this thread has computed, for itself and in the system.
pub(super) fn thread_time() -> Duration {
    let mut times = [FILETIME::default(); 4];
    let [begun, ended, system, user] = &mut times;
    // SAFETY: a handle that is always this thread, and four places for the answer.
    unsafe { GetThreadTimes(GetCurrentThread(), begun, ended, system, user) };
    // Where it failed, they are still 0. In units of 100 ns.
    let ticks = |t: FILETIME| u64::from(t.dwHighDateTime) << 32 | u64::from(t.dwLowDateTime);
    let [_, _, system, user] = times;
    Duration::from_nanos((ticks(system) + ticks(user)).saturating_mul(100))
}

/// Ends the process without destructors.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers, and does not return.
    unsafe { libc::_exit(code) }
}
