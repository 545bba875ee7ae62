//! See `shoal_fuzzed::metalink`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::metalink(bytes));
