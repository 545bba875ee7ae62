//! docs/api.md is true: its examples run in their order, and events go on where a reader was.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::Value;
use shoal_tests::{Client, PATIENCE, Service, Trackers, ask_raw, finish, skip, until};

#[test]
fn every_example_of_the_page_runs() {
    if Command::new("curl").arg("--version").output().is_err() {
        skip("every_example_of_the_page_runs", "needs curl");
        return;
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> = page.lines().filter(|line| line.starts_with("curl ")).collect();
    assert!(examples.len() > 10, "{examples:?}");
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let folder = dir.path().join("folder");
    for example in examples {
        let mut command = Command::new("bash");
        let ran =
            finish(command.arg("-c").arg(example).env("SOCKET", ann.socket()).env("FOLDER", &folder), "");
        if example.contains("/events") {
            // curl ends it.
            assert!(ran.code == Some(28) && ran.stdout.starts_with(": shoal"), "{example}: {ran:?}");
            continue;
        }
        if example.contains("/metrics") {
            assert!(
                ran.code == Some(0) && ran.stdout.contains("shoal_client_session 1"),
                "{example}: {ran:?}"
            );
            continue;
        }
        let answer: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {example}: {ran:?}"));
        assert!(ran.code == Some(0) && answer.get("error").is_none(), "{example}: {answer}");
    }
}

fn get(service: &Service, path: &str, headers: &str) -> shoal_tests::Answered {
    ask_raw(&service.socket(), format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes())
}

#[test]
fn what_is_looked_at_is_what_the_commands_list() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let refused = get(&ann, "/api/1/groups/g/files", "");
    assert_eq!((refused.status, &refused.json()["code"]), (422, &"not_logged_in".into()), "{refused:?}");
    ann.enter("ann");
    ann.ok("create_group g");
    let path = dir.path().join("a b.bin");
    shoal_tests::random_file(&path, 1 << 20, 6);
    ann.ok(&format!("upload_file '{}' g", path.display()));
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    for (path, key, command) in [
        ("/api/1/groups", "groups", "list_groups"),
        ("/api/1/groups/g/files", "files", "list_files g"),
        ("/api/1/groups/g/members", "members", "list_members g"),
        ("/api/1/groups/g/requests", "requests", "list_requests g"),
        ("/api/1/groups/g/files/a%20b.bin/peers", "peers", "show_peers g 'a b.bin'"),
        ("/api/1/downloads", "downloads", "show_downloads"),
        ("/api/1/session", "user", "whoami"),
        ("/api/1/limits", "up", "limit"),
    ] {
        let found = get(&ann, path, "");
        let mut given = found.json()[key].clone();
        if key == "files" {
            // What this client has of it is known here only.
            assert_eq!(given[0].as_object_mut().unwrap().remove("shared_here"), Some(true.into()));
        }
        assert_eq!((found.status, &given), (200, &ann.ok(command)[key]), "{path}");
        assert!(found.head.contains("cache-control: no-store"), "{found:?}");
    }
    assert_eq!(get(&ann, &format!("/api/1/groups/{}/files", "x".repeat(300)), "").status, 400);
    assert_eq!(ask_raw(&ann.socket(), b"DELETE /api/1/groups HTTP/1.1\r\nhost: x\r\n\r\n").status, 405);
}

#[test]
fn a_reader_of_events_gets_what_it_missed_and_learns_when_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    ann.ok("create_group g");
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    until("the request is known", || ann.log().contains("bob asks to join g"));
    let open = |headers: &str| {
        let mut stream = UnixStream::connect(ann.socket()).unwrap();
        let request = format!("GET /api/1/events HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let (mut all, mut gone) = (open("Last-Event-ID: 0\r\n"), open("Last-Event-ID: 4711\r\n"));
    let begun = [read_until(&mut all, "bob asks to join g"), read_until(&mut gone, "event: resync\n")];
    assert!(
        begun[0].to_lowercase().contains("text/event-stream") && begun[0].contains("id: 1\n"),
        "{begun:?}"
    );
    assert!(begun[0].contains("event: join_request\ndata: {"), "{begun:?}");
    // They end with the daemon.
    ann.stop();
    for stream in [&mut all, &mut gone] {
        std::io::copy(stream, &mut std::io::sink()).unwrap();
    }
}

/// Reads until that text has come.
fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut text, mut block) = (String::new(), [0; 4_096]);
    while !text.contains(wanted) {
        let length = stream.read(&mut block).unwrap_or_else(|error| panic!("no {wanted}: {error}: {text}"));
        assert!(length > 0, "it ended without {wanted}: {text}");
        text += &String::from_utf8_lossy(&block[..length]);
    }
    text
}
