//! How ggml's buffers are made: by their type's own function, with a word to who wants to know afterwards. A type's table of functions
//! can be written to; nothing of ggml offers this, and nothing of it is changed.

use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ggml_sys as sys;

use super::backend::BufferType;
use super::guard::guarded;
use super::{clear, defer};

type Make =
    unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t;

/// How buffers of the watched types are really made; by the type's address.
static MAKERS: Mutex<Option<HashMap<usize, Make>>> = Mutex::new(None);

fn makers() -> MutexGuard<'static, Option<HashMap<usize, Make>>> {
    MAKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts [`make`] in the place of the function that makes buffers of `kind`, which must live as long as the program; once for each.
pub(super) fn watch(kind: BufferType) {
    let mut makers = makers();
    let known = makers.get_or_insert_default();
    let address = kind.0.as_ptr() as usize;
    // SAFETY: the table is in memory that may be written to; a thread that makes a buffer at this moment finds one function or the
    // other, and both do the same for it.
    unsafe {
        let place = &raw mut (*kind.0.as_ptr()).iface.alloc_buffer;
        if let (false, Some(maker)) = (known.contains_key(&address), *place) {
            known.insert(address, maker);
            place.write_volatile(Some(make));
        }
    }
}

/// Makes a buffer as its type does.
unsafe extern "C" fn make(
    kind: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    guarded(null_mut(), || {
        let maker = makers().as_ref().and_then(|known| known.get(&(kind as usize)).copied());
        let Some(maker) = maker else { return null_mut() };
        // SAFETY: this type's own function, with the arguments that ggml gave.
        let made = unsafe { maker(kind, size) };
        if let Some(buffer) = NonNull::new(made) {
            clear::made(buffer);
            defer::made(buffer, size);
        }
        made
    })
}
