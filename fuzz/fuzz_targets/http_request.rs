//! Any bytes as the body of a request to any path that takes one: understood or refused; no panic, no memory beyond the bytes given.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    airrun::serve::try_body(data);
});
