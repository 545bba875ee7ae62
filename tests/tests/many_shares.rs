//! A client with more shares than one announcement takes, with the real binaries.

use std::fs;

use shoal_tests::{Client, Trackers, until};

/// One more than a tracker takes at once.
const FILES: usize = 1_001;

#[test]
fn a_client_with_more_than_a_thousand_shares_is_named_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    for n in 0..FILES {
        let path = dir.path().join(format!("f{n}"));
        fs::write(&path, n.to_string()).unwrap();
        ann.ok(&format!("upload_file {} g", path.display()));
    }
    // All of them are announced at once now.
    ann.ok("logout");
    ann.ok("login ann secret");
    for file in ["f0", "f500", "f1000"] {
        until("it has a sharer", || bob.sharers("g", file) == 1);
    }
}
