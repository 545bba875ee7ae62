//! See `shoal_fuzzed::tokens`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::tokens(bytes));
