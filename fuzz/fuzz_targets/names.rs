//! See `shoal_fuzzed::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::names(bytes));
