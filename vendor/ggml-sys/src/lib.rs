//! Raw bindings to ggml and libllama as the pinned crate `llama-cpp-sys-2` builds them, ggml's device tables included.
//!
//! No logic: names and layouts only. The safe side is `airrun`'s room `ggml/`; the device tables are filled in
//! `stream/vtable.rs`. Raising the pinned version is described in CONTRIBUTING.md.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, missing_docs)]
#![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, unnecessary_transmutes)]
#![allow(unsafe_op_in_unsafe_fn, rustdoc::all)]

use llama_cpp_sys_2 as _; // links the libraries

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

// What `stream/` relies on. If one of these fails after a change of version, read the new headers before anything else.
const _: () = {
    assert!(GGML_BACKEND_API_VERSION == 3);
    assert!(GGML_MAX_DIMS == 4 && GGML_MAX_SRC == 10 && GGML_MAX_NAME == 64);
    assert!(size_of::<ggml_backend_device_i>() == 15 * size_of::<usize>());
    assert!(size_of::<ggml_backend_buffer_type_i>() == 8 * size_of::<usize>());
    assert!(size_of::<ggml_backend_buffer_i>() == 11 * size_of::<usize>());
    assert!(size_of::<ggml_backend_i>() == 16 * size_of::<usize>());
    assert!(size_of::<ggml_backend_reg_i>() == 4 * size_of::<usize>());
};
