//! A model file: an index or an error, whatever is asked of it. Half of the inputs are two parts of one. See `airrun_fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| airrun_fuzz::gguf_index(data));
