//! See `shoal_fuzzed::listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::listing(bytes));
