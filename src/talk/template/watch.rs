//! Work that may never end, on a thread that is watched: its time and its memory. Fuel bounds the steps of a template, but not what one
//! step does to a large value: twenty steps make a gigabyte of a byte. A thread cannot be ended from outside; one that takes too much
//! sleeps for ever, with what it has, and its template is not to be used again.

use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::jinja::TemplateError;
use crate::heap::Account;
use crate::talk::hush::hushed;

/// Time that one rendering may take.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Memory that it may take, in bytes.
const MAX_MEMORY: usize = 512 << 20;
/// How often both are looked at; most templates are done before the first time.
const TICK: Duration = Duration::from_millis(5);
/// Room for expressions as deep as a template is long, and for values nested as deeply as its fuel
/// allows: compiling, printing and dropping them recurses. Only the part that is used becomes
/// memory.
const STACK: usize = 512 << 20;
/// Into how many parts that is cut at most where addresses are scarce.
const MOST_PARTS: usize = 16;
/// Addresses that there must be for each one of a stack, when templates are made ready: the model is loaded after that, and takes some.
const SPARE: usize = 4;

/// Into how many parts the stack must be cut for the system to grant it, now and later. Limits for what uses it are to be cut likewise.
pub(super) fn parts() -> usize {
    static PARTS: OnceLock<usize> = OnceLock::new();
    *PARTS.get_or_init(|| {
        let granted = |parts: &usize| {
            let size = SPARE * STACK / parts;
            let thread = thread::Builder::new().stack_size(size).spawn(|| {});
            thread.is_ok_and(|thread| thread.join().is_ok())
        };
        let halves = std::iter::successors(Some(1), |parts| Some(parts * 2));
        halves.take_while(|&parts| parts <= MOST_PARTS).find(granted).unwrap_or(MOST_PARTS)
    })
}

/// Does `work` on a thread of its own, with a large stack, and gives up on it when it takes too
/// much.
pub(super) fn watched<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TemplateError> + Send + 'static,
) -> Result<T, TemplateError> {
    let failed = |why: &str| TemplateError::Failed(why.to_owned());
    let (sender, result) = sync_channel(1);
    let (begin, account) = (Instant::now(), Account::new(MAX_MEMORY));
    let payer = account.clone();
    thread::Builder::new()
        .name("template".to_owned())
        .stack_size(STACK / parts())
        .spawn(move || {
            let result = payer.pay(|| hushed(work)).unwrap_or_else(|why| {
                Err(TemplateError::Failed(format!("the template engine cannot do this ({why})")))
            });
            // Nobody listens any more if it took too long.
            let _ = sender.send(result);
        })
        .map_err(|e| failed(&format!("no thread for it: {e}")))?;
    loop {
        match result.recv_timeout(TICK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(failed("its thread has ended")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if account.is_over() {
            return Err(TemplateError::Runaway("memory"));
        }
        if begin.elapsed() > MAX_TIME {
            account.stop();
            return Err(TemplateError::Runaway("time"));
        }
    }
}
