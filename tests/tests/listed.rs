//! What the list of downloads says where it could mislead: of paused ones, of groups that were left, without trackers (P12, P15).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::PathBuf;

use shoal_tests::{Client, Trackers, run_script, same_content, until};

/// A download of ann's file by bob that goes slowly.
struct World {
    trackers: Trackers,
    ann: Client,
    bob: Client,
    path: PathBuf,
    copy: PathBuf,
    dir: tempfile::TempDir,
}

impl World {
    /// At that rate, and so far that so many percent are there.
    fn downloading(rate: &str, percent: f64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trackers = Trackers::start(dir.path(), 1);
        let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
        let (path, _) = ann.share("g", "a.bin", 4 << 20);
        bob.ok(&format!("limit down {rate}"));
        let copy = dir.path().join("copy.bin");
        bob.ok(&format!("download_file g a.bin {}", copy.display()));
        bob.until_percent("a.bin", percent);
        Self { trackers, ann, bob, path, copy, dir }
    }
}

#[test]
fn a_paused_download_shows_how_far_it_came_even_after_a_restart() {
    let World { mut bob, path, copy, dir: _dir, trackers: _trackers, ann: _ann } =
        World::downloading("500K", 20.0);
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
    let mut world = World::downloading("200K", 1.0);
    world.bob.ok("leave_group g");
    let left = world.bob.download("a.bin");
    assert_eq!(left["state"], "F", "{left}");
    assert!(left["error"].as_str().unwrap().contains("left the group"), "{left}");
}

#[test]
fn who_left_a_group_on_another_client_is_told_so() {
    let mut world = World::downloading("100K", 1.0);
    let mut elsewhere = Client::start(world.dir.path(), "elsewhere", &world.trackers.info());
    elsewhere.ok("login bob secret");
    elsewhere.ok("leave_group g");
    let failed = world.bob.until_download("a.bin", "F");
    assert!(failed["error"].as_str().unwrap().contains("not a member"), "{failed}");
}

#[test]
fn a_download_that_is_complete_is_not_waited_for_because_no_tracker_answers() {
    let mut world = World::downloading("1M", 1.0);
    world.trackers.kill(1);
    world.bob.ok("limit down 0");
    world.bob.until_event("complete");
    // A tracker is tried for longer than that.
    world.bob.ok("wait 12");
    assert!(same_content(&world.path, &world.copy));
    world.trackers.restart(1);
    world.bob.until_download("a.bin", "C");
    until("it is shared all the same", || world.ann.sharers("g", "a.bin") == 2);
}

#[test]
fn whoami_as_the_first_command_knows_the_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    // It waits a second and a half for one; a busy machine may take longer once.
    until("the tracker is named", || {
        let finished = run_script(dir.path(), "ann", &trackers.info(), &["--json"], "whoami\n");
        finished.stdout.contains(&trackers.address(1).to_string())
    });
}
