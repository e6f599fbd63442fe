//! The terminal that stdin is, if it is one: how it treats what is typed, and whether it is ours.

use std::io;

/// How a terminal treats its keyboard.
#[derive(Clone, Debug)]
pub struct Keyboard {
    #[cfg(unix)]
    how: rustix::termios::Termios,
    #[cfg(windows)]
    how: u32,
}

impl Keyboard {
    /// As it is now; `None` if stdin is no terminal.
    pub fn now() -> Option<Keyboard> {
        #[cfg(unix)]
        let how = rustix::termios::tcgetattr(io::stdin()).ok()?;
        #[cfg(windows)]
        let how = winapi_util::console::mode(winapi_util::HandleRef::stdin()).ok()?;
        Some(Keyboard { how })
    }

    /// The same, but that what is typed is not shown.
    pub fn without_echo(&self) -> Keyboard {
        let mut quiet = self.clone();
        #[cfg(unix)]
        quiet.how.local_modes.remove(rustix::termios::LocalModes::ECHO);
        #[cfg(windows)]
        {
            quiet.how &= !windows_sys::Win32::System::Console::ENABLE_ECHO_INPUT;
        }
        quiet
    }

    /// Makes the terminal so.
    ///
    /// # Errors
    ///
    /// It cannot, or has gone.
    pub fn set(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use rustix::termios::{OptionalActions, tcsetattr};
            Ok(tcsetattr(io::stdin(), OptionalActions::Now, &self.how)?)
        }
        #[cfg(windows)]
        winapi_util::console::set_mode(winapi_util::HandleRef::stdin(), self.how)
    }
}

/// Whether stdin's terminal listens to this program. From the background, it belongs to others.
pub fn is_ours() -> bool {
    #[cfg(unix)]
    {
        let front = rustix::termios::tcgetpgrp(io::stdin());
        front.is_ok_and(|group| group == rustix::process::getpgrp())
    }
    #[cfg(not(unix))]
    true
}
