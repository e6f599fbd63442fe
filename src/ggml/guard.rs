//! Keeps panics out of C: every function that C calls runs its body in here.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic in it becomes `fallback`. The panic hook has already printed the message.
pub fn guarded<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// Runs a body without a result; a panic in it is swallowed after its message was printed.
pub fn quietly(body: impl FnOnce()) {
    guarded((), body);
}
