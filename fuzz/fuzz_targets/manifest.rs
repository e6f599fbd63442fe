//! What Ollama keeps of a model: its manifest, and behind zeros what its layers are. See `airrun_fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| airrun_fuzz::manifest(data));
