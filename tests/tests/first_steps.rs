//! What a new user does first and often: an account at the prompt, a login without one, a destination that is not there yet,
//! another address, and who holds a file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use shoal_tests::{
    Client, Store, Terminal, Trackers, binary, client_command, finish, free_port, run_script, same_content,
    until,
};

const PASSWORD: &str = "open-sesame-4711";

#[test]
fn a_new_user_is_warned_of_a_weak_password_and_logged_in_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut terminal = Terminal::start(&client_command(dir.path(), "ann", &trackers.info(), free_port()));
    terminal.expect_prompt();
    for (password, question) in
        [("secret", "Use it all the same? [y/N] "), (PASSWORD, "Log in as ann now? [Y/n] ")]
    {
        terminal.line("create_user ann");
        for asked in ["New password: ", "The same again: "] {
            terminal.expect(asked);
            terminal.line(password);
        }
        terminal.expect(question);
        terminal.press("\r");
        terminal.expect_prompt();
    }
    let shown = terminal.text();
    assert!(shown.contains("this password is weak. ") && shown.contains("nothing was changed"), "{shown}");
    assert!(terminal.run("whoami").contains("ann"));
    // It is a success for the one who is logged in, if the password is right.
    assert!(terminal.run(&format!("login ann {PASSWORD}")).contains("logged in as ann"));
    assert!(terminal.run("login ann something-else").contains("not the password of ann, who is logged in"));
    assert!(terminal.run(&format!("login bob {PASSWORD}")).contains("error:"));
    assert!(terminal.run("whoami").contains("ann"));
    // A weak new password is no better.
    terminal.line("change_password");
    for (asked, typed) in
        [("Current password: ", PASSWORD), ("New password: ", "12345678"), ("The same again: ", "12345678")]
    {
        terminal.expect(asked);
        terminal.line(typed);
    }
    terminal.expect("Use it all the same? [y/N] ");
    terminal.press("n");
    terminal.expect("nothing was changed");
    terminal.expect_prompt();
    assert!(terminal.run(&format!("login ann {PASSWORD}")).contains("logged in as ann"));
    // What a script gives is refused for no weakness, and asks nothing.
    let finished = run_script(dir.path(), "bob", &trackers.info(), &[], "create_user bob pw\nlogin bob pw\n");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("this password is weak"), "{finished:?}");
}

#[test]
fn the_store_too_warns_of_a_weak_password_and_asks_for_a_new_one_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    for (typed, again, end) in [
        ("12345678", "12345679", "the two passwords differ; nothing was changed"),
        ("12345678", "12345678", "Use it all the same? [y/N] "),
    ] {
        let mut terminal = Terminal::start(&store.dfs("ann", &["change_password"]));
        for (asked, typed) in [("Old password: ", "secret"), ("New password: ", typed), ("Again: ", again)] {
            terminal.expect(asked);
            terminal.line(typed);
        }
        terminal.expect(end);
        terminal.press("n");
        assert_eq!(terminal.wait(), 1);
    }
    store.ok(&["list"]);
    // At the login prompt an account that was not made ends nothing.
    let mut command = Command::new(binary("dfs"));
    command.arg(dir.path().join("dfs.conf")).arg("--data-dir").arg(dir.path().join("eve"));
    let mut terminal = Terminal::start(command.env_remove("SHOAL_PASSWORD"));
    for (again, end) in [("another", "the two passwords differ"), (PASSWORD, "dfs> ")] {
        for (asked, typed) in
            [("Username: ", "Create_User eve"), ("Password: ", PASSWORD), ("Again: ", again)]
        {
            terminal.expect(asked);
            terminal.line(typed);
        }
        terminal.expect(end);
    }
    terminal.line("quit");
    assert_eq!(terminal.wait(), 0);
}

fn headless(dir: &Path, trackers: &Trackers, lines: &[&str]) -> Child {
    let mut command = client_command(dir, "ann", &trackers.info(), free_port());
    command.arg("--headless");
    for line in lines {
        command.args(["--exec", line]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_client_without_a_prompt_waits_for_trackers_and_leaves_when_nobody_can_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    assert_eq!(
        run_script(dir.path(), "ann", &trackers.info(), &[], "create_user ann secret\n").code,
        Some(0)
    );
    for lines in [&["login ann wrong"][..], &["whoami"]] {
        let child = headless(dir.path(), &trackers, lines);
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{lines:?}: {error}");
        assert!(error.contains("nobody is logged in, and without a prompt nobody can"), "{lines:?}: {error}");
    }
    trackers.kill(1);
    let mut child = headless(dir.path(), &trackers, &["login ann secret", "create_group g"]);
    // Until a command has given up waiting for a tracker.
    let gave_up = run_script(dir.path(), "other", &trackers.info(), &[], "login ann secret\n");
    assert_eq!(gave_up.code, Some(1), "{gave_up:?}");
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    trackers.restart(1);
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    until("it has logged in", || bob.ok("list_groups")["groups"][0]["group"] == "g");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn whoami(dir: &Path, listen: &str, info: &Path) -> (Value, String) {
    let mut command = Command::new(binary("client"));
    command.arg(listen).arg(info).env("XDG_DATA_HOME", dir).env_remove("RUST_LOG");
    let shown = finish(&mut command, "whoami\n").stderr;
    let json = finish(command.arg("--json"), "whoami\n").stdout;
    let answer = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (answer.into_iter().find(|answer| answer["command"] == "whoami").unwrap(), shown)
}

#[test]
fn a_client_at_a_new_address_is_the_same_client_and_a_routers_address_is_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let (first, _) = whoami(dir.path(), &format!("127.0.0.1:{port}"), &trackers.info());
    let (moved, shown) = whoami(dir.path(), &format!("127.0.0.2:{port}"), &trackers.info());
    assert_eq!(first["peer"], moved["peer"]);
    assert!(!shown.contains("no address of this machine"), "{shown}");
    // Documentation addresses (RFC 5737) belong to no machine.
    let router = format!("203.0.113.7:{port}");
    let (forwarded, shown) = whoami(dir.path(), &router, &trackers.info());
    assert_eq!((&forwarded["peer"], &forwarded["address"]), (&first["peer"], &json!(router)));
    assert!(shown.contains(&format!("have port {port} forwarded here")), "{shown}");
}

#[test]
fn downloads_go_where_they_are_sent_and_say_how_long_they_took() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (source, _) = ann.share("g", "a.bin", 1 << 20);
    ann.share("g", "b.bin", 1_000);
    let new = dir.path().join("new/folder");
    bob.ok(&format!("download_file g a.bin {}/", new.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&source, &new.join("a.bin")));
    let complete = bob.until_event("complete");
    assert!(complete["took_ms"].is_u64() && complete["average"].as_u64().unwrap() > 0, "{complete}");
    let usual = dir.path().join("usual");
    bob.ok(&format!("set download_folder {}", usual.display()));
    bob.ok("download_file g b.bin");
    bob.until_download("b.bin", "C");
    assert!(usual.join("b.bin").is_file());
    assert_eq!(bob.ok("set")["download_folder"], usual.to_str().unwrap());
    let taken_back = bob.ok("set download_folder \"\"");
    assert_ne!(taken_back["download_folder"], usual.to_str().unwrap());
    // Both hold it now, and each sees itself.
    until("both hold it", || bob.ok("show_peers g a.bin")["peers"].as_array().unwrap().len() == 2);
    for client in [&mut ann, &mut bob] {
        let peers = client.ok("show_peers g a.bin");
        let own: Vec<&Value> =
            peers["peers"].as_array().unwrap().iter().filter(|peer| peer["self"] == true).collect();
        assert_eq!(own.len(), 1, "{peers}");
        assert_eq!((&own[0]["user"], &own[0]["percent"]), (&json!(client.name()), &json!(100)));
    }
    assert_eq!(bob.ok("limit")["up"], 0);
    bob.ok("limit down 5M");
    let limits = bob.ok("limit");
    assert_eq!((&limits["up"], &limits["down"]), (&json!(0), &json!(5 << 20)));
    assert!(bob.fails("limit up").contains("use: limit"));
}

#[test]
fn an_owner_is_told_of_requests_and_the_one_who_asked_of_being_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    ann.ok("create_group g");
    bob.ok("join_group g");
    let request = ann.until_event("join_request");
    assert_eq!((&request["group"], &request["user"]), (&json!("g"), &json!("bob")));
    ann.ok("accept_request g bob");
    assert_eq!(bob.until_event("joined")["group"], "g");
    // One that is there at the login is told of at once.
    let mut cem = Client::enter(dir.path(), "cem", &trackers.info());
    cem.ok("join_group g");
    ann.ok("logout");
    ann.ok("login ann secret");
    until("ann is told", || {
        ann.ok("list_groups");
        ann.events().iter().any(|event| event["event"] == "join_request" && event["user"] == "cem")
    });
    let told = ann.events().iter().filter(|event| event["user"] == "bob").count();
    assert_eq!(told, 1, "once: {:?}", ann.events());
}
