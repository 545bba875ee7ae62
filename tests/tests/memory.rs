//! Memory does not grow with a file, nor much with the number of files (D8).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use shoal_common::GroupName;
use shoal_common::tracker_api::{Answer, Call};
use shoal_tests::{Client, Member, PATIENCE, Trackers, long_or_skip, peak_memory};

const MIB: usize = 1 << 20;

/// Two clients, one file; gives the most memory that either of them took, in MiB.
fn peak_of_a_download(size: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (_, sha1) = ann.share("g", "a.bin", size);
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.ok_within("wait 1000", Duration::from_secs(1_000) + PATIENCE);
    assert_eq!(bob.download("a.bin")["state"], "C");
    assert_eq!(copy.metadata().unwrap().len(), size as u64);
    assert_eq!(sha1.len(), 40);
    peak_memory(bob.pid()).max(peak_memory(ann.pid())) / MIB as u64
}

#[test]
fn a_client_that_downloads_half_a_gibibyte() {
    let peak = peak_of_a_download(512 * MIB);
    assert!(peak < 100, "{peak} MiB");
}

#[test]
fn a_client_that_downloads_four_gibibytes() {
    if long_or_skip("a_client_that_downloads_four_gibibytes") {
        let peak = peak_of_a_download(4096 * MIB);
        assert!(peak < 100, "{peak} MiB");
    }
}

/// Shares files that do not exist: a tracker cannot know.
fn share_many(dir: &Path, files: usize, size: u64) -> u64 {
    let trackers = Trackers::start(dir, 1);
    let mut member = Member::connect(trackers.port(1));
    member.enter("ann");
    let name = GroupName::create("g").unwrap();
    member.create_group("g");
    shoal_tests::share_many(&mut member, "g", files, size);
    let (mut listed, mut after) = (0, None);
    loop {
        match member.done(Call::ListFiles { group: name.clone(), after }) {
            Answer::Files { files, more } => {
                listed += files.len();
                after = files.last().map(|file| file.name.clone());
                if !more {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(listed, files);
    peak_memory(trackers.pid(1)) / MIB as u64
}

#[test]
fn a_tracker_with_ten_thousand_files() {
    let dir = tempfile::tempdir().unwrap();
    let peak = share_many(dir.path(), 10_000, 4 * MIB as u64);
    assert!(peak < 200, "{peak} MiB");
}

#[test]
fn a_tracker_with_ten_thousand_large_files() {
    if long_or_skip("a_tracker_with_ten_thousand_large_files") {
        let dir = tempfile::tempdir().unwrap();
        let peak = share_many(dir.path(), 10_000, 1024 * MIB as u64);
        assert!(peak < 200, "{peak} MiB");
    }
}
