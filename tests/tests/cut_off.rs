//! Sources behind a network that loses what they send, in the middle of a download (D4).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use shoal_tests::{Client, Network, Trackers, download, in_own_network, same_content, until};

const MIB: usize = 1 << 20;
/// The tracker's machine, and those of the clients.
const TRACKER: u8 = 1;
const ANN: u8 = 2;
const CAROL: u8 = 3;
const BOB: u8 = 4;

#[test]
fn sources_that_are_cut_off_leave_it_to_others_or_are_waited_for() {
    if !in_own_network("sources_that_are_cut_off_leave_it_to_others_or_are_waited_for") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let network = Arc::new(Network::new(BOB));
    let trackers = Trackers::start_on(&network, dir.path(), TRACKER);
    let client =
        |machine, name| Client::start_on(&network, machine, dir.path(), name, &trackers.info()).entered();
    let (mut ann, mut carol, mut bob) = (client(ANN, "ann"), client(CAROL, "carol"), client(BOB, "bob"));
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut carol, &mut bob]);
    let (path, _) = ann.share("g", "a.bin", 8 * MIB);
    let theirs = dir.path().join("carol.bin");
    download(&mut carol, "a.bin", &theirs);
    carol.until_download("a.bin", "C");

    // One of two is cut off, both ways: nothing says that it is gone. The other goes on.
    ann.ok("limit up 1M");
    carol.ok("limit up 500K");
    let copy = dir.path().join("copy.bin");
    until("both share it", || bob.sharers("g", "a.bin") == 2);
    download(&mut bob, "a.bin", &copy);
    until("both serve", || bob.download("a.bin")["sources"] == 2);
    bob.until_percent("a.bin", 10.0);
    network.cut(CAROL, BOB);
    network.cut(BOB, CAROL);
    ann.ok("limit up 4M");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    bob.ok("cancel_download g a.bin");
    bob.ok("stop_share g a.bin");

    // The only one in reach is cut off: it is said what is waited for, and when the network is back it goes on.
    ann.ok("limit up 1M");
    let again = dir.path().join("again.bin");
    download(&mut bob, "a.bin", &again);
    bob.until_percent("a.bin", 10.0);
    network.cut(ANN, BOB);
    network.cut(BOB, ANN);
    until("it says what it waits for", || {
        let now = bob.download("a.bin");
        assert_eq!(now["state"], "D", "{now}");
        let why = bob.activity("a.bin");
        // Ann is silent first, then does not answer, and then the trackers do not name her any more.
        let known = ["its sources are busy", "waiting for a sharer"].contains(&why.as_str());
        now["rate"] == 0 && (known || why.contains("ann"))
    });
    let stuck = bob.download("a.bin")["percent"].as_u64().unwrap();
    assert!(stuck < 100);
    ann.ok("limit up 0");
    network.heal(ANN, BOB);
    network.heal(BOB, ANN);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &again));
}
