//! See `shoal_fuzzed::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::requests(bytes));
