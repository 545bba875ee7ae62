//! See `shoal_fuzzed::conf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::conf(bytes));
