//! See `shoal_fuzzed::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::messages(bytes));
