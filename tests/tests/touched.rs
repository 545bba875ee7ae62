//! What counts as changed at the next login (P2): the content.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use shoal_tests::{Client, Trackers, random_file, until};

const MIB: usize = 1 << 20;

#[test]
fn a_file_that_grew_old_is_checked_by_content_not_by_its_clock_alone() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", MIB);
    until("it is shared", || bob.sharers("g", "a.bin") == 1);
    ann.ok("logout");
    // Touched: another time, the same content. It is still there and unchanged.
    let content = std::fs::read(&path).unwrap();
    std::fs::write(&path, content).unwrap();
    ann.ok("login ann secret");
    until("it is shared again", || bob.sharers("g", "a.bin") == 1);
    // Replaced by another file of the same size.
    ann.ok("logout");
    random_file(&dir.path().join("new"), MIB, 99);
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    ann.ok("login ann secret");
    ann.until_event("share_lost");
    assert_eq!(bob.sharers("g", "a.bin"), 0);
}
