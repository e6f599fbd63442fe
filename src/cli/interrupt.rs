//! Ctrl-C: the first stops the answer, the second ends the program. Other signals end it as ever, but leave the terminal as it was, also
//! where the line editor had changed it. One thread hears the signals.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::echo;
use crate::cli::exit::ExitStatus;
use crate::engine::Monitor;

/// What Ctrl-C does just now.
enum Mode {
    /// Ends the program: nothing is under way that could end well by itself.
    Exit,
    /// Nothing at once: the line editor reads the key itself. Once it has let go of the keyboard, the key is for what begins then.
    Wait { pressed: bool },
    /// Stops an answer.
    Stop(Arc<Monitor>),
    /// Puts something in order, and ends the program.
    CleanUp(Box<dyn FnOnce() + Send>),
    /// An answer was told to stop; now it ends the program.
    Stopping,
}

/// The process's handling of Ctrl-C.
#[derive(Clone)]
pub(crate) struct Interrupt {
    mode: Arc<Mutex<Mode>>,
}

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn new() -> io::Result<Interrupt> {
        let interrupt = Interrupt { mode: Arc::new(Mutex::new(Mode::Exit)) };
        // Who started the program may have chosen that it outlives the terminal (`nohup`).
        let is_ignored = ignored();
        let ends =
            [SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|s| is_ignored >> (s - 1) & 1 == 0);
        let mut signals = Signals::new([SIGINT].into_iter().chain(ends))?;
        let heard = interrupt.clone();
        let terminal = tcgetattr(io::stdin()).ok();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGINT => heard.hear(),
                    signal => heard.end(signal, terminal.as_ref()),
                }
            }
        })?;
        Ok(interrupt)
    }

    /// From now on Ctrl-C stops what `monitor` watches. It is stopped at once where the key came since the line editor had the keyboard;
    /// what came too late for something before does not count.
    pub(crate) fn stops(&self, monitor: Arc<Monitor>) {
        let mut mode = self.lock();
        monitor.clear_stop();
        *mode = match *mode {
            Mode::Wait { pressed: true } => {
                monitor.stop();
                Mode::Stopping
            }
            _ => Mode::Stop(monitor),
        };
    }

    /// From now on Ctrl-C calls `clean_up`, and ends the program.
    pub(crate) fn cleans_up(&self, clean_up: impl FnOnce() + Send + 'static) {
        *self.lock() = Mode::CleanUp(Box::new(clean_up));
    }

    /// From now on Ctrl-C ends the program.
    pub(crate) fn exits(&self) {
        *self.lock() = Mode::Exit;
    }

    /// The line editor has the keyboard, or will have it next.
    pub(crate) fn waits(&self) {
        *self.lock() = Mode::Wait { pressed: false };
    }

    /// Whether the answer was told to stop.
    pub(crate) fn stopping(&self) -> bool {
        matches!(*self.lock(), Mode::Stopping)
    }

    fn hear(&self) {
        let mut mode = self.lock();
        match &mut *mode {
            Mode::Wait { pressed } => *pressed = true,
            Mode::Stop(monitor) => {
                monitor.stop();
                *mode = Mode::Stopping;
            }
            Mode::Exit | Mode::Stopping | Mode::CleanUp(_) => {
                if let Mode::CleanUp(clean_up) = std::mem::replace(&mut *mode, Mode::Exit) {
                    clean_up();
                }
                echo::restore();
                // Without unwinding or destructors: other threads are computing.
                signal_hook::low_level::exit(ExitStatus::Interrupted.code().into());
            }
        }
    }

    /// Ends the program as `signal` does, with the terminal as it was.
    fn end(&self, signal: i32, terminal: Option<&Termios>) {
        let mode = std::mem::replace(&mut *self.lock(), Mode::Exit);
        if let Some(terminal) = terminal {
            put_back(terminal, matches!(mode, Mode::Wait { .. }));
        }
        if let Mode::CleanUp(clean_up) = mode {
            clean_up();
        }
        // It cannot fail for these, and there would be nothing left to do.
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the terminal of stdin back to what it was; `edited` if the line editor had it.
fn put_back(terminal: &Termios, edited: bool) {
    let stdin = io::stdin();
    // From the background, the terminal belongs to others.
    let is_ours = tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
    if !is_ours {
        return;
    }
    // A terminal that has gone needs nothing.
    let _ = tcsetattr(&stdin, OptionalActions::Now, terminal);
    if edited {
        // What the line editor turned on: pasted texts between marks.
        let mut out = io::stderr();
        let _ = out.write_all(b"\x1b[?2004l\r\n").and_then(|()| out.flush());
    }
}

/// The signals that this program was started to ignore, a bit each, the first the lowest.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_between_the_editor_and_the_answer_stops_it() {
        let interrupt = Interrupt { mode: Arc::new(Mutex::new(Mode::Exit)) };
        let monitor = Arc::new(Monitor::default());
        let begins = |is_stopped| {
            interrupt.stops(monitor.clone());
            assert_eq!((monitor.is_stopped(), interrupt.stopping()), (is_stopped, is_stopped));
        };
        interrupt.waits();
        begins(false);
        // In time for this one.
        interrupt.hear();
        assert!(monitor.is_stopped() && interrupt.stopping());
        // Too late for it, and none for the next.
        interrupt.waits();
        begins(false);
        // As the editor's last look at the line, then Enter, then the key.
        interrupt.waits();
        interrupt.hear();
        interrupt.waits();
        interrupt.hear();
        begins(true);
        // Before the editor had the keyboard.
        interrupt.waits();
        interrupt.hear();
        interrupt.waits();
        begins(false);
    }
}
