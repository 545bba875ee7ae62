//! See `shoal_fuzzed::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::frames(bytes));
