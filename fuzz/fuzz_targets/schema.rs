//! A schema for answers: a grammar or a refusal, and the grammar is one. See `airrun_fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| airrun_fuzz::schema(data));
