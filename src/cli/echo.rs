//! The keyboard's echo, off while an answer is written: what is typed meanwhile would be mixed into it. It is there afterwards, as the
//! beginning of the next line. Whoever ends the program in the middle puts it back first.

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// How the terminal was, while it is otherwise.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The echo is off until this is dropped.
#[derive(Debug)]
pub(crate) struct Off;

/// Turns it off, if stdin is a terminal.
pub(crate) fn off() -> Off {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if before.is_none()
        && let Ok(now) = tcgetattr(io::stdin())
    {
        let mut quiet = now.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // A terminal that cannot do this goes on as it is.
        if tcsetattr(io::stdin(), OptionalActions::Now, &quiet).is_ok() {
            *before = Some(now);
        }
    }
    Off
}

/// Puts the terminal back as it was.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        restore();
    }
}
