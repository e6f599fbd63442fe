//! Ctrl-C: the first stops the answer, the second ends the program. One thread hears the signals.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::cli::echo;
use crate::cli::exit::ExitStatus;
use crate::engine::Monitor;

/// What Ctrl-C does just now.
enum Mode {
    /// Ends the program: nothing is under way that could end well by itself.
    Exit,
    /// Nothing: the line editor reads the key itself.
    Ignore,
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
        let mut signals = Signals::new([SIGINT])?;
        let heard = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                heard.hear();
            }
        })?;
        Ok(interrupt)
    }

    /// From now on Ctrl-C stops what `monitor` watches.
    pub(crate) fn stops(&self, monitor: Arc<Monitor>) {
        *self.lock() = Mode::Stop(monitor);
    }

    /// From now on Ctrl-C calls `clean_up`, and ends the program.
    pub(crate) fn cleans_up(&self, clean_up: impl FnOnce() + Send + 'static) {
        *self.lock() = Mode::CleanUp(Box::new(clean_up));
    }

    /// From now on Ctrl-C ends the program.
    pub(crate) fn exits(&self) {
        *self.lock() = Mode::Exit;
    }

    /// From now on Ctrl-C does nothing.
    pub(crate) fn ignore(&self) {
        *self.lock() = Mode::Ignore;
    }

    /// Whether the answer was told to stop.
    pub(crate) fn stopping(&self) -> bool {
        matches!(*self.lock(), Mode::Stopping)
    }

    fn hear(&self) {
        let mut mode = self.lock();
        match &*mode {
            Mode::Ignore => {}
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

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
