//! `tracker_info.txt`, names, and peer ids: no text panics, and a valid file name is one component of a path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_common::{FileName, PeerId, TrackerInfo, UserName};

fuzz_target!(|text: &str| {
    let _ = TrackerInfo::parse(text);
    let _ = shoal_common::vouching::Pins::parse(text);
    let _ = UserName::refer(text);
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(name) = FileName::refer(text) {
        let mut components = std::path::Path::new(name.as_str()).components();
        assert!(matches!(components.next(), Some(std::path::Component::Normal(_))) && components.next().is_none());
    }
});
