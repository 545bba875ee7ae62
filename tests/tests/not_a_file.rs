//! What is not a regular file is refused at once by every command that reads files, and what is read is stored as it was
//! read: whole, and of one moment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shoal_tests::{Store, World, binary, finish, random_file};

/// More than any refusal takes on a busy machine; opening a pipe would take for ever.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Paths to what is not a file, each with what it is called. The socket lives as long as the value.
struct Irregular {
    paths: Vec<(PathBuf, &'static str)>,
    _socket: UnixListener,
}

impl Irregular {
    fn new(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink("pipe", at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let socket = UnixListener::bind(at("socket")).unwrap();
        let paths = vec![
            (at("pipe"), "a pipe"),
            (at("link"), "a pipe"),
            (at("socket"), "a socket"),
            (at("folder"), "a folder"),
            ("/dev/null".into(), "a device"),
            ("/dev/zero".into(), "a device"),
            ("/dev/tty".into(), "a device"),
        ];
        Self { paths, _socket: socket }
    }
}

#[test]
fn dfs_stores_regular_files_and_says_at_once_what_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let irregular = Irregular::new(dir.path());
    for (path, what) in &irregular.paths {
        let started = Instant::now();
        // Before anybody is asked for a password: this one is wrong.
        let mut put = store.dfs("nobody", &["put", path.to_str().unwrap()]);
        let ended = finish(&mut put, "");
        assert!(ended.code == Some(1) && ended.stderr.contains(what), "{}: {ended:?}", path.display());
        // Beside others, which are stored.
        random_file(&dir.path().join("good"), 100_000, 1);
        let error = store.refused(&["put", path.to_str().unwrap(), "good"]);
        assert!(error.contains(what) && error.contains("only these were stored: good"), "{error}");
        assert!(started.elapsed() < AT_ONCE, "{}: {:?}", path.display(), started.elapsed());
    }
    // Nor does a place to write to make anybody wait.
    let started = Instant::now();
    let pipe = dir.path().join("pipe");
    for force in [&[][..], &["--force"]] {
        let arguments = [&["get", "good", "-o", pipe.to_str().unwrap()], force].concat();
        let error = store.refused(&arguments);
        assert!(error.contains("special file") || error.contains("exists"), "{error}");
    }
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

#[test]
fn dfs_stores_what_reading_gives_whatever_the_size_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let mut shorter = Vec::new();
    // A page is their size, and a few bytes are in them.
    for path in ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/devices/system/cpu/online"] {
        shorter.extend(Path::new(path).is_file().then_some(path));
    }
    for path in ["/proc/version", "/proc/filesystems"].into_iter().chain(shorter) {
        let content = fs::read(path).unwrap();
        let stored = store.ok(&["put", path]);
        assert_eq!(stored["files"][0]["size"], content.len() as u64, "{path}: {stored}");
        let out = dir.path().join("out");
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        store.ok(&["get", name, "--force", "-o", out.to_str().unwrap()]);
        assert!(fs::read(&out).unwrap() == content, "{path}");
    }
    // Its content is another at every moment, and that of one moment is stored.
    store.ok(&["put", "/proc/cpuinfo"]);
    let out = dir.path().join("cpuinfo");
    store.ok(&["get", "cpuinfo", "-o", out.to_str().unwrap()]);
    assert!(fs::read_to_string(out).unwrap().lines().count() > 5);
    // An empty file is one.
    File::create(dir.path().join("empty")).unwrap();
    assert_eq!(store.ok(&["put", "empty"])["files"][0]["size"], 0);
}

#[test]
fn dfs_refuses_a_file_that_changes_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let path = dir.path().join("log");
    type Change = fn(&Path, usize);
    let grow: Change =
        |path, _| File::options().append(true).open(path).unwrap().write_all(b"line\n").unwrap();
    let shrink: Change = |path, turn| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(if turn.is_multiple_of(2) { 20_000_000 } else { 30_000_000 }).unwrap();
    };
    for change in [grow, shrink] {
        random_file(&path, 30_000_000, 3);
        let done = AtomicBool::new(false);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut turn = 0;
                while !done.load(Ordering::SeqCst) {
                    change(&path, turn);
                    turn += 1;
                    // How often it is written to is the fault that is played.
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            let error = store.refused(&["put", "log"]);
            done.store(true, Ordering::SeqCst);
            error
        });
        assert!(error.contains("changed while it was being stored"), "{error}");
        assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 0);
    }
    store.ok(&["put", "log"]);
}

#[test]
fn clients_share_regular_files_and_folders_and_servers_serve_regular_files_only() {
    let mut world = World::new();
    let dir = world.path("irregular");
    fs::create_dir(&dir).unwrap();
    let irregular = Irregular::new(&dir);
    for (path, what) in &irregular.paths {
        let started = Instant::now();
        if !path.is_dir() {
            let error = world.ann.fails(&format!("upload_file '{}' g", path.display()));
            assert!(error.contains(what), "{}: {error}", path.display());
        }
        let mut server = Command::new(binary("server"));
        server.arg("-f").arg(path).args(["-p", &shoal_tests::free_port().to_string()]);
        let ended = finish(&mut server, "");
        assert!(ended.code == Some(1) && ended.stderr.contains(what), "{}: {ended:?}", path.display());
        assert!(started.elapsed() < AT_ONCE, "{}: {:?}", path.display(), started.elapsed());
    }
    // What is made up when it is read cannot be read again by others.
    let error = world.ann.fails("upload_file /proc/version g");
    assert!(error.contains("share the copy"), "{error}");
    let mut server = Command::new(binary("server"));
    server.args(["-f", "/proc/version", "-p", &shoal_tests::free_port().to_string()]);
    let ended = finish(&mut server, "");
    assert!(ended.code == Some(1) && ended.stderr.contains("serve a copy"), "{ended:?}");
}

#[test]
fn a_pipe_that_nobody_writes_to_is_not_waited_for_wherever_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let irregular = Irregular::new(dir.path());
    let (pipe, socket) = (&irregular.paths[0].0, &irregular.paths[2].0);
    let metalink = dir.path().join("a.meta4");
    let address = format!("127.0.0.1:{}", shoal_tests::free_port());
    symlink("pipe", &metalink).unwrap();
    for (path, said) in [(pipe, "a pipe that nobody writes to"), (socket, "a socket")] {
        let path = path.to_str().unwrap();
        for (program, arguments) in [
            ("client", vec![&*address, path]),
            ("tracker", vec![path, "1"]),
            ("dfs", vec![path, "list"]),
            ("fetch", vec!["--servers", path, "--file", "f"]),
            ("fetch", vec![path]),
        ] {
            let started = Instant::now();
            let ended = finish(Command::new(binary(program)).args(&arguments).current_dir(dir.path()), "");
            assert_ne!(ended.code, Some(0), "{program} {arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(said), "{program} {arguments:?}: {ended:?}");
            assert!(started.elapsed() < AT_ONCE, "{program}: {:?}", started.elapsed());
        }
    }
    let ended = finish(Command::new(binary("fetch")).arg(&metalink), "");
    assert!(ended.code == Some(1) && ended.stderr.contains("a pipe that nobody writes to"), "{ended:?}");
    // One with a writer is as good as a file.
    let to = pipe.clone();
    let writer = std::thread::spawn(move || fs::write(to, "127.0.0.1 1\n"));
    let ended =
        finish(Command::new(binary("fetch")).args(["--servers", pipe.to_str().unwrap(), "--file", "f"]), "");
    assert!(ended.code == Some(1) && ended.stderr.contains("127.0.0.1:1"), "{ended:?}");
    writer.join().unwrap().unwrap();
}
