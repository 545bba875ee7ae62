//! Frames between trackers: what decodes encodes again to something that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_replica::Frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&frame.encode()).expect("own encoding"), frame);
    }
});
