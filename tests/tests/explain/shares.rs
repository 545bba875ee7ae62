//! Shares: files that are gone, changed, refused, checked, or had by nobody else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use shoal_tests::{Client, World, download, root_or_skip, until};

use super::{KIB, MIB, Seen};

pub(crate) const CAUSES: &[&str] = &[
    "complete",
    "file_gone",
    "not_reached",
    "share_changed",
    "share_checking",
    "share_file_missing",
    "share_folder_missing",
    "share_not_a_file",
    "share_not_taken",
    "shared",
    "sole_sharer",
    "upload_limit",
];

#[test]
fn why_a_share_is_not_served_or_unsafe() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let mut bob = world.member("bob");
    let to = world.path("to");
    fs::create_dir(&to).unwrap();
    assert_eq!(bob.ok("explain")["explanations"], serde_json::json!([]), "all is well");
    assert!(bob.fails("explain g nothing.bin").contains("neither downloads nor shares nothing.bin of g"));

    world.ann.share("g", "a b.bin", 300 * KIB);
    let sole = seen.share(&mut world.ann, "'a b.bin'", "sole_sharer");
    assert!(sole["next"].as_str().unwrap().ends_with(r#"type: show_peers g "a b.bin""#), "{sole}");
    assert_eq!(sole["command"], serde_json::json!(["show_peers", "g", "a b.bin"]));
    download(&mut bob, "'a b.bin'", &to);
    bob.until_download("a b.bin", "C");
    seen.download(&mut bob, "'a b.bin'", "complete");
    let shared = seen.share(&mut world.ann, "'a b.bin'", "shared");
    assert!(shared["text"].as_str().unwrap().contains("another client has the whole file"), "{shared}");
    world.ann.ok("limit up 4K");
    seen.share(&mut world.ann, "'a b.bin'", "upload_limit");
    world.ann.ok("limit up 0");

    let path = |file: &str, world: &mut World| world.ann.share("g", file, MIB).0;
    let (gone, folder, pipe, changed) = (
        path("gone.bin", &mut world),
        path("away.bin", &mut world),
        path("notafile.bin", &mut world),
        path("changed.bin", &mut world),
    );
    fs::remove_file(&gone).unwrap();
    fs::rename(folder.parent().unwrap(), world.path("away")).unwrap();
    fs::remove_file(&pipe).unwrap();
    fs::create_dir(&pipe).unwrap();
    OpenOptions::new().append(true).open(&changed).unwrap().write_all(b"more").unwrap();
    let gone = seen.share(&mut world.ann, "gone.bin", "share_file_missing");
    assert_eq!(gone["command"], serde_json::json!(["relocate", "g", "gone.bin", "PATH"]));
    seen.share(&mut world.ann, "away.bin", "share_folder_missing");
    seen.share(&mut world.ann, "notafile.bin", "share_not_a_file");
    seen.share(&mut world.ann, "changed.bin", "share_changed");
    // A file that is touched again and again is never read.
    let touched = path("touched.bin", &mut world);
    let mut seconds = 0;
    until("it is being checked", || {
        seconds += 1;
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + seconds);
        File::options().write(true).open(&touched).unwrap().set_modified(then).unwrap();
        let answer = world.ann.ok("explain g touched.bin");
        answer["explanations"][0]["cause"] == "share_checking"
    });
    seen.share(&mut world.ann, "touched.bin", "share_checking");

    fs::remove_file(to.join("a b.bin")).unwrap();
    let again = seen.download(&mut bob, "'a b.bin'", "file_gone");
    assert_eq!(again["command"], serde_json::json!(["download_file", "g", "a b.bin", to.to_str().unwrap()]));

    world.trackers.say(1, "quota user bob files 0");
    until("bob may share nothing", || world.trackers.said(1).contains("of 0 files"));
    world.ann.share("g", "over.bin", 1_000);
    download(&mut bob, "over.bin", &to);
    bob.until_download("over.bin", "C");
    let over = seen.share(&mut bob, "over.bin", "share_not_taken");
    assert!(over["text"].as_str().unwrap().contains("quota of 0 files"), "{over}");

    // Of documentation (RFC 5737): another machine's address, which does not lead here.
    let (dir, info) = (world.path("."), world.trackers.info());
    let mut far = Client::start_behind(&dir, "far", &info, "203.0.113.5").entered();
    world.ann.let_in("g", &mut [&mut far]);
    far.share("g", "far.bin", 1_000);
    seen.share(&mut far, "far.bin", "not_reached");
}

pub(crate) const ROOT: &[&str] = &["copy_unreadable", "share_unreadable"];

#[test]
fn a_share_that_may_not_be_read() {
    if !root_or_skip("a_share_that_may_not_be_read") {
        return;
    }
    let mut seen = Seen::new(ROOT);
    let mut world = World::new();
    let bound = Client::start_bound(&world.path("."), "bound", &world.trackers.info());
    let (mut bound, mut bob) = (bound.entered(), world.member("bob"));
    world.ann.let_in("g", &mut [&mut bound]);
    let (path, _) = bound.share("g", "a.bin", 4 * MIB);
    bob.ok("limit down 40K");
    download(&mut bob, "a.bin", &world.path("copy"));
    until("it runs", || bob.activity("a.bin") == "at the rate limit");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    seen.share(&mut bound, "a.bin", "share_unreadable");
    seen.download(&mut bob, "a.bin", "copy_unreadable");
}
