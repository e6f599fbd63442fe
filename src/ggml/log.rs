//! Catches what ggml and libllama say: warnings and errors are kept for error messages, all of it is printed only when asked for.
//!
//! Also the last words: ggml ends the process when one of its asserts fails. Files are checked before they reach it, but if an
//! assert does fail, the user reads a sentence instead of a stack trace, and the exit code is 1.

use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ggml_sys::ggml_log_level;

/// At most this many messages are kept: the newest ones matter.
const MAX_KEPT: usize = 64;

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verbosity {
    /// Nothing.
    Quiet,
    /// airrun's own warnings.
    Usual,
    /// Those, and everything that ggml and libllama say.
    Everything,
}

static VERBOSITY: AtomicU8 = AtomicU8::new(Verbosity::Usual as u8);

/// Whether as much as `level` is printed.
fn prints(level: Verbosity) -> bool {
    VERBOSITY.load(Ordering::Relaxed) >= level as u8
}
static STATE: Mutex<State> =
    Mutex::new(State { messages: Vec::new(), level: 0, abort_context: None });

struct State {
    /// Warnings and errors since they were last taken, oldest first.
    messages: Vec<(ggml_log_level, String)>,
    /// Level of the line being continued.
    level: ggml_log_level,
    abort_context: Option<String>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who hears every message, while somebody does.
static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

type Listener = Box<dyn FnMut(&str) + Send>;

/// Ends listening when dropped.
pub(super) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Gives every message to `heard`, as it comes: a line, or a piece of one.
pub(super) fn listen(heard: impl FnMut(&str) + Send + 'static) -> Listening {
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(heard));
    Listening
}

/// Decides what is printed from now on.
pub fn set_verbosity(level: Verbosity) {
    VERBOSITY.store(level as u8, Ordering::Relaxed);
}

/// Names what is being worked on, in case ggml aborts; `None` when it is done.
pub fn set_abort_context(context: Option<String>) {
    state().abort_context = context;
}

/// Warnings and errors since the last call, one per line.
pub fn take_messages() -> Vec<String> {
    state().messages.drain(..).map(|(_, text)| text).collect()
}

/// Keeps a warning of airrun's own with those of ggml, and prints it.
pub fn warn(text: &str) {
    state().keep(ggml_sys::GGML_LOG_LEVEL_WARN, text);
    if prints(Verbosity::Usual) {
        drop(writeln!(std::io::stderr(), "warning: {text}"));
    }
}

impl State {
    fn keep(&mut self, level: ggml_log_level, text: &str) {
        self.messages.push((level, text.trim_end().to_owned()));
        if self.messages.len() > MAX_KEPT {
            self.messages.remove(0);
        }
    }
}

/// Forgets errors that were told: what fails next has causes of its own.
pub(super) fn forget_errors() {
    state().messages.retain(|(level, _)| *level != ggml_sys::GGML_LOG_LEVEL_ERROR);
}

/// The first error since they were forgotten, as one sentence. Warnings are no reasons: they may be of anything.
pub(super) fn take_error() -> String {
    let messages = std::mem::take(&mut state().messages);
    sentence(messages.iter().find(|(l, _)| *l == ggml_sys::GGML_LOG_LEVEL_ERROR))
}

/// The most telling of the kept messages as one sentence, for a model that could not be loaded.
pub(super) fn take_reason() -> String {
    let messages = std::mem::take(&mut state().messages);
    // The first error is the cause; what follows it says only that loading failed.
    let error = messages.iter().find(|(l, _)| *l == ggml_sys::GGML_LOG_LEVEL_ERROR);
    sentence(error.or(messages.last()))
}

fn sentence(message: Option<&(ggml_log_level, String)>) -> String {
    let text = message.map_or("no reason was given", |(_, text)| text.as_str());
    // libllama prefixes the name of its function, often twice.
    let text = text.rsplit_once("error loading model: ").map_or(text, |(_, rest)| rest);
    let text =
        text.rsplit_once("error loading model architecture: ").map_or(text, |(_, rest)| rest);
    match text.split_once(": ") {
        Some((head, rest)) if head.contains('_') && !head.contains(' ') => rest.trim().to_owned(),
        _ => text.trim().to_owned(),
    }
}

pub(super) fn install() {
    // SAFETY: both callbacks are plain functions that live as long as the program and hold no data.
    unsafe {
        ggml_sys::llama_log_set(Some(on_log), std::ptr::null_mut());
        ggml_sys::ggml_set_abort_callback(Some(on_abort));
    }
}

unsafe extern "C" fn on_log(level: ggml_log_level, text: *const c_char, _: *mut c_void) {
    super::guard::quietly(|| {
        // SAFETY: ggml passes a NUL-terminated string that lives during the call.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        let mut state = state();
        let continued = level == ggml_sys::GGML_LOG_LEVEL_CONT;
        if !continued {
            state.level = level;
        }
        let level = state.level;
        let serious =
            matches!(level, ggml_sys::GGML_LOG_LEVEL_WARN | ggml_sys::GGML_LOG_LEVEL_ERROR);
        if serious {
            match state.messages.last_mut() {
                Some((_, last)) if continued => last.push_str(&text),
                _ => state.keep(level, &text),
            }
        }
        drop(state);
        if let Some(heard) = LISTENER.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            heard(&text);
        }
        print(text.as_bytes());
    });
}

/// Prints what libllama says, if that is wanted.
pub(super) fn print(text: &[u8]) {
    if prints(Verbosity::Everything) {
        drop(std::io::stderr().write_all(text));
    }
}

unsafe extern "C" fn on_abort(message: *const c_char) {
    super::guard::quietly(|| {
        // SAFETY: ggml passes a NUL-terminated string that lives during the call.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
        // `try_lock`: the assert may have failed while the log was held.
        let what = STATE.try_lock().ok().and_then(|mut s| s.abort_context.take());
        let what = what.unwrap_or_else(|| "the computation".into());
        let line = message.lines().next().unwrap_or_default();
        let text = format!(
            "airrun: {what}: ggml cannot go on: {line}\n\n\
             hint: the file may be damaged or made for another version; `airrun inspect` shows what it says of itself\n"
        );
        drop(std::io::stderr().write_all(text.as_bytes()));
    });
    // SAFETY: ends the process without running destructors, whose invariants the failed assert has put in doubt.
    unsafe { libc::_exit(1) }
}
