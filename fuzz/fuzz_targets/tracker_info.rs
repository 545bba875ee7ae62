//! See `shoal_fuzzed::tracker_info`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shoal_fuzzed::tracker_info(bytes));
