//! The client in scripts: pipes, `--exec`, `--headless`, plain text, exit codes and passwords (P12, P16, X3).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shoal_tests::{
    Client, Trackers, client_command, finish, free_port, random_file, run_script, same_content, until,
};

fn objects(stdout: &str) -> Vec<Value> {
    let all = stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}")));
    all.filter(|object: &Value| object.get("event").is_none()).collect()
}

#[test]
fn show_downloads_has_exactly_the_given_form() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group holidays");
    ann.share("holidays", "a.bin", 1 << 20);
    ann.share("holidays", "two words.bin", 3 << 20);
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let first = "create_user bob secret\nlogin bob secret\njoin_group holidays\n";
    assert_eq!(run_script(dir.path(), "bob", &trackers.info(), &[], first).code, Some(0));
    ann.ok("accept_request holidays bob");
    let script = format!(
        "login bob secret\ndownload_file holidays a.bin {}\nwait 60\nlimit down 100K\n\
         download_file holidays 'two words.bin' {}\nShow_Downloads\npause_download holidays 'two words.bin'\n\
         show_downloads\nshow_downloads -v\n",
        one.display(),
        two.display()
    );
    let finished = run_script(dir.path(), "bob", &trackers.info(), &[], &script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(
        lines[..4],
        [
            "[C] [holidays] a.bin",
            "[D] [holidays] two words.bin",
            "[C] [holidays] a.bin",
            "[P] [holidays] two words.bin",
        ],
        "{finished:?}"
    );
    assert!(finished.stdout.contains('%'), "-v tells the percent: {finished:?}");
    assert!(one.exists() && !two.exists());
}

#[test]
fn a_script_goes_on_after_a_failure_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let script =
        "create_user ann secret\nlogin ann wrong\nnonsense\n\nlogin ann secret\nwhoami\ncreate_group g\n";
    let finished = run_script(dir.path(), "ann", &trackers.info(), &["--json"], script);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let outcomes = objects(&finished.stdout);
    let oks: Vec<_> = outcomes.iter().map(|object| object["ok"].as_bool().unwrap()).collect();
    assert_eq!(oks, [true, false, false, true, true, true], "one object a command: {outcomes:?}");
    assert_eq!(outcomes[4]["user"], "ann");
    let finished = run_script(
        dir.path(),
        "ann",
        &trackers.info(),
        &["--json"],
        "login ann secret\nlist_groups\nquit\nwhoami\n",
    );
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let outcomes = objects(&finished.stdout);
    assert_eq!(outcomes.len(), 3, "nothing runs after quit: {outcomes:?}");
    assert_eq!(outcomes[1]["groups"], serde_json::json!([{ "group": "g", "owner": "ann", "member": true }]));
    assert_eq!(outcomes[2]["command"], "quit");
}

#[test]
fn exec_runs_first_and_then_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let arguments = [
        "--json",
        "--exec",
        "create_user ann secret",
        "--exec",
        "LOGIN ann secret",
        "--exec",
        "create_group 'a b'",
    ];
    let finished = run_script(dir.path(), "ann", &trackers.info(), &arguments, "list_groups\n");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let outcomes = objects(&finished.stdout);
    let commands: Vec<_> = outcomes.iter().map(|object| object["command"].as_str().unwrap()).collect();
    assert_eq!(commands, ["create_user", "login", "create_group", "list_groups"]);
    assert_eq!(outcomes[3]["groups"][0]["group"], "a b");
    let finished =
        run_script(dir.path(), "ann", &trackers.info(), &["--exec", "login ann mistyped-4711"], "");
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(!finished.stdout.contains("4711") && !finished.stderr.contains("4711"), "{finished:?}");
}

#[test]
fn headless_stays_until_a_signal_and_shares_and_downloads() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let path = dir.path().join("a.bin");
    random_file(&path, 1 << 20, 1);
    let start = |name: &str, commands: &[&str]| {
        let mut command = client_command(dir.path(), name, &trackers.info(), free_port());
        command.arg("--headless");
        for line in commands {
            command.args(["--exec", line]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let upload = format!("upload_file {} g", path.display());
    let mut ann = start("ann", &["create_user ann secret", "login ann secret", "create_group g", &upload]);
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    until("the group is there", || bob.run("join_group g").answer["ok"] == true);
    let mut owner = Client::start(dir.path(), "owner", &trackers.info());
    owner.ok("login ann secret");
    owner.ok("accept_request g bob");
    until("the headless client shares it", || bob.sharers("g", "a.bin") == 1);
    let (stopped, _) = bob.quit();
    drop(stopped);
    let copy = dir.path().join("copy.bin");
    let download = format!("download_file g a.bin {}", copy.display());
    let mut bob = start("bob", &["login bob secret", &download]);
    until("the headless client has downloaded it", || same_content(&path, &copy));
    for child in [&mut ann, &mut bob] {
        assert!(child.try_wait().unwrap().is_none(), "it stays");
    }
    for (child, signal) in [(&mut ann, Signal::TERM), (&mut bob, Signal::INT)] {
        kill_process(Pid::from_child(child), signal).unwrap();
        until("it leaves", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success(), "a signal ends it well");
    }
}

#[test]
fn passwords_come_from_the_environment_or_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let finished = run_script(dir.path(), "ann", &info, &["--json"], "create_user ann\nlogin ann\n");
    assert_eq!(finished.code, Some(1));
    for outcome in objects(&finished.stdout) {
        let error = outcome["error"].as_str().unwrap();
        assert!(error.contains("password") && error.contains("SHOAL_PASSWORD"), "{outcome}");
    }
    let with = |password: &str, script: &str| {
        let mut command = client_command(dir.path(), "ann", &info, free_port());
        finish(command.arg("--json").env("SHOAL_PASSWORD", password), script)
    };
    assert_eq!(with("from-outside-9", "create_user ann\nlogin ann\nwhoami\n").code, Some(0));
    assert_eq!(with("wrong", "login ann\n").code, Some(1));
    assert_eq!(with("wrong", "login ann from-outside-9\n").code, Some(0), "what is given counts first");
    let finished = with("from-outside-9", "login ann\nlogin ann from-outside-9\nlist_groups\n");
    assert!(!finished.stdout.contains("from-outside-9") && !finished.stderr.contains("from-outside-9"));
    assert!(!holds(&dir.path().join("ann"), b"from-outside-9"), "no file keeps the password");
}

fn holds(folder: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(Result::unwrap).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
    })
}

#[test]
fn logs_go_to_standard_error_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut command = client_command(dir.path(), "ann", &trackers.info(), free_port());
    let finished = finish(command.args(["--log-format", "json"]).env("RUST_LOG", "info"), "whoami\n");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let line = finished.stderr.lines().next().expect("a log line");
    assert!(serde_json::from_str::<Value>(line).is_ok_and(|object| object.is_object()), "{line}");
    let finished =
        run_script(dir.path(), "ann", &trackers.info(), &["--json", "--log-format", "nonsense"], "");
    assert_eq!(finished.code, Some(2));
}

/// Milliseconds of the day, from a log line's time of the form `2026-11-27T07:52:52.123456Z`.
fn milliseconds(line: &Value) -> u64 {
    let time = line["timestamp"].as_str().unwrap();
    let part = |from: usize, length: usize| time[from..from + length].parse::<u64>().unwrap();
    ((part(11, 2) * 60 + part(14, 2)) * 60 + part(17, 2)) * 1_000 + part(20, 3)
}

#[test]
fn a_log_shows_by_its_id_what_a_download_does_and_that_it_asks_for_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, bob) = Client::pair(dir.path(), &trackers.info());
    ann.share("g", "a.bin", 100_000);
    ann.share("g", "b.bin", 100_000);
    bob.quit();
    // Another file of the same size is read, to find out whether it is the same.
    let there = dir.path().join("there");
    random_file(&there, 100_000, 1);
    let script = format!(
        "login bob secret\ndownload_file g a.bin {} --overwrite\ndownload_file g b.bin {}\nwait 60\n",
        there.display(),
        dir.path().display()
    );
    let mut command = client_command(dir.path(), "bob", &trackers.info(), free_port());
    command.args(["--json", "--log-format", "json"]).env("RUST_LOG", "shoal_client=debug,shoal_swarm=debug");
    let finished = finish(&mut command, &script);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<Value> = finished.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let begun = lines.iter().filter(|line| line["fields"]["message"] == "fetching");
    let ids: Vec<&Value> = begun.map(|line| &line["span"]["id"]).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{}", finished.stderr);
    let said = |message: &str| -> Vec<&Value> {
        let of_first = lines.iter().filter(|line| &line["span"]["id"] == ids[0]);
        of_first.filter(|line| line["fields"]["message"] == message).collect()
    };
    assert_eq!(said("reading the piece list").len(), 1, "{}", finished.stderr);
    assert_eq!(said("hashing").len(), 1, "{}", finished.stderr);
    assert_eq!(said("the download stopped").len(), 1, "{}", finished.stderr);
    assert!(!said("a peer serves the file").is_empty(), "{}", finished.stderr);
    // The tracker wishes to be asked again after a second.
    let asked: Vec<u64> = said("asking for holders").into_iter().map(milliseconds).collect();
    assert!(asked.len() == 1 || asked[1].abs_diff(asked[0]) >= 900, "{asked:?}");
}

#[test]
fn a_password_file_stands_in_and_others_read_neither_it_nor_the_clients_files() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let password = dir.path().join("password");
    std::fs::write(&password, "open sesame 4711\n").unwrap();
    let run = |mode: u32, arguments: &[&str]| {
        std::fs::set_permissions(&password, Permissions::from_mode(mode)).unwrap();
        let file = ["--password-file", password.to_str().unwrap()];
        run_script(dir.path(), "ann", &trackers.info(), &[&file, arguments].concat(), "")
    };
    let refused = run(0o644, &["--exec", "whoami"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("chmod 600"), "{refused:?}");
    let entered = run(0o600, &["--exec", "create_user ann", "--exec", "login ann"]);
    assert!(entered.code == Some(0) && entered.stdout.contains("logged in as ann"), "{entered:?}");
    assert!(!entered.stderr.contains("warning"), "{entered:?}");
    let seen = run(0o600, &["--exec", "login ann 'open sesame 4711'"]);
    assert!(seen.code == Some(0) && seen.stderr.contains("--password-file"), "{seen:?}");
    // A folder of an earlier version: its database could be read by all.
    let data = dir.path().join("ann");
    std::fs::set_permissions(data.join("client.db"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run(0o600, &["--exec", "login ann"]).code, Some(0));
    let all = [data, trackers.data(1)]
        .into_iter()
        .flat_map(|folder| std::iter::once(folder.clone()).chain(shoal_tests::files_below(&folder)));
    for path in all {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", trackers.pid(1))).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("1"), "no core dump: {core}");
}
