//! The keyboard's echo, off while an answer is written: what is typed meanwhile would be mixed into it. It is there afterwards, as the
//! beginning of the next line. Whoever ends the program in the middle puts it back first.

use std::sync::{Mutex, PoisonError};

use crate::os::terminal::Keyboard;

/// How the terminal was, while it is otherwise.
static BEFORE: Mutex<Option<Keyboard>> = Mutex::new(None);

/// The echo is off until this is dropped.
#[derive(Debug)]
pub(crate) struct Off;

/// Turns it off, if stdin is a terminal.
pub(crate) fn off() -> Off {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if before.is_none()
        && let Some(now) = Keyboard::now()
        // A terminal that cannot do this goes on as it is.
        && now.without_echo().set().is_ok()
    {
        *before = Some(now);
    }
    Off
}

/// Puts the terminal back as it was.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _ = before.set();
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        restore();
    }
}
