//! The encrypted store with its real binaries: what survives which server, what nobody can read, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use shoal_tests::{Store, files_below, finish, random_file, same_content, until};

fn sample(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    random_file(&path, size, 5);
    path
}

/// Fetches a file into a fresh folder and compares it.
fn fetched(store: &Store, dir: &Path, original: &Path) {
    let to = tempfile::tempdir_in(dir).unwrap();
    let name = original.file_name().unwrap().to_str().unwrap();
    store.ok(&["get", name, "-o", to.path().to_str().unwrap()]);
    assert!(same_content(original, &to.path().join(name)), "{name} came back different");
}

#[test]
fn any_one_server_may_be_lost_and_repair_makes_its_copies_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start_with(dir.path(), (2, 4), &["--repair-after", "2s"], &[], &[]);
    let file = sample(dir.path(), "film.mkv", 20_000_000);
    let put = store.ok(&["put", file.to_str().unwrap()]);
    assert_eq!((&put["files"][0]["copies"], &put["files"][0]["chunks"]), (&2.into(), &5.into()));
    store.kill(1);
    fetched(&store, dir.path(), &file);
    store.until_repaired();
    store.kill(2);
    fetched(&store, dir.path(), &file);
    // It comes back blank, under its old key: everything that it is to hold is copied to it, or stays where it is now.
    std::fs::remove_dir_all(store.data(1).join("chunks")).unwrap();
    store.restart(1);
    store.until_up(3);
    store.until_repaired();
    store.kill(3);
    fetched(&store, dir.path(), &file);
}

#[test]
fn files_of_every_size_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let sizes = [0, 1, 3, 4, 5, 1_000, 262_144, 4 << 20, 16 << 20];
    let files: Vec<PathBuf> =
        sizes.iter().map(|&size| sample(dir.path(), &format!("f{size}"), size)).collect();
    let mut arguments = vec!["put"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    arguments.extend(["--copies", "3"]);
    store.ok(&arguments);
    files.iter().for_each(|file| fetched(&store, dir.path(), file));
    let listed = store.ok(&["list"]);
    assert_eq!(listed["files"].as_array().unwrap().len(), sizes.len());
    // Somebody else sees none of it.
    assert_eq!(store.run("bob", &["create_user"])["ok"], true);
    assert_eq!(store.run("bob", &["list"])["files"].as_array().unwrap().len(), 0);
    assert!(store.run("bob", &["get", "f5"])["error"].as_str().unwrap().contains("no stored file"));
    // A removed file's chunks go at once.
    store.ok(&["rm", "f16777216"]);
    assert!(store.refused(&["get", "f16777216"]).contains("no stored file"));
    let held = || (1..=4).map(|number| store.chunks(number).len()).sum::<usize>();
    let chunks: usize = sizes.iter().map(|&size| if size == 16 << 20 { 0 } else { size.min(4) }).sum();
    until("its chunks are gone", || held() <= 3 * (chunks + 3));
}

#[test]
fn a_new_version_replaces_the_old_and_neither_is_ever_mixed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "doc", 3_000_000);
    store.ok(&["put", file.to_str().unwrap()]);
    random_file(&file, 2_500_000, 9);
    store.ok(&["put", file.to_str().unwrap()]);
    fetched(&store, dir.path(), &file);
    assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 1);
    // What is there already is got at once; another file is not replaced, unless asked to.
    store.ok(&["get", "doc"]);
    std::fs::write(&file, "other").unwrap();
    assert!(store.refused(&["get", "doc"]).contains("exists already"));
    store.ok(&["get", "doc", "--force"]);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 2_500_000);
}

#[test]
fn a_put_waits_for_no_absent_or_stopped_server_and_needs_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 12_000_000);
    store.freeze(2, true);
    let started = Instant::now();
    store.ok(&["put", file.to_str().unwrap()]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    fetched(&store, dir.path(), &file);
    store.freeze(2, false);
    store.kill(2);
    store.kill(3);
    store.ok(&["put", file.to_str().unwrap()]);
    fetched(&store, dir.path(), &file);
    store.kill(4);
    let other = sample(dir.path(), "g", 1_000);
    let error = store.refused(&["put", other.to_str().unwrap()]);
    assert!(error.contains("only 1 of 4 servers"), "{error}");
    assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 1);
    assert!(
        store.refused(&["put", other.to_str().unwrap(), "--copies", "5"]).contains("need as many servers")
    );
}

#[test]
fn rot_is_noticed_the_chunk_comes_from_elsewhere_and_is_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 8_000_000);
    store.ok(&["put", file.to_str().unwrap()]);
    let held = store.chunks(1);
    for path in &held {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    fetched(&store, dir.path(), &file);
    until("the rot was found and copied again", || {
        fetched(&store, dir.path(), &file);
        files_below(&store.data(1).join("chunks/rotten")).len() == held.len()
            && store.chunks(1).len() == held.len()
    });
    store.until_repaired();
}

#[test]
fn a_full_server_is_skipped_and_all_full_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start_with(dir.path(), (1, 4), &[], &["--capacity", "10MiB"], &[]);
    let small = sample(dir.path(), "small", 16 << 20);
    store.ok(&["put", small.to_str().unwrap()]);
    let large = sample(dir.path(), "large", 8 << 20);
    let error = store.refused(&["put", large.to_str().unwrap()]);
    assert!(error.contains("they are full") && error.contains("nothing is listed"), "{error}");
    assert!(error.contains("8.0 MiB left") || error.contains("7.9 MiB left"), "{error}");
    assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 1);
    for number in 1..=4 {
        let held: u64 = store.chunks(number).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
        assert!(held <= 10 << 20, "node {number} holds {held} bytes");
    }
    fetched(&store, dir.path(), &small);
}

#[test]
fn a_put_that_is_killed_lists_nothing_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 60_000_000);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..6 {
        let mut command = store.dfs("ann", &["put", file.to_str().unwrap()]);
        let mut put =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Killed at any moment: the time is the fault.
        std::thread::sleep(Duration::from_millis(random.u64(50..900)));
        put.kill().unwrap();
        put.wait().unwrap();
        // Killed after its version was recorded, it is stored all the same: nothing half is listed.
        if !store.ok(&["list"])["files"].as_array().unwrap().is_empty() {
            fetched(&store, dir.path(), &file);
            break;
        }
    }
    store.ok(&["put", file.to_str().unwrap()]);
    fetched(&store, dir.path(), &file);
    let notes = files_below(&dir.path().join("dfs-state/unfinished-puts"));
    assert!(notes.is_empty(), "the note of an unfinished put stays: {notes:?}");
}

#[test]
fn nobody_but_the_owner_can_read_anything() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 2, 4);
    let (name, content, password) =
        ("tell-tale-name", "tell-tale content ".repeat(50_000), "tell-tale-password");
    let path = dir.path().join(name);
    std::fs::write(&path, &content).unwrap();
    let as_eve = |arguments: &[&str]| {
        let mut command = store.dfs("eve", &[&["--json"], arguments].concat());
        finish(command.env("SHOAL_PASSWORD", password), "")
    };
    assert_eq!(as_eve(&["create_user"]).code, Some(0));
    assert_eq!(as_eve(&["put", path.to_str().unwrap()]).code, Some(0));
    let mut searched = 0;
    for folder in std::fs::read_dir(dir.path()).unwrap().flatten() {
        let is_theirs = folder
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("node-") || name.starts_with("tracker-"));
        let below = if folder.path().is_dir() { files_below(&folder.path()) } else { vec![folder.path()] };
        for file in below.into_iter().filter(|_| is_theirs) {
            let bytes = std::fs::read(&file).unwrap();
            searched += bytes.len();
            for secret in [name, "tell-tale content", password] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret:?} is in {}", file.display());
            }
        }
    }
    assert!(searched > 1_000_000, "only {searched} bytes were searched");
}

#[test]
fn somebody_at_the_prompt_is_told_who_answers_and_has_four_tries() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 100_000);
    store.kill(4);
    let script = format!("ann\nsecret\nput {}\nlist\nLIST\nwhat\nstatus\nexit\n", file.display());
    let mut command = store.dfs("ann", &[]);
    let mut plain = std::process::Command::new(command.get_program());
    let _ = &mut command;
    plain
        .arg(dir.path().join("dfs.conf"))
        .arg("--data-dir")
        .arg(dir.path().join("d"))
        .env_remove("SHOAL_PASSWORD");
    let finished = finish(&mut plain, &script);
    for words in [
        "Connected to server DFS1",
        "Could not connect to server DFS4",
        "From DFS2: Authorization Granted.",
        "f is stored",
        "2/2 copies",
    ] {
        assert!(finished.stdout.contains(words), "{words}: {finished:?}");
    }
    let finished = finish(&mut plain, "ann\n1\nann\n2\nnobody\n3\nann\n4\nann\nsecret\n");
    assert_eq!(finished.code, Some(1));
    for words in ["3 tries left", "2 tries left", "1 try left", "0 tries left"] {
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    }
}

#[test]
fn absurd_names_and_files_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let long = "x".repeat(5_000);
    for (arguments, reason) in [
        (vec!["get", "../x"], "must not contain"),
        (vec!["get", &long], "too long"),
        (vec!["put", "/nowhere/at/all"], "cannot read"),
        (vec!["put", "/"], "is a folder and not a regular file"),
        (vec!["put", "/proc"], "not a regular file"),
        (vec!["rm", "nothing"], "no stored file"),
    ] {
        let error = store.refused(&arguments);
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(error.len() < 2_000);
    }
    let wrong = finish(store.dfs("ann", &["list"]).env("SHOAL_PASSWORD", "wrong"), "");
    let unknown = finish(&mut store.dfs("nobody", &["list"]), "");
    assert_eq!((wrong.code, unknown.code), (Some(1), Some(1)));
    assert!(wrong.stderr.contains("wrong password for ann"), "{}", wrong.stderr);
    assert_eq!(wrong.stderr.replace("ann", "nobody"), unknown.stderr, "one text for both");
}

/// An S3-compatible server that `scripts/test` fetched; none, with a note, where it could not.
struct Bucket {
    server: std::process::Child,
    port: u16,
}

impl Bucket {
    fn start(test: &str) -> Option<Self> {
        let Some(program) = std::env::var_os("SHOAL_S3_SERVER") else {
            shoal_tests::skip(test, "needs an S3 server, which scripts/test fetches");
            return None;
        };
        let port = shoal_tests::free_port();
        let mut command = std::process::Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bucket = Self { server, port };
        until("the S3 server makes a bucket", || bucket.ask("PUT", "/chunks").contains(" 200 "));
        Some(bucket)
    }

    /// Asks by hand; the answer's head and body.
    fn ask(&self, method: &str, path: &str) -> String {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else {
            return String::new();
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut answer = Vec::new();
        let _ =
            stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer).map(|_| ()));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn chunks_may_live_in_an_s3_compatible_store() {
    let Some(bucket) = Bucket::start("chunks_may_live_in_an_s3_compatible_store") else { return };
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--store", "s3://chunks/node{n}"];
    let mut store =
        Store::start_with(dir.path(), (1, 3), &["--repair-after", "2s"], &arguments, &bucket.environment());
    let file = sample(dir.path(), "f", 9_000_000);
    store.ok(&["put", file.to_str().unwrap()]);
    fetched(&store, dir.path(), &file);
    // A node that comes back finds what it had.
    store.kill(1);
    store.restart(1);
    store.until_up(3);
    store.until_repaired();
    fetched(&store, dir.path(), &file);
    // One that is lost is copied again, from bucket to bucket.
    store.kill(2);
    store.until_repaired();
    fetched(&store, dir.path(), &file);
    store.ok(&["rm", "f"]);
    until("the bucket holds no chunk of the nodes that are up", || {
        let listed = bucket.ask("GET", "/chunks?list-type=2&prefix=node1/");
        listed.contains(" 200 ") && !listed.contains("<Key>")
    });
}
