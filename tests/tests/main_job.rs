//! The main job: a group, its members, and a file that goes from one to all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Instant;

use shoal_tests::{Client, Trackers, bytes_read, same_content, sha1_of, until};

const MIB: usize = 1 << 20;

#[test]
fn three_download_at_once_from_several_while_a_tracker_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let info = trackers.info();
    let mut ann = Client::enter(dir.path(), "ann", &info);
    let mut others = ["bob", "carol", "dave"].map(|name| Client::enter(dir.path(), name, &info));
    ann.ok("create_group holidays");
    ann.let_in("holidays", &mut others.each_mut());
    ann.ok("limit up 4M");
    let (path, sha1) = ann.share("holidays", "film.bin", 24 * MIB);
    assert_eq!(sha1, sha1_of(&path));

    let before = bytes_read(ann.pid());
    let folders: Vec<_> =
        others.iter().map(|client| dir.path().join(format!("{}-got", client.name()))).collect();
    for (client, folder) in others.iter_mut().zip(&folders) {
        std::fs::create_dir(folder).unwrap();
        let answer = client.ok(&format!("download_file holidays film.bin {}", folder.display()));
        assert_eq!(answer["command"], "download_file");
        assert_eq!(client.download("film.bin")["state"], "D", "it runs in the background");
    }
    let mut most_sources = 0;
    until("several sources serve one download, and a third is done", || {
        let download = others[0].download("film.bin");
        most_sources = most_sources.max(download["sources"].as_u64().unwrap());
        most_sources > 1 && download["percent"].as_f64().unwrap() >= 30.0
    });
    trackers.kill(1);
    for (client, folder) in others.iter_mut().zip(&folders) {
        client.until_download("film.bin", "C");
        assert!(same_content(&path, &folder.join("film.bin")), "{}", client.name());
    }
    // Three copies arrived; far fewer left the sharer, so they got pieces from each other.
    let sent = bytes_read(ann.pid()) - before;
    assert!(sent < 48 * MIB as u64, "the sharer read {sent} bytes for three downloads of {}", 24 * MIB);
    // Nobody noticed: all go on with the other tracker, and a finished download is shared on its own (D3).
    until("all four share it", || ann.sharers("holidays", "film.bin") == 4);
    assert_eq!(ann.ok("whoami")["user"], "ann");
    others[1].ok("create_group after-the-death");
}

#[test]
fn a_late_joiner_gets_it_from_those_who_got_it() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (info, second) = (trackers.info(), trackers.info_of(2));
    let mut ann = Client::enter(dir.path(), "ann", &info);
    let mut bob = Client::enter(dir.path(), "bob", &second);
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut bob]);
    let (path, sha1) = ann.share("g", "a.bin", 3 * MIB + 17);
    bob.ok(&format!("download_file g a.bin {}", dir.path().join("bob.bin").display()));
    bob.until_download("a.bin", "C");

    // Erin comes when the first sharer is still a member, but gone.
    let mut erin = Client::enter(dir.path(), "erin", &second);
    ann.let_in("g", &mut [&mut erin]);
    let started = Instant::now();
    ann.kill();
    until("the dead sharer is offline", || erin.sharers("g", "a.bin") == 1);
    assert!(
        started.elapsed().as_secs_f64() < 6.0,
        "offline at most 5 s after it broke: {:?}",
        started.elapsed()
    );
    let folder = dir.path().join("erin-got");
    std::fs::create_dir(&folder).unwrap();
    erin.ok(&format!("download_file g a.bin {}", folder.display()));
    erin.until_download("a.bin", "C");
    assert!(same_content(&path, &folder.join("a.bin")));
    let files = erin.ok("list_files g")["files"].clone();
    assert_eq!(
        (files[0]["sha1"].as_str(), files[0]["size"].as_u64()),
        (Some(&*sha1), Some(3 * MIB as u64 + 17))
    );
}

#[test]
fn with_no_sharer_online_a_download_waits_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", MIB);
    ann.ok("logout");
    until("nobody shares it", || bob.sharers("g", "a.bin") == 0);
    let copy = dir.path().join("copy.bin");
    let answer = bob.ok(&format!("download_file g a.bin {}", copy.display()));
    assert_eq!(answer["sharers"], 0, "it says so: {answer}");
    let download = bob.download("a.bin");
    assert_eq!((&download["state"], &download["sources"]), (&"D".into(), &0.into()));
    assert!(!copy.exists());
    ann.ok("login ann secret");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
}

#[test]
fn one_account_on_two_clients() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut home = Client::start(dir.path(), "home", &trackers.info());
    home.ok("create_user ann secret");
    home.ok("login ann secret");
    let mut work = Client::start(dir.path(), "work", &trackers.info_of(2));
    work.ok("login ann secret");
    assert_eq!(home.ok("whoami")["user"], "ann");
    assert_eq!(work.ok("whoami")["user"], "ann");
    home.ok("create_group g");
    let (path, _) = home.share("g", "a.bin", MIB);
    // The other client is a member too, has the file to fetch, and is a sharer of its own afterwards (P18).
    let copy = dir.path().join("copy.bin");
    until("its ticket for the new group", || {
        work.run(&format!("download_file g a.bin {}", copy.display())).answer["ok"] == true
    });
    work.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    until("both clients share it", || home.sharers("g", "a.bin") == 2);
    let peers = home.ok("show_peers g a.bin")["peers"].clone();
    assert!(peers.as_array().unwrap().iter().all(|peer| peer["user"] == "ann"), "{peers}");
    // Stopping on one leaves the other's share, and so does logging out there.
    home.ok("stop_share g a.bin");
    until("one is left", || work.sharers("g", "a.bin") == 1);
    home.ok("logout");
    assert_eq!(work.ok("whoami")["user"], "ann");
    assert_eq!(work.sharers("g", "a.bin"), 1);
    home.ok("login ann secret");
    work.ok("logout");
    until("none is left", || home.sharers("g", "a.bin") == 0);
}
