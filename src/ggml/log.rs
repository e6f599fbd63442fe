//! Catches what ggml and libllama say: warnings and errors are kept for error messages, all of it is printed only when asked for.
//!
//! Reasons belong to who caused them: ggml speaks on the thread that called it, and what a thread hears is kept for that thread. What a
//! thread of ggml's own says is for the call that is under way, if there is one only; otherwise nobody can tell whose it is.
//!
//! Also the last words: ggml ends the process when one of its asserts fails. Files are checked before they reach it, but if an
//! assert does fail, the user reads a sentence instead of a stack trace, and the exit code is 1.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ggml_sys::ggml_log_level;

use crate::os::process;

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

static ABORT_CONTEXT: Mutex<Option<String>> = Mutex::new(None);

/// Warnings and errors, oldest first.
#[derive(Debug, Default)]
struct Messages(Vec<(ggml_log_level, String)>);

impl Messages {
    fn keep(&mut self, level: ggml_log_level, text: &str) {
        self.0.push((level, text.trim_end().to_owned()));
        if self.0.len() > MAX_KEPT {
            self.0.remove(0);
        }
    }

    /// The cause: what follows the first error says only that something failed.
    fn error(&self) -> Option<&str> {
        let (_, text) = self.0.iter().find(|(l, _)| *l == ggml_sys::GGML_LOG_LEVEL_ERROR)?;
        Some(text)
    }
}

/// What one thread has heard.
#[derive(Default)]
struct Heard {
    /// Since it was last taken.
    messages: Messages,
    /// Level of the line being continued.
    level: ggml_log_level,
    /// Whether this thread calls ggml, and is none of ggml's own.
    calls: bool,
    /// What threads of ggml's own said of the call that is under way here.
    others: Option<Arc<Mutex<Messages>>>,
    /// Who hears every message of this thread, while somebody does.
    listener: Option<Listener>,
}

thread_local! {
    static HEARD: RefCell<Heard> = RefCell::default();
}

type Listener = Box<dyn FnMut(&str)>;

/// Calls that are under way, on all threads.
static CALLS: Calls = Calls(Mutex::new(Vec::new()));

#[derive(Debug, Default)]
struct Calls(Mutex<Vec<Arc<Mutex<Messages>>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// Something was said on a thread of ggml's own.
    fn hear(&self, level: ggml_log_level, text: &str) {
        if let [only] = lock(&self.0).as_slice() {
            lock(only).keep(level, text);
        }
    }

    fn begin(&'static self) -> Call {
        let others = Arc::<Mutex<Messages>>::default();
        lock(&self.0).push(others.clone());
        let mut before = None;
        let _ = HEARD.try_with(|heard| {
            let mut heard = heard.borrow_mut();
            // Errors that were told: what fails next has causes of its own.
            heard.messages.0.retain(|(level, _)| *level != ggml_sys::GGML_LOG_LEVEL_ERROR);
            heard.calls = true;
            before = heard.others.replace(others.clone());
        });
        Call { calls: self, others, before, _stays: PhantomData }
    }
}

/// A call of this thread's into libllama, whose reasons are wanted if it fails; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Call {
    calls: &'static Calls,
    others: Arc<Mutex<Messages>>,
    /// Those of the call that this one is made in.
    before: Option<Arc<Mutex<Messages>>>,
    _stays: PhantomData<*const ()>,
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.calls.0).retain(|call| !Arc::ptr_eq(call, &self.others));
        let before = self.before.take();
        let _ = HEARD.try_with(|heard| heard.borrow_mut().others = before);
    }
}

/// Begins a call into libllama on this thread. Errors of earlier ones are forgotten.
pub(super) fn call() -> Call {
    CALLS.begin()
}

/// This thread calls ggml: what is said on it is its own.
pub(super) fn thread_calls() {
    let _ = HEARD.try_with(|heard| heard.borrow_mut().calls = true);
}

/// Ends listening when dropped.
pub(super) struct Listening(PhantomData<*const ()>);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = HEARD.try_with(|heard| heard.borrow_mut().listener = None);
    }
}

/// Gives every message of this thread to `heard`, as it comes: a line, or a piece of one.
pub(super) fn listen(heard: impl FnMut(&str) + 'static) -> Listening {
    let _ = HEARD.try_with(|all| all.borrow_mut().listener = Some(Box::new(heard)));
    Listening(PhantomData)
}

/// Decides what is printed from now on.
pub fn set_verbosity(level: Verbosity) {
    VERBOSITY.store(level as u8, Ordering::Relaxed);
}

/// Names what is being worked on, in case ggml aborts; `None` when it is done.
pub fn set_abort_context(context: Option<String>) {
    *lock(&ABORT_CONTEXT) = context;
}

/// Warnings and errors of this thread since the last call, one per line.
pub(super) fn take_messages() -> Vec<String> {
    take().0.into_iter().map(|(_, text)| text).collect()
}

fn take() -> Messages {
    HEARD.try_with(|heard| std::mem::take(&mut heard.borrow_mut().messages)).unwrap_or_default()
}

/// Keeps a warning of airrun's own with those of ggml, and prints it.
pub fn warn(text: &str) {
    let keep = |heard: &RefCell<Heard>| {
        heard.borrow_mut().messages.keep(ggml_sys::GGML_LOG_LEVEL_WARN, text);
    };
    let _ = HEARD.try_with(keep);
    if prints(Verbosity::Usual) {
        drop(writeln!(std::io::stderr(), "warning: {text}"));
    }
}

/// The first error of the call that is under way, or the last one, as one sentence. Warnings are no reasons: they may be of anything.
pub(super) fn take_error() -> String {
    reason(|_| None)
}

/// The most telling of this thread's messages as one sentence, for a model that could not be loaded.
pub(super) fn take_reason() -> String {
    reason(|messages| Some(messages.0.last()?.1.as_str()))
}

/// The first error; where there is none, the first of ggml's own threads, or what `otherwise` finds.
fn reason(otherwise: impl Fn(&Messages) -> Option<&str>) -> String {
    let messages = take();
    let others = HEARD.try_with(|heard| heard.borrow().others.clone()).ok().flatten();
    let others = others.map(|others| std::mem::take(&mut *lock(&others))).unwrap_or_default();
    sentence(messages.error().or(others.error()).or_else(|| otherwise(&messages)))
}

fn sentence(message: Option<&str>) -> String {
    let text = message.unwrap_or("no reason was given");
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
        hear(&CALLS, level, &text);
        print(text.as_bytes());
    });
}

/// Keeps what is serious for who will ask, and gives all of it to who listens.
fn hear(calls: &Calls, level: ggml_log_level, text: &str) {
    // A thread that ends has nobody who will ask.
    let _ = HEARD.try_with(|all| {
        let mut heard = all.borrow_mut();
        let continued = level == ggml_sys::GGML_LOG_LEVEL_CONT;
        if !continued {
            heard.level = level;
        }
        let level = heard.level;
        if matches!(level, ggml_sys::GGML_LOG_LEVEL_WARN | ggml_sys::GGML_LOG_LEVEL_ERROR) {
            match heard.messages.0.last_mut() {
                Some((_, last)) if continued => last.push_str(text),
                _ => heard.messages.keep(level, text),
            }
            if !heard.calls {
                calls.hear(level, text);
            }
        }
        // Whoever listens may call ggml.
        let Some(mut listener) = heard.listener.take() else { return };
        drop(heard);
        listener(text);
        all.borrow_mut().listener = Some(listener);
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
        let what = ABORT_CONTEXT.try_lock().ok().and_then(|mut context| context.take());
        let what = what.unwrap_or_else(|| "the computation".into());
        let line = message.lines().next().unwrap_or_default();
        let text = format!(
            "airrun: {what}: ggml cannot go on: {line}\n\n\
             hint: the file may be damaged or made for another version; `airrun inspect` shows what it says of itself\n"
        );
        drop(std::io::stderr().write_all(text.as_bytes()));
    });
    // Without running destructors, whose invariants the failed assert has put in doubt.
    process::exit_now(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    const ERROR: ggml_log_level = ggml_sys::GGML_LOG_LEVEL_ERROR;

    #[test]
    fn reasons_belong_to_who_caused_them() {
        let (all_begin, all_spoke) = (Barrier::new(8), Barrier::new(8));
        thread::scope(|scope| {
            for i in 0..8 {
                let (all_begin, all_spoke) = (&all_begin, &all_spoke);
                scope.spawn(move || {
                    let call = call();
                    all_begin.wait();
                    if i != 0 {
                        hear(&CALLS, ERROR, &format!("load_it: the fault of {i}"));
                        hear(&CALLS, ggml_sys::GGML_LOG_LEVEL_CONT, " alone\n");
                        hear(&CALLS, ERROR, "what follows from it\n");
                    }
                    all_spoke.wait();
                    let wanted = match i {
                        0 => "no reason was given".to_owned(),
                        _ => format!("the fault of {i} alone"),
                    };
                    assert_eq!(take_error(), wanted);
                    assert_eq!(take_error(), "no reason was given");
                    drop(call);
                });
            }
        });
    }

    #[test]
    fn what_threads_of_ggml_say_is_for_the_only_call() {
        let calls: &'static Calls = Box::leak(Box::default());
        let says = || thread::spawn(|| hear(calls, ERROR, "the device is gone\n")).join().unwrap();
        let call = calls.begin();
        says();
        assert_eq!(take_error(), "the device is gone");
        assert_eq!(take_error(), "no reason was given");
        says();
        // What the thread heard itself says more.
        hear(calls, ERROR, "its own\n");
        assert_eq!(take_reason(), "its own");
        // Of two, nobody knows whose it is.
        let (begun, over) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _call = calls.begin();
                begun.wait();
                over.wait();
                assert_eq!(take_error(), "no reason was given");
            });
            begun.wait();
            says();
            over.wait();
        });
        assert_eq!(take_error(), "no reason was given");
        drop(call);
        says();
        assert_eq!(take_error(), "no reason was given");
    }

    #[test]
    fn who_listens_hears_this_thread_only() {
        let (tell, told) = std::sync::mpsc::channel();
        let listening = listen(move |text| drop(tell.send(text.to_owned())));
        thread::spawn(|| hear(&CALLS, ERROR, "elsewhere")).join().unwrap();
        hear(&CALLS, ggml_sys::GGML_LOG_LEVEL_INFO, "here");
        drop(listening);
        hear(&CALLS, ERROR, "too late");
        assert_eq!(told.iter().collect::<Vec<_>>(), ["here"]);
        assert_eq!(take_messages(), ["too late"]);
    }
}
