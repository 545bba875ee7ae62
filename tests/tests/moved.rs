//! Files and folders that their users move: a share says where it is now, and a download goes into the folder that stands in
//! its place.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;

use shoal_tests::{Client, Trackers, bytes_read, download, random_file, same_content, until};

const MIB: usize = 1 << 20;

#[test]
fn a_share_that_was_moved_is_shared_from_where_it_is_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", MIB);
    let (moved, other) = (dir.path().join("elsewhere.dat"), dir.path().join("other.bin"));
    fs::rename(&path, &moved).unwrap();
    ann.until_event("share_lost");
    random_file(&other, MIB, 99);
    let error = ann.fails(&format!("relocate g a.bin {}", other.display()));
    assert!(error.contains("its content differs") && error.contains("upload_file"), "{error}");
    assert!(ann.fails("relocate g a.bin /nowhere/at/all").contains("/nowhere/at/all"));
    assert!(ann.fails(&format!("relocate g b.bin {}", moved.display())).contains("you do not share b.bin"));
    let answer = ann.ok(&format!("relocate g a.bin {}", moved.display()));
    assert_eq!(answer["path"], moved.to_str().unwrap());
    let mut ann = ann.quit().0.restart();
    ann.ok("login ann secret");
    for copy in ["one", "two"].map(|name| dir.path().join(name)) {
        until("ann shares it", || bob.sharers("g", "a.bin") >= 1);
        download(&mut bob, "a.bin", &copy);
        bob.until_download("a.bin", "C");
        assert!(same_content(&moved, &copy));
        // A finished download is a share like any other.
        let new = copy.with_extension("new");
        fs::rename(&copy, &new).unwrap();
        bob.ok(&format!("relocate g a.bin {}", new.display()));
        assert_eq!(bob.download("a.bin")["path"], new.to_str().unwrap());
        bob.ok("cancel_download g a.bin");
        bob.ok("stop_share g a.bin");
        assert!(same_content(&moved, &new), "a finished file stays");
    }
}

#[test]
fn a_file_that_is_shared_in_two_groups_is_read_once_unless_it_changed() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    ann.ok("create_group h");
    ann.let_in("h", &mut [&mut bob]);
    let (path, sha1) = ann.share("g", "a.bin", 32 * MIB);
    let before = bytes_read(ann.pid());
    let again = ann.ok(&format!("upload_file {} h", path.display()));
    assert_eq!(again["sha1"], sha1);
    let read = bytes_read(ann.pid()) - before;
    assert!(read < 16 << 20, "it read {read} bytes");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file h a.bin {}", copy.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    bob.ok("stop_share h a.bin");
    ann.ok("stop_share h a.bin");
    random_file(&path, 32 * MIB, 8);
    assert_ne!(ann.ok(&format!("upload_file {} h", path.display()))["sha1"], sha1, "it is another file now");
}

#[test]
fn a_download_goes_into_the_folder_that_appeared_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 4 * MIB);
    ann.ok("limit up 1M");
    let place = dir.path().join("dl2");
    download(&mut bob, "a.bin", &place);
    bob.until_percent("a.bin", 30.0);
    bob.ok("pause_download g a.bin");
    fs::create_dir(&place).unwrap();
    bob.ok("resume_download g a.bin");
    assert!(bob.download("a.bin")["percent"].as_f64().unwrap() > 20.0, "it goes on");
    ann.ok("limit up 0");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &place.join("a.bin")));
    assert_eq!(bob.download("a.bin")["path"], place.join("a.bin").to_str().unwrap());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("dl2.")), "nothing is left: {left:?}");
}

#[test]
fn a_paused_download_that_is_begun_again_elsewhere_goes_on_there_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 4 * MIB);
    ann.ok("limit up 1M");
    let places = ["first", "second"].map(|name| dir.path().join(name));
    for place in &places {
        fs::create_dir(place).unwrap();
    }
    download(&mut bob, "a.bin", &places[0]);
    bob.until_percent("a.bin", 40.0);
    bob.ok("pause_download g a.bin");
    // So slowly that it cannot come again.
    ann.ok("limit up 10K");
    download(&mut bob, "a.bin", &places[1]);
    bob.until_percent("a.bin", 40.0);
    ann.ok("limit up 0");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &places[1].join("a.bin")));
    assert_eq!(fs::read_dir(&places[0]).unwrap().count(), 0, "nothing is left");
}
