//! What the list of downloads says where it could mislead: of paused ones, of groups that were left, without trackers (P12, P15).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use shoal_tests::{Client, Trackers, same_content};

#[test]
fn a_paused_download_shows_how_far_it_came_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 4 << 20);
    bob.ok("limit down 500K");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_percent("a.bin", 20.0);
    bob.ok("pause_download g a.bin");
    let paused = bob.until_download("a.bin", "P");
    assert!(paused["percent"].as_f64().unwrap() >= 20.0, "{paused}");
    let (stopped, _) = bob.quit();
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    assert_eq!(bob.download("a.bin")["percent"], paused["percent"]);
    bob.ok("limit down 0");
    bob.ok("resume_download g a.bin");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
}

#[test]
fn who_leaves_a_group_fetches_nothing_more_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    ann.share("g", "a.bin", 4 << 20);
    bob.ok("limit down 200K");
    bob.ok(&format!("download_file g a.bin {}", dir.path().join("copy.bin").display()));
    bob.until_percent("a.bin", 1.0);
    bob.ok("leave_group g");
    let left = bob.download("a.bin");
    assert_eq!(left["state"], "F", "{left}");
    assert!(left["error"].as_str().unwrap().contains("left the group"), "{left}");
}

#[test]
fn who_left_a_group_on_another_client_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    ann.share("g", "a.bin", 4 << 20);
    bob.ok("limit down 100K");
    bob.ok(&format!("download_file g a.bin {}", dir.path().join("copy.bin").display()));
    bob.until_percent("a.bin", 1.0);
    let mut elsewhere = Client::start(dir.path(), "elsewhere", &trackers.info());
    elsewhere.ok("login bob secret");
    elsewhere.ok("leave_group g");
    let failed = bob.until_download("a.bin", "F");
    assert!(failed["error"].as_str().unwrap().contains("not a member"), "{failed}");
}

#[test]
fn a_download_that_is_complete_is_not_waited_for_because_no_tracker_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 4 << 20);
    bob.ok("limit down 1M");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_percent("a.bin", 1.0);
    trackers.kill(1);
    bob.ok("limit down 0");
    bob.until_event("complete");
    // A tracker is tried for longer than that.
    bob.ok("wait 12");
    assert!(same_content(&path, &copy));
    trackers.restart(1);
    bob.until_download("a.bin", "C");
    shoal_tests::until("it is shared all the same", || ann.sharers("g", "a.bin") == 2);
}

#[test]
fn whoami_as_the_first_command_knows_the_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let finished = shoal_tests::run_script(dir.path(), "ann", &trackers.info(), &["--json"], "whoami\n");
    assert!(finished.stdout.contains(&trackers.address(1).to_string()), "{finished:?}");
}
