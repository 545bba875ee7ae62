//! A passing shortage is no end (D4): descriptors, space, drives that come and go. Downloads wait, say why, and go on by
//! themselves; one-shot programs say what to do, and go on where they were.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit};
use shoal_tests::{
    Client, Manners, Mount, Store, Trackers, World, binary, descriptors, download, finish, free_port,
    random_file, root_or_skip, same_content, until,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PIECE: usize = 64 * KIB;
const MANY: usize = 40;

/// The soft and the hard limit of open files of a process.
fn limits(pid: u32) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    (words.next().unwrap(), words.next().unwrap())
}

/// Writes until nothing more fits on the drive of a folder; gives the file to be removed.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut ballast = std::fs::File::create(&path).unwrap();
    for block in [vec![1; 64 * KIB], vec![1; 4 * KIB]] {
        while ballast.write_all(&block).is_ok() {}
    }
    path
}

/// Downloads many files of ann's at once, bob under these limits and ann under those, behind some that nobody shares.
fn many_downloads(
    for_ann: &str,
    for_bob: &str,
    unshared: usize,
) -> (Client, Client, tempfile::TempDir, Trackers) {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::start_limited(dir.path(), "ann", &trackers.info(), for_ann).entered();
    let mut bob = Client::start_limited(dir.path(), "bob", &trackers.info(), for_bob).entered();
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut bob]);
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    bob.ok("limit down 4M");
    let unshared: Vec<String> = (0..unshared).map(|number| format!("u{number}.bin")).collect();
    let mut carol = Client::enter(dir.path(), "carol", &trackers.info());
    ann.let_in("g", &mut [&mut carol]);
    for file in &unshared {
        carol.share("g", file, PIECE);
    }
    carol.ok("logout");
    for file in &unshared {
        download(&mut bob, file, &folder);
    }
    let files: Vec<(String, PathBuf)> = (0..MANY)
        .map(|number| {
            let file = format!("f{number}.bin");
            let (path, _) = ann.share("g", &file, 256 * KIB);
            (file, path)
        })
        .collect();
    for (file, _) in &files {
        download(&mut bob, file, &folder);
    }
    for (file, path) in &files {
        let last = bob.until_download(file, "C");
        assert_eq!(last["state"], "C");
        assert!(same_content(path, &folder.join(file)));
    }
    for file in &unshared {
        assert_eq!(bob.download(file)["state"], "D");
    }
    assert!(!bob.events().iter().any(|event| event["event"] == "failed"), "{:?}", bob.events());
    (ann, bob, dir, trackers)
}

#[test]
fn the_soft_limit_of_open_files_does_not_count() {
    let (_ann, bob, _dir, _trackers) = many_downloads("ulimit -Sn 64", "ulimit -Sn 64 && ulimit -Hn 4096", 0);
    assert_eq!(limits(bob.pid()), (4_096, 4_096));
}

#[test]
fn with_a_hard_limit_of_64_open_files_forty_downloads_take_turns_and_all_end_well() {
    let (mut ann, mut bob, _dir, _trackers) = many_downloads("ulimit -n 64", "ulimit -n 64", 3);
    // Both still answer their trackers, and find their stores.
    ann.ok("list_files g");
    bob.ok("limit down 0");
}

#[test]
fn a_disk_that_fills_up_in_the_middle_is_waited_for() {
    if !root_or_skip("a_disk_that_fills_up_in_the_middle_is_waited_for") {
        return;
    }
    let mut world = World::new();
    let pieces = 64;
    let (path, _) = world.ann.share("g", "a.bin", pieces * PIECE);
    let seeder = world.seeder("seeder", "a.bin", &path, Manners::Honest, pieces / 2);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    until("only the seeder that counts is there", || bob.sharers("g", "a.bin") == 1);
    let mount = Mount::new(&world.path("small"), "size=6m");
    download(&mut bob, "a.bin", mount.path());
    bob.until_percent("a.bin", 50.0);
    let ballast = fill(mount.path());
    seeder.allow(usize::MAX);
    until("it says what it waits for", || bob.activity("a.bin").contains("no space left on the drive of"));
    let event = bob.until_event("short");
    assert!(event["reason"].as_str().unwrap().contains(&mount.path().display().to_string()), "{event}");
    let waiting = bob.download("a.bin");
    assert_eq!(waiting["state"], "D");
    assert!(waiting["percent"].as_f64().unwrap() >= 49.0, "what is verified stays: {waiting}");
    // It may be paused, goes on waiting when it is resumed, and says so.
    bob.ok("pause_download g a.bin");
    let resumed = bob.ok("resume_download g a.bin");
    assert_eq!(resumed["anew"], false);
    assert_eq!(bob.download("a.bin")["state"], "D");
    std::fs::remove_file(ballast).unwrap();
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &mount.path().join("a.bin")));
    // What was on its way when the disk was full is sent again, and nothing that was verified.
    assert!(seeder.sent() < 2 * pieces, "{} pieces were sent for {pieces}", seeder.sent());
}

#[test]
fn a_download_that_is_begun_on_a_full_disk_is_accepted_and_begins_when_there_is_room() {
    if !root_or_skip("a_download_that_is_begun_on_a_full_disk_is_accepted_and_begins_when_there_is_room") {
        return;
    }
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 3 * MIB);
    let mut bob = world.member("bob");
    let mount = Mount::new(&world.path("small"), "size=4m");
    let ballast = fill(mount.path());
    let accepted = bob.ok(&format!("download_file g a.bin {}", mount.path().display()));
    let why = accepted["activity"].as_str().unwrap();
    assert!(why.contains("no space left on the drive of") && why.contains("MiB more are needed"), "{why}");
    // Also over a restart.
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    until("it says what it waits for", || bob.activity("a.bin").contains("no space left"));
    assert_eq!(bob.download("a.bin")["state"], "D");
    std::fs::remove_file(ballast).unwrap();
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &mount.path().join("a.bin")));
}

/// A world in which bob has half of a file in a folder, and only the seeder has all of it.
fn half_of_a_file(folder: &str) -> (World, Client, shoal_tests::Seeder, PathBuf, PathBuf, usize) {
    let mut world = World::new();
    let pieces = 64;
    let (path, _) = world.ann.share("g", "a.bin", pieces * PIECE);
    let seeder = world.seeder("seeder", "a.bin", &path, Manners::Honest, pieces / 2);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    until("only the seeder that counts is there", || bob.sharers("g", "a.bin") == 1);
    let folder = world.path(folder);
    std::fs::create_dir_all(&folder).unwrap();
    (world, bob, seeder, path, folder, pieces)
}

#[test]
fn a_drive_that_is_not_mounted_is_waited_for_and_nothing_begins_again_in_its_empty_folder() {
    if !root_or_skip("a_drive_that_is_not_mounted_is_waited_for_and_nothing_begins_again_in_its_empty_folder")
    {
        return;
    }
    let (world, mut bob, seeder, path, drive, pieces) = half_of_a_file("drive");
    let disk = world.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Mount::bind(&disk, &drive);
    download(&mut bob, "a.bin", &drive);
    bob.until_percent("a.bin", 50.0);
    let stopped = bob.kill();
    drop(mounted);
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    until("it says what it waits for", || bob.activity("a.bin").contains("a.bin.part is not there"));
    let waiting = bob.download("a.bin");
    assert_eq!(waiting["state"], "D");
    assert_eq!(std::fs::read_dir(&drive).unwrap().count(), 0, "nothing is written into the empty folder");
    seeder.allow(usize::MAX);
    let _mounted = Mount::bind(&disk, &drive);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &disk.join("a.bin")));
    assert_eq!(seeder.sent(), pieces, "no piece was fetched twice");
}

#[test]
fn a_folder_that_goes_and_comes_back_is_waited_for() {
    let (world, mut bob, seeder, path, folder, pieces) = half_of_a_file("outer/folder");
    download(&mut bob, "a.bin", &folder);
    bob.until_percent("a.bin", 50.0);
    let (outer, away) = (world.path("outer"), world.path("away"));
    // While it does not run, and back while it waits.
    let stopped = bob.kill();
    std::fs::rename(&outer, &away).unwrap();
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    until("it says what it waits for", || bob.activity("a.bin").contains("is not there"));
    assert_eq!(bob.download("a.bin")["state"], "D");
    assert!(!outer.exists());
    std::fs::rename(&away, &outer).unwrap();
    until("it has gone on", || bob.activity("a.bin") == "waiting for pieces" || seeder.open() > 0);
    // In the middle of the work, and back.
    std::fs::rename(&outer, &away).unwrap();
    seeder.allow(usize::MAX);
    until("it notices", || bob.activity("a.bin").contains("is not there"));
    assert_eq!(bob.download("a.bin")["state"], "D");
    std::fs::rename(&away, &outer).unwrap();
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &folder.join("a.bin")));
    assert_eq!(seeder.sent(), pieces, "no piece was fetched twice");
}

#[test]
fn a_download_whose_partial_file_is_lost_begins_again_when_its_user_says_so() {
    let (_world, mut bob, seeder, path, folder, pieces) = half_of_a_file("folder");
    download(&mut bob, "a.bin", &folder);
    bob.until_percent("a.bin", 50.0);
    let stopped = bob.kill();
    for file in ["a.bin.part", "a.bin.pstate"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    until("it says what it waits for", || {
        bob.activity("a.bin").contains("start again from the beginning with resume_download")
    });
    seeder.allow(usize::MAX);
    let resumed = bob.ok("resume_download g a.bin");
    assert_eq!(resumed["anew"], true, "{resumed}");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &folder.join("a.bin")));
    assert_eq!(seeder.sent(), pieces + pieces / 2);
}

#[test]
fn a_full_store_ends_neither_the_client_nor_a_download() {
    if !root_or_skip("a_full_store_ends_neither_the_client_nor_a_download") {
        return;
    }
    let mut world = World::new();
    let _small = Mount::new(&world.path("bob"), "size=4m");
    world.ann.ok("limit up 500K");
    let (path, _) = world.ann.share("g", "a.bin", 2 * MIB);
    let (other, _) = world.ann.share("g", "b.bin", MIB);
    let mut bob = world.member("bob");
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_percent("a.bin", 10.0);
    let ballast = fill(&bob.data());
    let error = bob.fails(&format!("download_file g b.bin {}", world.path("b.bin").display()));
    assert!(error.contains("full") && error.contains("client.db"), "{error}");
    world.ann.ok("limit up 0");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    std::fs::remove_file(ballast).unwrap();
    // What could not be recorded is, and shared too, without a command.
    until("bob shares it", || bob.sharers("g", "a.bin") == 2);
    let copy = world.path("b.bin");
    download(&mut bob, "b.bin", &copy);
    bob.until_download("b.bin", "C");
    assert!(same_content(&other, &copy));
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    assert_eq!(bob.until_download("a.bin", "C")["state"], "C");
}

/// A `server` that dies with this value.
struct Server(Child, String);

impl Server {
    fn of(path: &Path, cache: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("server"));
        command.args(["-i", "0", "-f"]).arg(path).args(["-p", &port.to_string()]);
        command.env("XDG_CACHE_HOME", cache).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map(Result::unwrap).any(|line| line.starts_with("serving")));
        let name = path.file_name().unwrap().to_str().unwrap();
        Self(child, format!("http://127.0.0.1:{port}/{name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fetch_waits_for_room_and_then_says_how_to_go_on() {
    if !root_or_skip("fetch_waits_for_room_and_then_says_how_to_go_on") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.bin");
    random_file(&path, 3 * MIB, 1);
    let server = Server::of(&path, dir.path());
    let mount = Mount::new(&dir.path().join("small"), "size=4m");
    let fetch = |more: &[&str]| {
        let mut command = Command::new(binary("fetch"));
        command.arg(&server.1).arg("-o").arg(mount.path()).args(["-i", "0"]).args(more);
        command
    };
    let ballast = fill(mount.path());
    let failed = finish(&mut fetch(&["--retry-time", "2"]), "");
    assert_eq!(failed.code, Some(1));
    let said = &failed.stderr;
    assert!(said.contains("trying again for 2 s") && said.contains("continue with -r"), "{said}");
    assert!(said.contains("no space left on the drive of") && said.contains("MiB more are needed"), "{said}");
    // Room that is made in time is enough.
    let mut waiting = fetch(&["-r"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("trying again")));
    std::fs::remove_file(ballast).unwrap();
    assert!(waiting.wait().unwrap().success());
    assert!(same_content(&path, &mount.path().join("a.bin")));
}

#[test]
fn dfs_waits_for_room_and_then_says_how_to_go_on() {
    if !root_or_skip("dfs_waits_for_room_and_then_says_how_to_go_on") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = Mount::new(&dir.path().join("dfs-state"), "size=4m");
    let store = Store::start(dir.path(), 1, 2);
    let path = dir.path().join("a.bin");
    random_file(&path, 3 * MIB, 1);
    // A put notes how far it is, and needs a little room for that.
    let ballast = fill(state.path());
    let error = store.refused(&["--retry-time", "2", "put", path.to_str().unwrap()]);
    assert!(error.contains("no space left on the drive of") && error.contains("run it again"), "{error}");
    std::fs::remove_file(ballast).unwrap();
    store.ok(&["put", path.to_str().unwrap()]);
    let mount = Mount::new(&dir.path().join("small"), "size=4m");
    let ballast = fill(mount.path());
    let to = mount.path().to_str().unwrap();
    let error = store.refused(&["--retry-time", "2", "get", "a.bin", "-o", to]);
    assert!(error.contains("no space left on the drive of") && error.contains("run it again"), "{error}");
    let mut waiting = store.dfs("ann", &["--json", "get", "a.bin", "-o", to]);
    let mut waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("waiting")));
    std::fs::remove_file(ballast).unwrap();
    assert!(lines.map(Result::unwrap).any(|line| line.contains("\"ok\":true")));
    assert!(waiting.wait().unwrap().success());
    assert!(same_content(&path, &mount.path().join("a.bin")));
}

/// Leaves a process eight descriptors more than it has.
fn leave_eight(pid: u32) {
    let (current, (_, hard)) = (Some(descriptors(pid) as u64 + 8), limits(pid));
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let limit = Rlimit { current, maximum: (hard < u64::MAX).then_some(hard) };
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// Connections that nobody says anything on.
fn silent_connections(port: u16) -> Vec<TcpStream> {
    (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect()
}

#[test]
fn trackers_and_nodes_without_descriptors_say_so_once_and_live_on() {
    const SAYS: &str = "cannot accept connections";
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let path = dir.path().join("a.bin");
    random_file(&path, 3 * MIB, 1);
    leave_eight(store.trackers.pid(1));
    leave_eight(store.pid(1).unwrap());
    let node = store.port(1);
    let (to_tracker, to_node) = (silent_connections(store.trackers.port(1)), silent_connections(node));
    until("the tracker says so", || store.trackers.logged(1, SAYS) > 0);
    until("the node says so", || store.log(1).contains(SAYS));
    drop((to_tracker, to_node));
    // Neither has died: the store works with both.
    store.until_up(2);
    store.ok(&["put", path.to_str().unwrap()]);
    assert_eq!(store.trackers.logged(1, SAYS), 1, "{}", store.trackers.log(1));
    assert_eq!(store.log(1).matches(SAYS).count(), 1, "{}", store.log(1));
}
