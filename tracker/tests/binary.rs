//! What the real binary says on its command line, at its prompt and in its log, and what it leaves in its folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use common::{Client, free_ports, until};
use shoal_common::PeerId;
use tempfile::TempDir;

/// A folder with a tracker file in it, and everything that a tracker is started with there.
struct Bench {
    dir: TempDir,
}

/// What a program said until it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cluster.txt"), format!("127.0.0.1 {}\n", free_ports(1)[0])).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A tracker with these arguments, in this folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracker"));
        command.args(arguments).current_dir(&self.dir).env_remove("RUST_LOG");
        command
    }

    fn run(&self, arguments: &[&str], typed: &str) -> Said {
        say(&mut self.command(arguments), typed)
    }

    /// The only tracker of its cluster, once it obeys, and where to type.
    fn running(&self) -> (Child, ChildStdin) {
        let mut command = self.command(&["cluster.txt", "1", "--data-dir", "data"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "help").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("status"), "{line}");
        (child, input)
    }

    /// The only tracker of its cluster, until what is typed was done.
    fn tracker(&self, typed: &str) -> Said {
        self.run(&["cluster.txt", "1", "--data-dir", "data"], typed)
    }
}

/// Runs a program until it ends, which it does when its input does.
fn say(command: &mut Command, typed: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |from: &mut dyn Read| {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    };
    // It may have ended before it reads.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let errors = thread::spawn(move || read(&mut err));
    let out = read(&mut out);
    let code = child.wait().unwrap().code();
    Said { code, out, err: errors.join().unwrap() }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_backup_at_the_prompt_replaces_nothing_and_errors_are_on_stderr() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("folder")).unwrap();
    std::fs::write(bench.path("precious"), "mine").unwrap();
    let typed = "backup data/tracker.db\nbackup data/identity.key\nbackup precious\nbackup folder/\n\
                 backup none/x\nbackup good\nbackup good\nbackup\nfly\nquit\n";
    let said = bench.tracker(typed);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    assert!(said.out.starts_with("the database is in good; keep the key"), "{said:?}");
    let problems: Vec<&str> = said.err.lines().filter(|line| !line.contains(" INFO ")).collect();
    let problems: Vec<&str> = problems.into_iter().filter(|line| !line.contains(" WARN ")).collect();
    assert_eq!(
        problems,
        [
            "no backup was made: data/tracker.db is in this tracker's data directory; name a file elsewhere, best on another \
             disk",
            "no backup was made: data/identity.key is in this tracker's data directory; name a file elsewhere, best on another \
             disk",
            "no backup was made: precious exists already; name another file or remove it",
            "no backup was made: folder/ is a folder; name a file in it, for example folder/tracker.db",
            "no backup was made: there is no folder none; make it first or name a file in another one",
            "no backup was made: good exists already; name another file or remove it",
            "give a file: backup FILE, a new one outside the data directory",
            "unknown command \"fly\"; there are: status, nodes, admit, expel, backup, allow-deletions, accept-tracker, \
             allow-removal, restamp, invite_user, quota, help, quit",
        ],
        "{said:?}"
    );
    assert_eq!(std::fs::read(bench.path("precious")).unwrap(), b"mine");
    assert_eq!(names(bench.dir.path()), ["cluster.txt", "data", "folder", "good", "precious"]);
    // What it lives on is whole.
    let again = bench.tracker("status\n");
    assert!(again.code == Some(0) && !again.err.contains("damaged"), "{again:?}");
}

/// The modes of a folder's files, and of the folder itself as `.`.
fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mode = |name: String| {
        let mode = dir.join(&name).metadata().unwrap().mode() & 0o777;
        (name, mode)
    };
    [".".to_owned()].into_iter().chain(names(dir)).map(mode).collect()
}

#[test]
fn the_data_directory_is_its_owners_alone_and_an_open_one_is_warned_of() {
    let bench = Bench::new();
    let data = bench.path("data");
    let (mut child, mut input) = bench.running();
    // While it runs: a log and its index lie beside the database.
    let running = modes(&data);
    writeln!(input, "quit").unwrap();
    assert!(child.wait().unwrap().success());
    for name in [".", "tracker.db", "tracker.db-wal", "tracker.db-shm", "identity.key"] {
        assert!(running.iter().any(|(found, _)| found == name), "{name}: {running:?}");
    }
    for (name, mode) in &running {
        assert_eq!(*mode, if name == "." { 0o700 } else { 0o600 }, "{name}");
    }
    // As an earlier version left it.
    for (name, mode) in [("", 0o755), ("tracker.db", 0o644)] {
        std::fs::set_permissions(data.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let said = bench.tracker("");
    assert!(
        said.err.contains("others can look into the data directory data; run: chmod 700 data"),
        "{said:?}"
    );
    assert!(modes(&data).iter().all(|(name, mode)| name == "." || *mode == 0o600), "{:?}", modes(&data));
}

#[test]
fn a_tracker_file_without_end_is_refused_at_once() {
    let bench = Bench::new();
    let said = bench.run(&["/dev/zero", "1", "--data-dir", "data"], "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("the tracker file /dev/zero: it is longer than 65536 bytes"), "{said:?}");
    assert!(!bench.path("data").exists());
}

#[test]
fn a_number_and_a_key_that_do_not_fit_name_the_file_that_was_given() {
    let bench = Bench::new();
    let said = bench.run(&["cluster.txt", "2", "--data-dir", "data"], "");
    assert_eq!(said.err, "tracker: there is no tracker 2 in cluster.txt; it has: 1\n");
    let line = std::fs::read_to_string(bench.path("cluster.txt")).unwrap();
    let key = PeerId([7; 32]);
    std::fs::write(bench.path("cluster.txt"), format!("{} {key}\n", line.trim_end())).unwrap();
    let said = bench.tracker("");
    assert!(said.err.starts_with(&format!("tracker: cluster.txt names the key {key} for ")), "{said:?}");
}

#[test]
fn json_without_status_is_refused_before_anything_is_made() {
    let bench = Bench::new();
    let said = bench.run(&["cluster.txt", "1", "--json", "--data-dir", "data"], "");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.starts_with("error: --json is for --status ADDR"), "{said:?}");
    assert!(!bench.path("data").exists());
}

#[test]
fn a_number_time_or_address_that_is_none_is_answered_with_what_to_type() {
    let bench = Bench::new();
    for (arguments, problem) in [
        (["cluster.txt", "x", "--json"], "give a whole number from 1 to 255"),
        (["cluster.txt", "0", "--json"], "give a whole number from 1 to 255"),
        (["cluster.txt", "1", "--metrics=9090"], "give ip:port, for example 127.0.0.1:9090"),
        (["cluster.txt", "1", "--grace=10"], "give a number with its unit, for example 30s"),
        (["cluster.txt", "1", "--repair-after=soon"], "give a number with its unit, for example 30s"),
        (["cluster.txt", "1", "--accounts-per-address=0"], "give a whole number from 1 to 10000000"),
        (["cluster.txt", "1", "--clock-offset=now"], "give a whole number from"),
    ] {
        let said = bench.run(&arguments, "");
        assert!(said.code == Some(2) && said.err.contains(problem), "{arguments:?}: {said:?}");
    }
    assert!(!bench.path("data").exists());
}

#[tokio::test]
async fn a_call_is_followed_through_the_log_by_its_client_and_number_into_the_database() {
    let bench = Bench::new();
    let line = std::fs::read_to_string(bench.path("cluster.txt")).unwrap();
    let port = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    let mut command = bench.command(&["cluster.txt", "1", "--data-dir", "data"]);
    command.env("RUST_LOG", "info,shoal_tracker=debug").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(File::create(bench.path("log")).unwrap()).spawn().unwrap();
    let log = || std::fs::read_to_string(bench.path("log")).unwrap();
    until("it serves", async || log().contains("serves at")).await;
    let mut client = Client::connect(port).await;
    // Hello was the first call.
    client.create_user("ann", "secret").await;
    client.login("ann", "secret").await.unwrap();
    client.create_group("friends").await;
    let of_client = format!("client{{peer={} ", client.identity.peer_id());
    let has = |call: &str, event: &str| {
        log().lines().any(|line| line.contains(&of_client) && line.contains(call) && line.contains(event))
    };
    until("its calls are in the log", async || {
        has("call{id=1 name=\"Hello\"}", "done")
            && has("call{id=2 name=\"CreateUser\"}", "shoal_tracker::database: written")
            && has("call{id=4 name=\"Login\"}", "a session begins session=1")
            && has("call{id=5 name=\"CreateGroup\" session=1}", "shoal_tracker::database: written")
    })
    .await;
    client.close().await;
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_wrong_directive_in_rust_log_is_named() {
    let bench = Bench::new();
    let arguments = ["cluster.txt", "1", "--data-dir", "data"];
    let said = say(bench.command(&arguments).env("RUST_LOG", "info,libp2p=loud"), "");
    assert!(said.err.starts_with("warning: RUST_LOG: \"libp2p=loud\" makes no sense"), "{said:?}");
    assert!(said.code == Some(0) && said.err.contains("serves at"), "{said:?}");
}

#[test]
fn the_version_is_said_under_the_binarys_own_name() {
    let said = Bench::new().run(&["--version"], "");
    assert_eq!(said.out, format!("tracker {}\n", env!("CARGO_PKG_VERSION")));
}
