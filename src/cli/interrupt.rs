//! Ctrl-C: the first stops the answer, the second ends the program. Other signals end it as ever, but leave the terminal as it was, also
//! where the line editor had changed it. One thread hears the signals.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cli::echo;
use crate::cli::exit::ExitStatus;
use crate::engine::Monitor;
use crate::os::process;
use crate::os::signals::{self, Signal};
use crate::os::terminal::{self, Keyboard};

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
        let heard = interrupt.clone();
        let keyboard = Keyboard::now();
        signals::listen(move |signal| match signal {
            Signal::Interrupt => heard.hear(),
            Signal::End(signal) => heard.end(signal, keyboard.as_ref()),
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
                process::exit_now(ExitStatus::Interrupted.code().into());
            }
        }
    }

    /// Ends the program as `signal` does, with the terminal as it was.
    fn end(&self, signal: i32, keyboard: Option<&Keyboard>) {
        let mode = std::mem::replace(&mut *self.lock(), Mode::Exit);
        if let Some(keyboard) = keyboard {
            put_back(keyboard, matches!(mode, Mode::Wait { .. }));
        }
        if let Mode::CleanUp(clean_up) = mode {
            clean_up();
        }
        // It cannot fail for these, and there would be nothing left to do.
        signals::end_as(signal);
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the terminal of stdin back to what it was; `edited` if the line editor had it.
fn put_back(keyboard: &Keyboard, edited: bool) {
    // From the background, the terminal belongs to others.
    if !terminal::is_ours() {
        return;
    }
    // A terminal that has gone needs nothing.
    let _ = keyboard.set();
    if edited {
        // What the line editor turned on: pasted texts between marks.
        let mut out = io::stderr();
        let _ = out.write_all(b"\x1b[?2004l\r\n").and_then(|()| out.flush());
    }
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
