//! Panics in other people's libraries, which inputs cause: they become errors, and nothing of them reaches stderr, which belongs to words
//! for people. It knows nothing of what the libraries do.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in such a library.
    static HUSHED: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`; a panic in it becomes its message, and is not printed. What `work` leaves behind half-done must not be used again.
///
/// # Errors
///
/// What the panic said.
pub(super) fn hushed<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that is about to end is in no library.
            if !HUSHED.try_with(Cell::get).unwrap_or(false) {
                print(info);
            }
        }));
    });
    let before = HUSHED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    HUSHED.set(before);
    done.map_err(|payload: Box<dyn Any + Send>| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let zero = std::hint::black_box(0);
        assert_eq!(hushed(|| 5), Ok(5));
        assert_eq!(hushed(|| panic!("step {zero}")), Err::<(), _>("step 0".to_owned()));
        assert_eq!(hushed(|| panic!("words")), Err::<(), _>("words".to_owned()));
        // Afterwards, the thread's own panics are told again.
        assert!(!HUSHED.get());
        assert_eq!(hushed(|| hushed(|| HUSHED.get())), Ok(Ok(true)));
    }
}
