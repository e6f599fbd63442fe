//! What tells the program to end: signals, or what a Windows console has for them.

use std::io;
#[cfg(unix)]
use std::thread;

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// Another one, by its number, which ends a program that does not listen.
    End(i32),
}

/// Calls `heard` in a thread of its own with all that comes from now on.
///
/// # Errors
///
/// There is no thread, or no listening.
pub fn listen(mut heard: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    #[cfg(unix)]
    {
        // Who started the program may have chosen that it outlives the terminal (`nohup`).
        let is_ignored = ignored();
        let ends =
            [SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|s| is_ignored >> (s - 1) & 1 == 0);
        let all = [SIGINT].into_iter().chain(ends);
        let mut signals = signal_hook::iterator::Signals::new(all)?;
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                heard(if signal == SIGINT { Signal::Interrupt } else { Signal::End(signal) });
            }
        })?;
        Ok(())
    }
    // A window that is closed and a user who logs off are heard as the key is; the system ends who takes longer than some seconds.
    #[cfg(windows)]
    ctrlc::set_handler(move || heard(Signal::Interrupt)).map_err(io::Error::other)
}

/// Ends the program as `signal` does where nobody listens. Returns if it cannot.
pub fn end_as(signal: i32) {
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    #[cfg(not(unix))]
    super::process::exit_now(signal);
}

/// The signals that this program was started to ignore, a bit each, the first the lowest.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// What tells a server to stop: Ctrl-C, and what those send who watch over it.
#[derive(Debug)]
pub struct Stops {
    #[cfg(unix)]
    heard: [tokio::signal::unix::Signal; 2],
    #[cfg(windows)]
    heard: (tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlShutdown),
}

impl Stops {
    /// Listens from now on. To be called where tokio runs.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new() -> io::Result<Stops> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let heard = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
            Ok(Stops { heard })
        }
        #[cfg(windows)]
        {
            use tokio::signal::windows::{ctrl_c, ctrl_shutdown};
            Ok(Stops { heard: (ctrl_c()?, ctrl_shutdown()?) })
        }
    }

    /// Waits until the process is told to stop, or told again.
    pub async fn wait(&mut self) {
        #[cfg(unix)]
        let [one, other] = &mut self.heard;
        #[cfg(windows)]
        let (one, other) = &mut self.heard;
        tokio::select! {
            _ = one.recv() => {}
            _ = other.recv() => {}
        }
    }
}
