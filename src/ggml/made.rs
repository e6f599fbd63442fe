//! How ggml's buffers are made: by their type's own function, with a word to who wants to know afterwards. A type's table of functions
//! can be written to; nothing of ggml offers this, and nothing of it is changed.

use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ggml_sys as sys;

use super::backend::BufferType;
use super::guard::guarded;

type Make =
    unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t;

/// Hears of a fresh buffer and its size. (bytes)
pub(super) type Hear = fn(NonNull<sys::ggml_backend_buffer>, usize);

/// A watched type: how its buffers are really made, and who hears of them.
struct Watched {
    maker: Make,
    hear: Vec<Hear>,
}

/// By the type's address.
static WATCHED: Mutex<Option<HashMap<usize, Watched>>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<HashMap<usize, Watched>>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells `hear` from now on of every buffer of `kind`, which must live as long as the program: [`make`] takes the place of the function
/// that makes them.
pub(super) fn watch(kind: BufferType, hear: Hear) {
    let mut watched = watched();
    let known = watched.get_or_insert_default();
    let address = kind.0.as_ptr() as usize;
    if let Some(kind) = known.get_mut(&address) {
        if !kind.hear.iter().any(|&known| std::ptr::fn_addr_eq(known, hear)) {
            kind.hear.push(hear);
        }
        return;
    }
    // SAFETY: the table is in memory that may be written to, and a function's address is as large as a pointer. A thread that makes a
    // buffer at this moment finds one function or the other, whole, and both do the same for it.
    unsafe {
        let place = (&raw mut (*kind.0.as_ptr()).iface.alloc_buffer).cast::<*mut ()>();
        let place = AtomicPtr::from_ptr(place);
        if let Some(maker) = std::mem::transmute::<*mut (), Option<Make>>(place.load(Acquire)) {
            known.insert(address, Watched { maker, hear: vec![hear] });
            place.store(make as Make as *mut (), Release);
        }
    }
}

/// Makes a buffer as its type does.
unsafe extern "C" fn make(
    kind: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    guarded(null_mut(), || {
        let found = watched().as_ref().and_then(|known| {
            known.get(&(kind as usize)).map(|kind| (kind.maker, kind.hear.clone()))
        });
        let Some((maker, hear)) = found else { return null_mut() };
        // SAFETY: this type's own function, with the arguments that ggml gave.
        let made = unsafe { maker(kind, size) };
        if let Some(buffer) = NonNull::new(made) {
            hear.iter().for_each(|hear| hear(buffer, size));
        }
        made
    })
}
