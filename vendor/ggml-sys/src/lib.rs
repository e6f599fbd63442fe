//! Raw bindings to ggml and libllama as the pinned crate `llama-cpp-sys-2` builds them, ggml's device tables included.
//!
//! No logic: names and layouts only. The safe side is `airrun`'s room `ggml/`; the device tables are filled in
//! `stream/vtable.rs`. Raising the pinned version is described in CONTRIBUTING.md.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, missing_docs)]
#![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, unnecessary_transmutes)]
#![allow(unsafe_op_in_unsafe_fn, rustdoc::all)]

#[cfg(not(bindings_only))]
use llama_cpp_sys_2 as _; // links the libraries

/// What may throw, under its own name: exceptions of C++ end inside.
pub use self::{
    ggml_sys_llama_decode as llama_decode, ggml_sys_llama_encode as llama_encode,
    ggml_sys_llama_init_from_model as llama_init_from_model,
    ggml_sys_llama_memory_clear as llama_memory_clear,
    ggml_sys_llama_memory_seq_cp as llama_memory_seq_cp,
    ggml_sys_llama_memory_seq_rm as llama_memory_seq_rm,
    ggml_sys_llama_model_load_from_file_ptr as llama_model_load_from_file_ptr,
    ggml_sys_llama_model_quantize as llama_model_quantize,
    ggml_sys_llama_sampler_accept as llama_sampler_accept,
    ggml_sys_llama_sampler_apply as llama_sampler_apply,
    ggml_sys_llama_sampler_chain_add as llama_sampler_chain_add,
    ggml_sys_llama_sampler_chain_init as llama_sampler_chain_init,
    ggml_sys_llama_sampler_clone as llama_sampler_clone,
    ggml_sys_llama_set_embeddings as llama_set_embeddings,
    ggml_sys_llama_token_to_piece as llama_token_to_piece,
    ggml_sys_llama_tokenize as llama_tokenize,
};

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
