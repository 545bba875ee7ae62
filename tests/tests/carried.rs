//! A command under way when its tracker dies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_tests::{Client, Trackers};

#[test]
fn a_command_under_way_is_carried_to_the_next_tracker() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    for round in 0..4 {
        let dies = 1 + round % 2;
        // Frozen before the command comes, killed while it waits.
        let frozen = rustix::process::Pid::from_raw(i32::try_from(trackers.pid(dies)).unwrap()).unwrap();
        rustix::process::kill_process(frozen, Signal::STOP).unwrap();
        let name = format!("carried-{round}");
        let started = Instant::now();
        let killer = std::thread::spawn(move || {
            // For how long it is frozen, before it dies, is the fault.
            std::thread::sleep(Duration::from_millis(300));
            rustix::process::kill_process(frozen, Signal::KILL).unwrap();
        });
        ann.ok(&format!("create_group {name}"));
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        killer.join().unwrap();
        trackers.kill(dies);
        let groups = ann.ok("list_groups")["groups"].clone();
        let named = groups.as_array().unwrap().iter().filter(|group| group["group"] == name.as_str()).count();
        assert_eq!(named, 1, "it took effect once: {groups}");
        assert_eq!(ann.ok("whoami")["user"], "ann");
        trackers.restart(dies);
        trackers.until_in_step();
    }
}

#[test]
fn a_path_of_ten_thousand_characters_is_not_echoed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    assert!(ann.fails(&format!("upload_file {} g", "x".repeat(10_000))).len() < 600);
}
