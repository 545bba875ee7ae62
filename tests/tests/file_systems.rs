//! Every program does its main job on file systems that lack a feature (`docs/file-systems.md`): in user space by what SMB,
//! NFS, exFAT and FUSE lack, and with whole calls refused as containers and old kernels refuse them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use shoal_tests::{
    Client, Lacks, OddDisk, Refusal, Store, Trackers, World, binary, download, finish, free_port,
    node_secret, random_file, refused, run_script, same_content, until,
};

const KIB: usize = 1 << 10;

/// What every program is for, with all its files below one folder.
fn main_job(dir: &Path) {
    let secret = node_secret(dir);
    let trackers = Trackers::start_with(dir, 1, &["--node-secret", secret.to_str().unwrap()]);
    let mut store = Store::begin(dir, trackers, 2, &[], &[]);
    share_and_download(dir, &store.trackers);
    serve_and_fetch(dir);
    put_and_get(dir, &mut store);
}

fn share_and_download(dir: &Path, trackers: &Trackers) {
    let (mut ann, mut bob) = Client::pair(dir, &trackers.info());
    let (path, _) = ann.share("g", "film.bin", 700 * KIB);
    let to = dir.join("bob-got");
    fs::create_dir(&to).unwrap();
    // A file that is there is never replaced.
    fs::write(dir.join("mine"), "mine").unwrap();
    let error = bob.fails(&format!("download_file g film.bin '{}'", dir.join("mine").display()));
    assert!(error.contains("exists"), "{error}");
    download(&mut bob, "film.bin", &to);
    bob.until_download("film.bin", "C");
    assert!(same_content(&path, &to.join("film.bin")));
    let left: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["film.bin"], "nothing is left beside it");
    until("bob shares it too", || ann.sharers("g", "film.bin") == 2);
    // What was kept is found again.
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    until("bob shares it again", || ann.sharers("g", "film.bin") == 2);
}

fn serve_and_fetch(dir: &Path) {
    let served = dir.join("served");
    fs::create_dir(&served).unwrap();
    random_file(&served.join("page.bin"), 300 * KIB, 5);
    let port = free_port().to_string();
    let mut server = Command::new(binary("server"));
    server.arg("--root").arg(&served).args(["-p", &port]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut server = server.stderr(Stdio::null()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}/page.bin");
    until("the server answers", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    let to = dir.join("fetched");
    let ended = finish(Command::new(binary("fetch")).arg(&url).arg("-o").arg(&to).current_dir(dir), "");
    let _ = (server.kill(), server.wait());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(same_content(&served.join("page.bin"), &to));
    // One whose size nobody tells is received under another name and renamed at the end.
    let url = stream();
    // A name that the URL chose replaces nothing.
    let fetch = || finish(Command::new(binary("fetch")).arg(&url).current_dir(dir), "");
    let ended = fetch();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read(dir.join("stream.bin")).unwrap(), STREAMED.repeat(3));
    let again = fetch();
    assert!(again.code != Some(0) && again.stderr.contains("exists"), "{again:?}");
    let left = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with(".fetch-")).count(), 0, "nothing is left beside it");
}

const STREAMED: &[u8] = b"a part of it";

/// Answers every request in chunks, without a length, for as long as the test's process lives.
fn stream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/stream.bin", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
            let head = lines.next().is_some_and(|line| line.starts_with("HEAD"));
            lines.find(String::is_empty);
            let chunk = format!("{:x}\r\n{}\r\n", STREAMED.len(), str::from_utf8(STREAMED).unwrap());
            let body = if head { String::new() } else { chunk.repeat(3) + "0\r\n\r\n" };
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            let _ = connection.write_all((answer.to_owned() + &body).as_bytes());
        }
    });
    url
}

fn put_and_get(dir: &Path, store: &mut Store) {
    store.until_up(2);
    random_file(&dir.join("kept"), 400 * KIB, 7);
    store.ok(&["put", "kept"]);
    // All of them start again on what they wrote.
    store.kill(1);
    store.trackers.kill(1);
    store.trackers.restart(1);
    store.restart(1);
    store.until_up(2);
    let to = dir.join("back");
    store.ok(&["get", "kept", "-o", to.to_str().unwrap()]);
    assert!(same_content(&dir.join("kept"), &to));
}

/// Names that exFAT does not take, though Linux does.
#[test]
fn a_name_that_a_drive_does_not_take_is_refused_before_anything_is_fetched() {
    let test = "a_name_that_a_drive_does_not_take_is_refused_before_anything_is_fetched";
    let Some(disk) = OddDisk::mount(test, Lacks::exfat()) else { return };
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "12:30.bin", 100 * KIB);
    let mut bob = world.member("bob");
    let at = |name: &str| disk.path().join(name);
    for name in ["", "what?.bin", "end.", "end "] {
        let error = bob.fails(&format!("download_file g 12:30.bin '{}'", at(name).display()));
        assert!(error.contains("is no name that the file system of"), "{name}: {error}");
        assert!(error.contains("choose another"), "{error}");
    }
    let url = stream();
    for name in ["what?.bin", "end."] {
        let ended = finish(Command::new(binary("fetch")).arg(&url).arg("-o").arg(at(name)), "");
        assert!(ended.code != Some(0) && ended.stderr.contains("name"), "{ended:?}");
    }
    download(&mut bob, "12:30.bin", &at("12.30.bin"));
    bob.until_download("12:30.bin", "C");
    assert!(same_content(&path, &at("12.30.bin")));
    let left: Vec<_> = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["12.30.bin"]);
}

#[test]
fn a_disk_that_fails_lacks_no_feature_and_its_node_does_not_start() {
    let test = "a_disk_that_fails_lacks_no_feature_and_its_node_does_not_start";
    let Some(disk) = OddDisk::mount(test, Lacks { broken: Some("/tmp/try"), ..Lacks::fuse() }) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut node = Command::new(binary("dfs-server"));
    node.arg(free_port().to_string()).arg("--trackers").arg(trackers.info());
    node.arg("--join-secret").arg(node_secret(dir.path())).arg("--data-dir").arg(disk.path().join("node"));
    let ended = finish(node.args(["--bind", "127.0.0.1"]), "");
    assert_ne!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("it takes no chunks: Input/output error"), "{ended:?}");
}

#[test]
fn two_processes_do_not_share_a_folder_where_there_are_no_locks() {
    let test = "two_processes_do_not_share_a_folder_where_there_are_no_locks";
    let Some(disk) = OddDisk::mount(test, Lacks::nfs()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    // It answers, so it has the folder.
    let first = Client::enter(disk.path(), "ann", &trackers.info());
    let second = run_script(disk.path(), "ann", &trackers.info(), &[], "");
    assert!(second.stderr.contains("already in use by another process (pid "), "{second:?}");
    drop(first);
    let third = run_script(disk.path(), "ann", &trackers.info(), &[], "");
    assert!(!third.stderr.contains("already in use"), "{third:?}");
}

fn on(test: &str, lacks: Lacks) {
    if let Some(disk) = OddDisk::mount(test, lacks) {
        main_job(disk.path());
    }
}

fn without(test: &str, calls: &[(i64, Option<(u8, u64)>)], errno: i32) {
    let refusals: Vec<_> = calls.iter().map(|&(call, flag)| Refusal { call, flag, errno }).collect();
    if refused(test, &refusals) {
        main_job(tempfile::tempdir().unwrap().path());
    }
}

#[test]
fn all_programs_work_on_smb() {
    on("all_programs_work_on_smb", Lacks::smb());
}

#[test]
fn all_programs_work_on_nfs_without_locks() {
    on("all_programs_work_on_nfs_without_locks", Lacks::nfs());
}

#[test]
fn all_programs_work_on_exfat() {
    on("all_programs_work_on_exfat", Lacks::exfat());
}

#[test]
fn all_programs_work_on_a_file_system_in_user_space_that_can_do_the_least() {
    on("all_programs_work_on_a_file_system_in_user_space_that_can_do_the_least", Lacks::fuse());
}

#[test]
fn all_programs_work_where_a_container_allows_only_old_calls() {
    let no_replace = Some((4, u64::from(libc::RENAME_NOREPLACE)));
    let calls = [
        (libc::SYS_renameat2, no_replace),
        (libc::SYS_openat2, None),
        (libc::SYS_statx, None),
        (libc::SYS_fallocate, None),
        (libc::SYS_linkat, None),
        (libc::SYS_flock, None),
        (libc::SYS_pwritev, None),
        (libc::SYS_pwritev2, None),
        (libc::SYS_copy_file_range, None),
        (libc::SYS_inotify_init1, None),
        (libc::SYS_chmod, None),
        (libc::SYS_fchmod, None),
        (libc::SYS_fchmodat, None),
        (libc::SYS_utimensat, None),
    ];
    without("all_programs_work_where_a_container_allows_only_old_calls", &calls, libc::EPERM);
}

#[test]
fn all_programs_work_where_nothing_can_be_synced() {
    let calls = [
        (libc::SYS_renameat2, None),
        (libc::SYS_openat2, None),
        (libc::SYS_fsync, None),
        (libc::SYS_fdatasync, None),
        (libc::SYS_sync_file_range, None),
        (libc::SYS_flock, None),
        (libc::SYS_inotify_init1, None),
    ];
    without("all_programs_work_where_nothing_can_be_synced", &calls, libc::ENOSYS);
}
