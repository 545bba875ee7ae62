//! See `shoal_fuzzed::storage`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::storage(bytes));
