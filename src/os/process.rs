//! Processes and threads: ended at once, started apart, asked how they ended; what a thread has computed, and how important it is.

use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Ends this process without unwinding or destructors: other threads are computing.
pub fn exit_now(code: i32) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(windows)]
    super::windows::exit_now(code)
}

/// Keeps the keys that end what runs in the terminal from a process that is to be started: they are for this side, which then knows what
/// to put in order.
pub fn set_apart(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
}

/// The signal that ended a process, if it was one.
pub fn ended_by(status: ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    {
        let _ = status;
        None
    }
}

/// Whether there is a process of this number. Systems other than Linux are not asked, and know none.
pub fn is_running(process: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process}")).exists()
}

/// Time that this thread has computed: unlike a clock on the wall, it does not care what else runs.
pub fn thread_time() -> Duration {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default()
    }
    #[cfg(windows)]
    super::windows::thread_time()
}

/// Lets this thread step back behind others by so much of what Unix calls niceness. Where a thread cannot, or may not, it is as important
/// as the others.
pub fn step_back(by: i32) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(by);
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_takes_a_threads_time_and_waiting_does_not() {
        let begin = thread_time();
        while thread_time() - begin < Duration::from_millis(30) {
            std::hint::black_box(0);
        }
        let worked = thread_time();
        std::thread::spawn(|| assert!(thread_time() < Duration::from_millis(20))).join().unwrap();
        assert!(thread_time() >= worked);
    }
}
