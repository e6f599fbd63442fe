//! Safe wrappers of ggml and libllama: handles that own, handles that don't, and C's answers as `Result`.
//!
//! Three layers carry the same word: `ggml_sys::ggml_backend_graph_compute` is raw, `result::check` turns its status
//! into a `Result`, `Backend::compute` is what the rest of airrun calls. Types that own something have a `Drop` (the list is
//! that of ggml-cpp.h and llama-cpp.h); devices, buffer types, vocabularies and tensors are plain `Copy` handles.
#![allow(unsafe_code)]

mod backend;
mod batch;
mod clear;
mod context;
#[cfg(target_os = "linux")]
mod cookie;
mod defer;
mod devices;
mod event;
mod gauge;
mod grammar;
mod graph;
pub mod guard;
mod hidden;
mod keep;
mod lease;
mod lent;
mod log;
mod made;
mod memory;
mod model;
mod pieces;
mod placement;
mod pooling;
mod quantize;
mod recall;
mod result;
mod sampler;
#[cfg(any(windows, test))]
mod spool;
mod stderr;
#[cfg(not(windows))]
mod stdio;
mod tensors;
mod texts;
mod tokenize;
mod upload;
mod vectors;
mod vfile;
mod vocab;
mod words;

use std::ffi::{CStr, c_char};
use std::sync::{Once, OnceLock};

pub use backend::{Backend, Buffer, BufferType, Capabilities, Device, Threadpool};
pub use batch::BatchToken;
pub use context::{Context, ContextParams, Layers, Part, Taken};
pub use defer::{Deferred, Unfilled};
pub use devices::{DeviceKind, DeviceMemory};
pub use event::Event;
pub use gauge::Matmul;
pub use grammar::{Loose, SchemaGrammar, check_grammar_text, grammar_of_schema};
pub use graph::{Graph, Tensor};
pub use log::{Verbosity, set_verbosity, warn};
pub use memory::{Area, Pinned};
pub use model::{Keep, Model, ModelParams, OnProgress, Token};
pub use pieces::Pieces;
pub use placement::{Numbers, Placement};
pub use pooling::Pooling;
pub use quantize::{QuantizeParams, QuantizeStep, quantize};
pub use recall::{KvHome, KvType, Recall, Rope, RopeScaling};
pub use result::Error;
pub use sampler::{Dry, Mirostat, Sampler, SamplerSettings};
pub use upload::{Upload, measure_upload};
pub use vfile::{Segment, SegmentKind, VirtualFile};
pub use vocab::{Special, Vocab};

/// Readies ggml and libllama; called by everything that creates a handle. Cheap after the first time.
pub fn init() {
    static ONCE: Once = Once::new();
    log::thread_calls();
    ONCE.call_once(|| {
        log::install();
        stderr::install();
        words::install();
        // Built by GCC 12, ggml's kernels for Intel's AMX end the program: what they set the tiles up with is optimised away.
        // SAFETY: called once, before anything asks for the list; a C string, which is only compared.
        unsafe { ggml_sys::ggml_sys_never_repack_for(c"AMX".as_ptr()) };
        // SAFETY: called once, before any other call into libllama, and it takes no arguments.
        unsafe { ggml_sys::llama_backend_init() };
        // SAFETY: takes no arguments; the type lives as long as the program.
        let plain = unsafe { ggml_sys::ggml_backend_cpu_buffer_type() };
        if let Some(plain) = std::ptr::NonNull::new(plain) {
            made::watch(BufferType(plain), clear::made);
        }
    });
}

/// What ggml's devices say of themselves: `CPU : AVX2 = 1 | FMA = 1 | ...`.
pub fn system_info() -> String {
    static TEXT: OnceLock<String> = OnceLock::new();
    init();
    // SAFETY: returns a C string that libllama keeps until the next call, which never comes.
    TEXT.get_or_init(|| unsafe { owned(ggml_sys::llama_print_system_info()) }).clone()
}

/// Whether libllama has code for models of this architecture.
pub fn knows_architecture(name: &str) -> bool {
    // SAFETY: a C string; it is only compared.
    std::ffi::CString::new(name)
        .is_ok_and(|name| unsafe { ggml_sys::ggml_sys_knows_architecture(name.as_ptr()) })
}

/// Sets what is printed before ggml aborts the process: the file that was being worked on, for people.
pub use log::set_abort_context;

/// A C string that ggml keeps alive, as owned text.
///
/// # Safety
///
/// `text` must be NULL or point to a NUL-terminated string.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and NUL-terminated by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
