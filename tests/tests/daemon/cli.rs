//! `shoal`: the commands of the prompt for a client in the background, as a person and a script use them.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shoal_tests::{Client, Service, Terminal, Trackers, binary, finish, random_file, same_content, until};

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_command_works_through_shoal_with_the_callers_paths_and_a_scripts_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let created = ann.run(&["create_user", "ann"], "secret\n");
    assert_eq!(
        (created.code, created.stdout.contains("user ann was created")),
        (Some(0), true),
        "{created:?}"
    );
    assert!(created.stderr.contains("this password is weak"), "{created:?}");
    let logged_in = ann.run(&["login", "ann", "--json"], "secret\n");
    assert_eq!(json(&logged_in.stdout)["user"], "ann", "{logged_in:?}");
    assert_eq!(ann.run(&["Create_Group", "a b"], "").code, Some(0));

    let folder = dir.path().join("films/below");
    std::fs::create_dir_all(&folder).unwrap();
    random_file(&dir.path().join("films/x.bin"), 1 << 20, 5);
    let shared = finish(ann.shoal(&["upload_file", "../x.bin", "a b"]).current_dir(&folder), "");
    assert_eq!(
        (shared.code, shared.stdout.starts_with("sharing x.bin in a b (1.0 MiB")),
        (Some(0), true),
        "{shared:?}"
    );
    let listed = ann.run(&["--json", "list_files", "a b"], "");
    assert_eq!(json(&listed.stdout)["files"][0]["name"], "x.bin");
    let plain = ann.run(&["list_files", "a b"], "").stdout;
    assert!(plain.starts_with("x.bin  1.0 MiB  SHA-1 "), "{plain}");

    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group 'a b'");
    assert!(ann.run(&["accept_request", "a b", "bob"], "").stdout.contains("bob is a member of a b now"));
    let (path, _) = bob.share("'a b'", "y.bin", 1 << 20);
    let begun = finish(ann.shoal(&["download_file", "a b", "y.bin", "down/"]).current_dir(&folder), "");
    assert_eq!(begun.code, Some(0), "{begun:?}");
    assert_eq!(ann.run(&["wait", "60"], "").code, Some(0));
    assert!(same_content(&path, &folder.join("down/y.bin")));
    let done = ann.run(&["show_downloads"], "").stdout;
    assert_eq!(done.trim(), "[C] [a b] y.bin");
    let watched = ann.run(&["show_downloads", "--watch"], "");
    assert_eq!((watched.code, watched.stdout.trim()), (Some(0), "[C] [a b] y.bin"), "{watched:?}");

    for (arguments, code, error) in [
        (
            &["list_files"][..],
            1,
            "error: <group_id> is missing; use: list_files <group_id> [<folder_name/>] [--from NUMBER] [-v]",
        ),
        (&["list_files", "nowhere"], 1, "error: "),
        (&["login", "ann"], 1, "the password is missing"),
        (&["list_grups"], 2, "list_groups"),
        (&["--no-such", "whoami"], 2, "--no-such"),
        (&["whoami", "--socket", "/nowhere/x.sock"], 1, "no daemon answers at /nowhere/x.sock"),
        (&["whoami", "--socket", "/nowhere/x.sock"], 1, "start one with: shoal up"),
        (&["watch", "--socket", "/nowhere/x.sock"], 1, "start one with: shoal up"),
        (&["web", "--socket", "/nowhere/x.sock"], 1, "start one with: shoal up"),
    ] {
        let failed = ann.run(arguments, "");
        assert_eq!(failed.code, Some(code), "{arguments:?}: {failed:?}");
        assert!(failed.stdout.is_empty() && failed.stderr.contains(error), "{arguments:?}: {failed:?}");
    }
    let failed = ann.run(&["--json", "list_files", "nowhere"], "");
    assert_eq!((failed.code, &json(&failed.stdout)["ok"]), (Some(1), &Value::Bool(false)));
    let said = ann.run(&["login", "ann", "secret"], "");
    assert!(said.stderr.contains("other users of this machine can read the password"), "{said:?}");
    let changed = ann.run(&["change_password"], "wrong\nanother-pw\n");
    assert!(changed.code == Some(1) && changed.stderr.contains("the old password is wrong"), "{changed:?}");
    assert_eq!(ann.run(&["change_password"], "secret\nanother-pw\n").code, Some(0));
}

#[test]
fn help_says_the_same_and_needs_no_daemon_and_without_one_it_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let alone = |arguments: &[&str]| {
        let mut command = Command::new(binary("shoal"));
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("XDG_DATA_HOME", dir.path().join("data"));
        finish(command.env_remove("SHOAL_SOCKET"), "")
    };
    let none = alone(&["whoami"]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("no client runs in the background; start one with: shoal up"), "{none:?}");
    let none = json(&alone(&["whoami", "--json"]).stdout);
    assert!(none["ok"] == false && none["error"].as_str().unwrap().contains("shoal up"), "{none}");
    for arguments in [&["help", "upload_file"][..], &["upload_file", "--help"]] {
        let help = alone(arguments).stdout;
        assert!(
            help.starts_with("upload_file <file_path> <group_id>") && help.contains("example: "),
            "{help}"
        );
    }
    for arguments in [&["help"][..], &["--help"]] {
        let help = alone(arguments);
        assert!(
            help.code == Some(0) && help.stdout.contains("upload_file") && help.stdout.contains("tracker"),
            "{help:?}"
        );
    }
    assert!(alone(&["help", "up"]).stdout.contains("--join"));
    assert!(alone(&["up", "--help"]).stdout.contains("--join"));
    // The six programs, as they are.
    for program in ["tracker", "client", "server", "fetch", "dfs", "dfs-server"] {
        let (own, other) =
            (alone(&[program, "--help"]).stdout, finish(Command::new(binary(program)).arg("--help"), ""));
        assert_eq!(own.replace(&format!("shoal {program} "), &format!("{program} ")), other.stdout);
        assert_eq!(alone(&[program, "--no-such-option"]).code, Some(2), "{program}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = alone(&["completions", shell]).stdout;
        assert!(text.contains("list_files") && text.contains("shoal"), "{shell}");
    }
    let script = dir.path().join("shoal.bash");
    std::fs::write(&script, alone(&["completions", "bash"]).stdout).unwrap();
    let sourced = finish(Command::new("bash").arg("-c").arg(
        format!("source {}; COMP_WORDS=(shoal show_d); COMP_CWORD=1; _shoal shoal show_d shoal; echo ${{COMPREPLY[@]}}", script.display()),
    ), "");
    assert_eq!(sourced.stdout.trim(), "show_downloads", "{sourced:?}");
    let man = dir.path().join("man");
    assert_eq!(alone(&["man", man.to_str().unwrap()]).code, Some(0));
    assert!(man.join("shoal.1").is_file() && man.join("shoal-up.1").is_file());
}

#[test]
fn with_several_daemons_it_asks_which_and_dead_sockets_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let one = Service::start(dir.path(), "one", &trackers.info(), &[]);
    one.enter("one");
    let mut other =
        shoal_tests::client_command(dir.path(), "other", &trackers.info(), shoal_tests::free_port());
    other
        .arg("--headless")
        .env("XDG_RUNTIME_DIR", dir.path().join("run-one"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut other = other.spawn().unwrap();
    until("there are two", || one.run(&["whoami"], "").code == Some(1));
    let asked = one.run(&["whoami"], "").stderr;
    assert!(asked.contains("several clients run") && asked.matches("--socket /").count() == 2, "{asked}");
    for (user, folder) in [("one", "one"), ("nobody is logged in", "other")] {
        let named = format!("({user}, data in {})", dir.path().join(folder).display());
        assert!(asked.contains(&named), "{named}: {asked}");
    }
    let chosen = one.run(&["--socket", one.socket().to_str().unwrap(), "whoami"], "");
    assert_eq!(chosen.code, Some(0), "{chosen:?}");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(one.run(&["whoami"], "").code, Some(0), "the other's socket is left over");
}

#[test]
fn a_daemon_that_dies_under_a_command_is_said_and_one_of_another_version_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    trackers.kill(1);
    // It waits for a tracker.
    let child = ann.shoal(&["list_groups"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let has_socket = |pid: u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|to| to.to_string_lossy().starts_with("socket:"))
    };
    until("it asks the daemon", || has_socket(child.id()));
    ann.kill();
    let said = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{error}");
    // Killed just before it was asked, it is not there.
    let said = ["the daemon ended or was killed", "no client runs", "no daemon answers"];
    assert!(said.iter().any(|said| error.contains(said)), "{error}");

    let socket = dir.path().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answers = [
        "HTTP/1.1 404 Not Found\r\nshoal-version: 9.9.9\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nshoal-version: 9.9.9\r\ncontent-length: 12\r\n\r\n{\"news\": 42}",
        "HTTP/1.1 200 OK\r\nshoal-version: 9.9.9\r\ncontent-length: 13\r\n\r\n{\"news\": 42}\n",
        "220 mail.example ESMTP\r\n",
    ];
    for answer in answers {
        let mut command = Command::new(binary("shoal"));
        command.arg("--socket").arg(&socket).arg("whoami").stderr(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).unwrap();
        std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        drop(stream);
        let said = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&said.stderr);
        assert_eq!((said.status.code(), error.lines().count()), (Some(1), 1), "{answer}: {error}");
        assert!(
            error.contains("another version (9.9.9") || error.contains("before it answered"),
            "{answer}: {error}"
        );
    }
}

#[test]
fn control_characters_from_the_daemon_do_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("evil.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let done = serde_json::json!({ "done": {
        "result": { "ok": true, "command": "whoami" }, "text": "a\u{1b}]52;c;ZXZpbA==\u{7}b\nc",
        "table": { "titles": ["NAME"], "rows": [["x\u{1b}[31m"]] },
    } });
    let note = serde_json::json!({ "note": "n\u{1b}[2J" });
    let body = format!("{note}\n{done}\n");
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request).unwrap();
        std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
    });
    let said = finish(Command::new(binary("shoal")).arg("--socket").arg(&socket).arg("whoami"), "");
    serve.join().unwrap();
    assert_eq!(said.stdout, "a]52;c;ZXZpbA==b\nc\n");
    assert!(!said.stderr.contains('\u{1b}') && said.stderr.contains("n[2J"), "{said:?}");
}

#[test]
fn at_a_terminal_passwords_are_asked_for_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let mut terminal = Terminal::start(&ann.shoal(&["create_user", "ann"]));
    terminal.expect("New password: ");
    terminal.line("correct horse battery-4711");
    terminal.expect("The same again: ");
    terminal.line("correct horse battery-4711");
    terminal.expect("user ann was created");
    assert_eq!(terminal.wait(), 0);
    let mut terminal = Terminal::start(&ann.shoal(&["create_user", "eve"]));
    terminal.expect("New password: ");
    terminal.line("secret");
    terminal.expect("The same again: ");
    terminal.line("secret");
    terminal.expect("Use it all the same?");
    terminal.line("n");
    terminal.expect("choose another password");
    assert_eq!(terminal.wait(), 1);
    let mut terminal = Terminal::start(&ann.shoal(&["login", "ann"]));
    terminal.expect("Password: ");
    terminal.line("correct horse battery-4711");
    terminal.expect("logged in as ann");
    assert_eq!(terminal.wait(), 0);
    // On a terminal lists are tables.
    ann.ok("create_group g");
    let mut terminal = Terminal::start(&ann.shoal(&["list_groups"]));
    terminal.expect("GROUP");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn ctrl_c_ends_a_wait_and_a_watch_and_not_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    ann.ok("create_group g");
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    ann.ok("accept_request g bob");
    let (path, _) = bob.share("g", "a.bin", 1 << 20);
    let (stopped, _) = bob.quit();
    let copy = dir.path().join("copy.bin");
    let mut watch = ann.shoal(&["watch"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = watch.stdout.take().unwrap();
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        seen.read_to_string(&mut text).unwrap();
        text
    });
    ann.ok(&format!("download_file g a.bin {}", copy.display()));
    let mut waits = ann.shoal(&["wait"]).spawn().unwrap();
    kill_process(Pid::from_child(&waits), Signal::INT).unwrap();
    until("it ends", || waits.try_wait().unwrap().is_some());
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    until("the download goes on", || same_content(&path, &copy));
    assert_eq!(ann.run(&["wait"], "").code, Some(0));
    kill_process(Pid::from_child(&watch), Signal::INT).unwrap();
    until("it ends", || watch.try_wait().unwrap().is_some());
    assert!(watch.wait().unwrap().success());
    let text = reads.join().unwrap();
    assert!(text.contains("[g] a.bin"), "{text}");
}

#[test]
fn watch_shows_events_and_says_when_the_daemon_ends() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    ann.ok("create_group g");
    let out = dir.path().join("watched");
    let mut watch = ann.shoal(&["watch", "--json"]);
    let mut watch = watch.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    until("it reads", || std::fs::read_to_string(&out).unwrap().contains("progress"));
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    until("the request is shown", || std::fs::read_to_string(&out).unwrap().contains("join_request"));
    ann.stop();
    until("it ends", || watch.try_wait().unwrap().is_some());
    assert_eq!(watch.wait().unwrap().code(), Some(1));
    let lines = std::fs::read_to_string(&out).unwrap();
    assert!(lines.lines().all(|line| json(line).is_object()), "{lines}");
    assert!(json(lines.lines().last().unwrap())["error"] == "the daemon has ended", "{lines}");
}

#[test]
fn whoami_takes_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    let mut took: Vec<Duration> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(ann.run(&["whoami"], "").code, Some(0));
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    eprintln!("shoal whoami: {:?} at best, {:?} in the middle", took[0], took[10]);
    // The aim is 20 ms for a release build on an idle machine; this one is neither, and its helper looks every 20 ms.
    assert!(took[0] < Duration::from_millis(200), "{took:?}");
}

#[test]
fn a_folder_whose_name_is_no_text_is_no_obstacle_and_a_word_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    let odd = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&odd).unwrap();
    let mut whoami = ann.shoal(&["--json", "whoami"]);
    let ended = finish(whoami.current_dir(&odd), "");
    assert_eq!((ended.code, json(&ended.stdout)["user"].as_str()), (Some(0), Some("ann")), "{ended:?}");
    let mut upload = ann.shoal(&["upload_file"]);
    let ended = finish(upload.arg(OsStr::from_bytes(b"n\xe9.txt")).arg("g"), "");
    assert!(ended.code == Some(1) && ended.stderr.contains("not UTF-8"), "{ended:?}");
}
