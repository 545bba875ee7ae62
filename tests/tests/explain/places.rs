//! Places that a download cannot be written to, and files in its way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use shoal_tests::{Client, Lacks, Mount, OddDisk, World, download, root_or_skip, until};

use super::{MIB, Seen, explained};

pub(crate) const CAUSES: &[&str] =
    &["being_downloaded", "file_in_the_way", "folder_missing", "partial_missing", "turn"];

#[test]
fn why_a_place_cannot_be_used() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let (mut bob, mut carol) = (world.member("bob"), world.member("carol"));
    let to = world.path("to");
    fs::create_dir(&to).unwrap();
    bob.ok("limit down 64K");
    let files = ["way.bin", "taken.bin", "folder.bin", "partial.bin"];
    for file in files {
        world.ann.share("g", file, 8 * MIB);
        let folder = to.join(&file[..3]);
        fs::create_dir(&folder).unwrap();
        download(&mut bob, file, &folder);
    }
    for file in files {
        bob.until_percent(file, 1.0);
        bob.ok(&format!("pause_download g {file}"));
    }
    fs::write(to.join("way/way.bin"), b"mine").unwrap();
    bob.run("resume_download g way.bin");
    let way = seen.download(&mut bob, "way.bin", "file_in_the_way");
    assert_eq!(way["command"], serde_json::json!(["resume_download", "g", "way.bin"]));

    carol.ok("limit down 64K");
    let part = to.join("tak/taken.bin.part");
    for left in [&part, &part.with_extension("pstate")] {
        let _ = fs::remove_file(left);
    }
    download(&mut carol, "taken.bin", &to.join("tak"));
    carol.until_percent("taken.bin", 1.0);
    bob.run("resume_download g taken.bin");
    seen.download(&mut bob, "taken.bin", "being_downloaded");

    fs::rename(to.join("fol"), world.path("away")).unwrap();
    bob.run("resume_download g folder.bin");
    seen.download(&mut bob, "folder.bin", "folder_missing");

    bob.ok("resume_download g partial.bin");
    bob.until_percent("partial.bin", 1.0);
    let stopped = bob.kill();
    for left in ["partial.bin.part", "partial.bin.pstate"] {
        fs::remove_file(to.join("par").join(left)).unwrap();
    }
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    let partial = seen.download(&mut bob, "partial.bin", "partial_missing");
    assert_eq!(partial["command"], serde_json::json!(["resume_download", "g", "partial.bin"]));

    // Two downloads at a time are what so few open files allow.
    let few = Client::start_limited(&world.path("."), "few", &world.trackers.info(), "ulimit -n 64");
    let mut few = few.entered();
    world.ann.let_in("g", &mut [&mut few]);
    few.ok("limit down 40K");
    for file in files {
        download(&mut few, file, &world.path(&format!("few-{file}")));
    }
    let mut turn = None;
    until("one waits for its turn", || {
        turn = explained(&mut few, "explain").into_iter().find(|one| one["cause"] == "turn");
        turn.is_some()
    });
    seen.note(&turn.unwrap(), "turn");
}

pub(crate) const ROOT: &[&str] = &["disk_full", "drive_fails", "no_permission", "read_only"];

#[test]
fn drives_that_are_full_broken_or_closed() {
    let test = "drives_that_are_full_broken_or_closed";
    if !root_or_skip(test) {
        return;
    }
    let mut seen = Seen::new(ROOT);
    let mut world = World::new();
    let bound = Client::start_bound(&world.path("."), "bob", &world.trackers.info());
    let mut bob = bound.entered();
    world.ann.let_in("g", &mut [&mut bob]);
    bob.ok("limit down 64K");
    for file in ["full.bin", "closed.bin", "readonly.bin", "broken.bin"] {
        world.ann.share("g", file, 8 * MIB);
    }
    let small = Mount::new(&world.path("small"), "size=256k");
    download(&mut bob, "full.bin", small.path());
    let full = seen.download(&mut bob, "full.bin", "disk_full");
    assert!(full["next"].as_str().unwrap().contains(&small.path().display().to_string()), "{full}");

    let closed = world.path("closed");
    fs::create_dir(&closed).unwrap();
    let drive = Mount::new(&world.path("drive"), "size=32m");
    for (file, folder) in [("closed.bin", &*closed), ("readonly.bin", drive.path())] {
        download(&mut bob, file, folder);
        bob.until_percent(file, 1.0);
        bob.ok(&format!("pause_download g {file}"));
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(closed.join("closed.bin.part"), fs::Permissions::from_mode(0o444)).unwrap();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(drive.path()).status();
    assert!(remount.unwrap().success());
    for file in ["closed.bin", "readonly.bin"] {
        bob.run(&format!("resume_download g {file}"));
    }
    seen.download(&mut bob, "closed.bin", "no_permission");
    seen.download(&mut bob, "readonly.bin", "read_only");

    let lacks = Lacks { broken: Some(".part"), ..Lacks::fuse() };
    if let Some(disk) = OddDisk::mount(test, lacks) {
        let mut eve = world.member("eve");
        // So that the first piece comes when the download has begun: one that fails at once is not listed.
        eve.ok("limit down 64K");
        eve.ok(&format!("download_file g broken.bin '{}'", disk.path().display()));
        seen.download(&mut eve, "broken.bin", "drive_fails");
    } else {
        seen.expected = &["disk_full", "no_permission", "read_only"];
    }
}
