//! What is listed as shared can be had: files that are touched, changed, moved, or lost with their drive while they are
//! shared or between two sessions (P2). The content decides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use shoal_tests::{
    Client, Trackers, World, bytes_read, download, random_file, root_or_skip, same_content, sha1_of, until,
};

const MIB: usize = 1 << 20;

/// A change to a shared file. Its path, and a copy of it.
type Change = fn(&Path, &Path);

fn overwrite(path: &Path, with: &Path) {
    fs::write(path, fs::read(with).unwrap()).unwrap();
}

fn replace(path: &Path, with: &Path) {
    let new = path.with_extension("new");
    fs::copy(with, &new).unwrap();
    fs::rename(new, path).unwrap();
}

fn open(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits for the event of that name about that file.
fn until_reported(client: &mut Client, event: &str, file: &str) {
    until(&format!("{event} of {file}"), || {
        client.ok("whoami");
        client.events().iter().any(|one| one["event"] == event && one["file"] == file)
    });
}

fn reported(client: &mut Client, event: &str, file: &str) -> usize {
    client.ok("whoami");
    client.events().iter().filter(|one| one["event"] == event && one["file"] == file).count()
}

/// Downloads a file to a new place, and compares it.
fn fetches(client: &mut Client, file: &str, to: &Path, content: &Path) {
    download(client, file, to);
    client.until_download(file, "C");
    assert!(same_content(to, content), "{file}");
    // It is shared a moment after it is complete.
    until("the copy is not shared any more", || {
        client.run(&format!("stop_share g {file}")).answer["ok"] == true
    });
    client.ok(&format!("cancel_download g {file}"));
    fs::remove_file(to).unwrap();
}

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

#[test]
fn a_file_that_is_touched_and_still_the_same_can_be_had() {
    let changes: [(&str, Change); 7] = [
        ("touched", |path, _| open(path).set_modified(SystemTime::now() - Duration::from_secs(99)).unwrap()),
        ("length", |path, _| open(path).set_len(MIB as u64).unwrap()),
        ("rewritten", overwrite),
        ("replaced", replace),
        ("linked", |path, _| {
            let aside = path.with_extension("aside");
            fs::rename(path, &aside).unwrap();
            std::os::unix::fs::symlink(&aside, path).unwrap();
        }),
        ("moved", |path, _| {
            fs::rename(path, path.with_extension("aside")).unwrap();
            fs::rename(path.with_extension("aside"), path).unwrap();
        }),
        ("mode", |path, _| {
            let mut mode = fs::metadata(path).unwrap().permissions();
            mode.set_readonly(true);
            fs::set_permissions(path, mode).unwrap();
        }),
    ];
    let mut world = World::new();
    let mut bob = world.member("bob");
    for (name, change) in changes {
        let (path, _) = world.ann.share("g", name, MIB);
        let copy = world.path("copy");
        fs::copy(&path, &copy).unwrap();
        change(&path, &copy);
        // Asked for at once, while the file is perhaps being checked; and when it is listed again.
        fetches(&mut bob, name, &world.path("out"), &copy);
        until("it is listed", || bob.sharers("g", name) == 1);
        fetches(&mut bob, name, &world.path("out"), &copy);
        assert_eq!(reported(&mut world.ann, "share_lost", name), 0, "{name}");
        assert_eq!(reported(&mut bob, "source_banned", name), 0, "{name}");
    }
}

#[test]
fn a_file_that_is_lost_or_changed_is_withdrawn_and_shared_again_when_it_is_back() {
    let changes: [(&str, Change); 9] = [
        ("deleted", |path, _| fs::remove_file(path).unwrap()),
        ("changed", |path, _| {
            let time = fs::metadata(path).unwrap().modified().unwrap();
            open(path).write_all_at(b"another", 1_000).unwrap();
            open(path).set_modified(time).unwrap();
        }),
        ("truncated", |path, _| open(path).set_len(1_000).unwrap()),
        ("emptied", |path, _| open(path).set_len(0).unwrap()),
        ("grown", |path, _| open(path).set_len(2 * MIB as u64).unwrap()),
        ("replaced", |path, copy| {
            random_file(&copy.with_extension("other"), MIB, 99);
            replace(path, &copy.with_extension("other"));
        }),
        ("folder", |path, _| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("pipe", |path, _| {
            fs::remove_file(path).unwrap();
            pipe(path);
        }),
        ("above", |path, _| {
            let folder = path.parent().unwrap();
            fs::rename(folder, folder.with_extension("renamed")).unwrap();
        }),
    ];
    let mut world = World::new();
    let mut bob = world.member("bob");
    for (name, change) in changes {
        let (path, _) = world.ann.share("g", name, MIB);
        let copy = world.path("copy");
        fs::copy(&path, &copy).unwrap();
        change(&path, &copy);
        until(&format!("{name} is not listed as shared"), || bob.sharers("g", name) == 0);
        until_reported(&mut world.ann, "share_lost", name);
        // Back it comes.
        let folder = path.parent().unwrap();
        if folder.with_extension("renamed").exists() {
            fs::rename(folder.with_extension("renamed"), folder).unwrap();
        } else {
            if path.is_dir() {
                fs::remove_dir(&path).unwrap();
            }
            replace(&path, &copy);
        }
        until(&format!("{name} is listed as shared"), || bob.sharers("g", name) == 1);
        until_reported(&mut world.ann, "share_back", name);
        fetches(&mut bob, name, &world.path("out"), &copy);
        assert_eq!(reported(&mut world.ann, "share_lost", name), 1, "{name}: once");
        assert_eq!(reported(&mut bob, "source_banned", name), 0, "{name}");
    }
}

#[test]
fn a_downloader_is_told_what_is_the_matter_with_the_copy() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    world.ann.ok("limit up 1M");
    let (path, sha1) = world.ann.share("g", "a.bin", 8 * MIB);
    let copy = world.path("copy");
    fs::copy(&path, &copy).unwrap();
    download(&mut bob, "a.bin", &world.path("out"));
    bob.until_percent("a.bin", 5.0);
    // Touched under way: nothing but a pause.
    open(&path).set_modified(SystemTime::now()).unwrap();
    bob.until_percent("a.bin", 30.0);
    // Changed under way.
    open(&path).write_all_at(b"another", 7 * MIB as u64).unwrap();
    until("bob knows why", || bob.activity("a.bin").contains("ann's copy changed on disk"));
    until("it is not listed", || bob.sharers("g", "a.bin") == 0);
    assert_eq!(reported(&mut bob, "source_banned", "a.bin"), 0);
    replace(&path, &copy);
    until("it is listed again", || bob.sharers("g", "a.bin") == 1);
    world.ann.ok("limit up 0");
    // That bob looks for ann again by himself is another matter.
    bob.ok("pause_download g a.bin");
    bob.ok("resume_download g a.bin");
    bob.until_download("a.bin", "C");
    assert_eq!(sha1_of(&world.path("out")), sha1);
}

#[test]
fn a_new_version_takes_the_place_of_the_share_that_changed() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    random_file(&path, 2 * MIB, 99);
    let event = world.ann.until_event("share_lost");
    let problem = event["reason"].as_str().unwrap();
    // What to do is said, and is right.
    let (_, command) = problem.split_once("share it as it is now: ").unwrap();
    world.ann.ok(command);
    let new = vec![sha1_of(&path)];
    assert_eq!(shared(&mut world.ann), new);
    let lost = reported(&mut world.ann, "share_lost", "a.bin");
    world.ann.ok("logout");
    world.ann.ok("login ann secret");
    until("the new version is shared", || shared(&mut world.ann) == new);
    assert_eq!(reported(&mut world.ann, "share_lost", "a.bin"), lost, "the old one is forgotten");
}

/// The digests of the files that a client shares.
fn shared(client: &mut Client) -> Vec<String> {
    let answer = client.ok("list_files g");
    let files = answer["files"].as_array().unwrap().iter();
    let shared = files.filter(|file| file["sharers"].as_u64() > Some(0));
    shared.map(|file| file["sha1"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_share_that_was_stopped_stays_so_when_the_file_is_back() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let (stopped, _) = world.ann.share("g", "stopped.bin", MIB);
    let (other, _) = world.ann.share("g", "other.bin", MIB);
    let aside = [world.path("stopped"), world.path("other")];
    fs::rename(&stopped, &aside[0]).unwrap();
    fs::rename(&other, &aside[1]).unwrap();
    until_reported(&mut world.ann, "share_lost", "stopped.bin");
    until_reported(&mut world.ann, "share_lost", "other.bin");
    world.ann.ok("stop_share g stopped.bin");
    fs::rename(&aside[0], &stopped).unwrap();
    fs::rename(&aside[1], &other).unwrap();
    until("the other is back", || bob.sharers("g", "other.bin") == 1);
    assert_eq!(bob.sharers("g", "stopped.bin"), 0);
}

#[test]
fn a_file_that_another_program_touches_all_the_time_costs_little_and_comes_back() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let before = bytes_read(world.ann.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let touching = {
        let (path, stop) = (path.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                open(&path).set_modified(SystemTime::now()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    until("it is not listed", || bob.sharers("g", "a.bin") == 0);
    // The user learns that it takes long.
    until_reported(&mut world.ann, "share_checking", "a.bin");
    assert_eq!(bob.sharers("g", "a.bin"), 0);
    let read = bytes_read(world.ann.pid()) - before;
    assert!(read < 20 * MIB as u64, "{read} bytes were read of a file of {}", 8 * MIB);
    stop.store(true, Ordering::Relaxed);
    touching.join().unwrap();
    until_reported(&mut world.ann, "share_back", "a.bin");
    fetches(&mut bob, "a.bin", &world.path("out"), &path);
}

#[test]
fn a_finished_download_is_looked_after_like_any_share() {
    let mut world = World::new();
    let (mut bob, mut carol) = (world.member("bob"), world.member("carol"));
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let copy = world.path("bob.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_download("a.bin", "C");
    until("bob shares it", || carol.sharers("g", "a.bin") == 2);
    world.ann.ok("stop_share g a.bin");
    // Touched, changed, and restored.
    open(&copy).set_modified(SystemTime::now()).unwrap();
    fetches(&mut carol, "a.bin", &world.path("carol.bin"), &path);
    random_file(&copy, MIB, 99);
    until_reported(&mut bob, "share_lost", "a.bin");
    until("bob does not share it", || carol.sharers("g", "a.bin") == 0);
    overwrite(&copy, &path);
    until("bob shares it again", || carol.sharers("g", "a.bin") == 1);
    fetches(&mut carol, "a.bin", &world.path("carol.bin"), &path);
}

#[test]
fn what_is_missing_at_login_is_shared_by_itself_once_it_is_there() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let aside = world.path("aside");
    world.ann.ok("logout");
    fs::rename(path.parent().unwrap(), &aside).unwrap();
    world.ann.ok("login ann secret");
    until_reported(&mut world.ann, "share_lost", "a.bin");
    fs::rename(&aside, path.parent().unwrap()).unwrap();
    until("it is shared", || bob.sharers("g", "a.bin") == 1);
    fetches(&mut bob, "a.bin", &world.path("out"), &path);
}

/// A drive that can be unmounted and mounted again, with what is on it.
struct Drive {
    disk: PathBuf,
    at: PathBuf,
}

impl Drive {
    fn new(world: &World) -> Self {
        let drive = Self { disk: world.path("disk"), at: world.path("drive") };
        fs::create_dir(&drive.disk).unwrap();
        fs::create_dir(&drive.at).unwrap();
        drive.run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs"], &drive.disk.clone());
        drive.mount();
        drive
    }

    fn mount(&self) {
        self.run("mount", &["--bind", self.disk.to_str().unwrap()], &self.at);
    }

    fn unmount(&self) {
        self.run("umount", &["-l"], &self.at);
    }

    fn run(&self, program: &str, args: &[&str], at: &Path) {
        assert!(Command::new(program).args(args).arg(at).status().unwrap().success());
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        for path in [&self.at, &self.disk] {
            let _ = Command::new("umount").arg("-l").arg(path).stderr(std::process::Stdio::null()).status();
        }
    }
}

#[test]
fn files_on_a_drive_that_is_unmounted_are_shared_again_unread_when_it_is_back() {
    if !root_or_skip("files_on_a_drive_that_is_unmounted_are_shared_again_unread_when_it_is_back") {
        return;
    }
    let mut world = World::new();
    let mut bob = world.member("bob");
    let drive = Drive::new(&world);
    let path = drive.at.join("a.bin");
    random_file(&path, 16 * MIB, 7);
    let copy = world.path("copy");
    fs::copy(&path, &copy).unwrap();
    world.ann.ok(&format!("upload_file {} g", path.display()));
    until("it is shared", || bob.sharers("g", "a.bin") == 1);
    drive.unmount();
    until("it is not listed", || bob.sharers("g", "a.bin") == 0);
    until_reported(&mut world.ann, "share_lost", "a.bin");
    let before = bytes_read(world.ann.pid());
    drive.mount();
    until("it is listed again", || bob.sharers("g", "a.bin") == 1);
    let read = bytes_read(world.ann.pid()) - before;
    assert!(read < MIB as u64, "{read} bytes were read though nothing was touched");
    until_reported(&mut world.ann, "share_back", "a.bin");
    fetches(&mut bob, "a.bin", &world.path("out"), &copy);
    // Not there when the client starts, either.
    world.ann.ok("logout");
    drive.unmount();
    world.ann.ok("login ann secret");
    drive.mount();
    until("it is listed again", || bob.sharers("g", "a.bin") == 1);
    fetches(&mut bob, "a.bin", &world.path("out"), &copy);
}

#[test]
fn a_file_that_may_not_be_read_is_withdrawn_until_it_may() {
    if !root_or_skip("a_file_that_may_not_be_read_is_withdrawn_until_it_may") {
        return;
    }
    let mut world = World::new();
    let bound = Client::start_bound(&world.path("."), "bound", &world.trackers.info());
    let (mut bound, mut bob) = (bound.entered(), world.member("bob"));
    world.ann.let_in("g", &mut [&mut bound]);
    let (path, _) = bound.share("g", "a.bin", MIB);
    let allow = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    until_reported(&mut bound, "share_lost", "a.bin");
    until("it is not listed", || bob.sharers("g", "a.bin") == 0);
    let events = bound.events();
    let lost = events.iter().find(|event| event["event"] == "share_lost").unwrap();
    assert!(lost["reason"].as_str().unwrap().contains("cannot be read (Permission denied"), "{lost}");
    allow(0o644);
    until("it is listed again", || bob.sharers("g", "a.bin") == 1);
    fetches(&mut bob, "a.bin", &world.path("out"), &path);
}

/// `stop_share` while a finished download is about to be shared: the tracker takes its time with that.
#[test]
fn a_share_that_is_stopped_while_it_begins_stays_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 1 << 20);
    ann.ok("limit up 1M");
    let pid = Pid::from_raw(i32::try_from(trackers.pid(1)).unwrap()).unwrap();
    download(&mut bob, "a.bin", &dir.path().join("copy.bin"));
    bob.until_percent("a.bin", 10.0);
    kill_process(pid, Signal::STOP).unwrap();
    bob.until_download("a.bin", "C");
    let goes_on = std::thread::spawn(move || {
        let asked = Instant::now();
        until("bob has asked", || asked.elapsed() > Duration::from_millis(500));
        kill_process(pid, Signal::CONT).unwrap();
    });
    bob.ok("stop_share g a.bin");
    goes_on.join().unwrap();
    until("ann alone shares it", || bob.sharers("g", "a.bin") == 1);
    bob.ok("cancel_download g a.bin");
    // What is still shared would not be fetched.
    let again = dir.path().join("again.bin");
    download(&mut bob, "a.bin", &again);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &again));
}
