//! A grammar. See `airrun_fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| airrun_fuzz::grammar(data));
