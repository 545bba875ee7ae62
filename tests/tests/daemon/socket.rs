//! The socket of `client --headless`: what is asked by HTTP, and by whom.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use shoal_tests::{
    Client, Service, Trackers, ask_raw, client_command, finish, free_port, random_file, root_or_skip,
    same_content, until,
};

#[test]
fn commands_by_http_do_what_the_prompt_does_and_answer_as_json_does() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let whoami = ann.ok("whoami");
    assert_eq!(
        (&whoami["ok"], &whoami["command"], &whoami["user"]),
        (&json!(true), &json!("whoami"), &json!(null))
    );
    ann.enter("ann");
    ann.ok("create_group g");
    // Words that are cut already are not cut again.
    let odd = ann.ask(&json!({ "argv": ["create_group", "a 'b' c"] })).json();
    assert_eq!(odd["group"], "a 'b' c");

    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    ann.ok("accept_request g bob");
    let folder = dir.path().join("films");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    random_file(&folder.join("a.bin"), 1 << 20, 3);
    // A relative path is the caller's.
    let upload = json!({ "line": "upload_file ../a.bin g", "folder": folder.join("below") });
    let shared = ann.ask(&upload);
    assert_eq!((shared.status, shared.json()["file"].as_str()), (200, Some("a.bin")), "{shared:?}");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin '{}'", copy.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&folder.join("a.bin"), &copy));

    for (body, status, error) in [
        (json!({ "line": "upload_file a.bin g" }), 422, "is relative, and the request names no folder"),
        (json!({ "line": "list_files" }), 422, "<group_id> is missing"),
        (json!({ "line": "xyzzy" }), 422, "there is no command xyzzy"),
        (json!({ "line": "create_user eve" }), 422, "the password is missing"),
        (json!({ "line": "  # nothing" }), 422, "no command in the request"),
        (json!({ "argv": [] }), 422, "no command in the request"),
        (json!({}), 400, "give either"),
        (json!({ "line": "whoami", "argv": ["whoami"] }), 400, "give either"),
        (json!({ "line": "whoami", "passwords": ["a", "b", "c"] }), 400, "that many passwords"),
        (json!({ "line": 7 }), 400, "no JSON object of that kind"),
    ] {
        let answered = ann.ask(&body);
        assert_eq!(answered.status, status, "{body}: {answered:?}");
        let json = answered.json();
        assert!(json["ok"] == false && json["error"].as_str().unwrap().contains(error), "{body}: {json}");
    }
}

#[test]
fn a_password_stands_in_its_own_field_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut command = client_command(dir.path(), "ann", &trackers.info(), free_port());
    command.arg("--headless").env("RUST_LOG", "trace");
    let mut ann = Service::launch(dir.path(), "ann", command);
    let said = [
        ann.ask(&json!({ "line": "create_user ann", "passwords": ["hunter-4711"] })),
        ann.ask(&json!({ "line": "login ann", "passwords": ["mistyped-4711"] })),
        ann.ask(&json!({ "line": "login ann hunter-4711" })),
        ann.ask(&json!({ "line": "change_password", "passwords": ["wrong-4711", "new-4711"] })),
        ann.ask(&json!({ "line": "change_password", "passwords": ["hunter-4711", "new-4711"] })),
        ann.ask(&json!({ "line": "change_password", "passwords": ["newer-4711"] })),
        ann.ask(&json!({ "line": "lgoin ann newer-4711" })),
        ann.ask(&json!({ "passwords": "newest-4711" })),
    ];
    let statuses: Vec<u16> = said.iter().map(|answered| answered.status).collect();
    assert_eq!(statuses, [200, 422, 200, 422, 200, 200, 422, 400], "{said:?}");
    assert!(said.iter().all(|answered| !answered.body.contains("4711")), "{said:?}");
    ann.stop();
    assert!(!ann.log().contains("4711"), "{}", ann.log());
}

#[test]
fn what_is_too_big_too_slow_or_no_request_is_refused_and_the_daemon_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let socket = ann.socket();
    // Neither says anything; both are ended. They begin before the rest, and are looked at after it.
    let mut silent = UnixStream::connect(&socket).unwrap();
    let mut stuck = UnixStream::connect(&socket).unwrap();
    stuck.write_all(b"POST /api/1/command HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();

    let huge = format!("{{\"line\":\"{}\"}}", "x".repeat(1 << 20));
    let head = |length: usize| {
        format!("POST /api/1/command HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
    };
    let answered = ask_raw(&socket, format!("{}{huge}", head(huge.len())).as_bytes());
    assert_eq!(answered.status, 413, "{answered:?}");
    let long = ann.ask(&json!({ "line": format!("list_files {}", "x".repeat(100_000)) }));
    assert!(long.status == 422 && long.body.contains("too long"), "{long:?}");
    for (request, status) in [
        ("GET /api/1/command HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 405),
        ("GET /api/2/command HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 404),
        (format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "y".repeat(200_000)), 431),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(ask_raw(&socket, request.as_bytes()).status, status, "{request:.60}");
    }
    for stream in [&mut silent, &mut stuck] {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(!String::from_utf8_lossy(&said).contains("200 OK"));
    }
    assert_eq!(ann.ok("whoami")["ok"], true);
}

#[test]
fn a_thousand_connections_at_once_are_bounded_and_the_next_caller_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let socket = ann.socket();
    let crowd: Vec<UnixStream> = (0..1_000).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let refused = crowd.iter().rev().take(500).map(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    });
    assert!(refused.into_iter().all(|said| said.contains("503") && said.contains("try again")));
    drop(crowd);
    until("the next caller is served", || ann.ask(&json!({ "line": "whoami" })).status == 200);
}

#[test]
fn several_callers_are_served_at_once_and_one_that_goes_away_ends_only_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    ann.ok("create_group g");
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    ann.ok("list_groups");
    bob.ok("join_group g");
    ann.ok("accept_request g bob");
    let (path, _) = bob.share("g", "a.bin", 1 << 20);
    let (stopped, _) = bob.quit();
    let copy = dir.path().join("copy.bin");
    ann.ok(&format!("download_file g a.bin {}", copy.display()));
    // It waits for the download, which has no sharer; its caller goes away.
    let mut waits = UnixStream::connect(ann.socket()).unwrap();
    let body = json!({ "line": "wait" }).to_string();
    let head = format!("POST /api/1/command HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    waits.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (socket, request) = (ann.socket(), "GET /api/1 HTTP/1.1\r\nhost: x\r\n\r\n");
            std::thread::spawn(move || ask_raw(&socket, request.as_bytes()))
        })
        .collect();
    for caller in callers {
        let about = caller.join().unwrap().json();
        assert_eq!((&about["program"], &about["user"]), (&json!("shoal"), &json!("ann")));
    }
    drop(waits);
    let mut bob = stopped.restart();
    bob.ok("login bob secret");
    until("the download goes on", || same_content(&path, &copy));
}

#[test]
fn a_killed_daemons_socket_is_replaced_and_a_living_ones_folder_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let socket = ann.socket();
    assert_eq!(socket.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(socket.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    let mut second = client_command(dir.path(), "ann", &trackers.info(), free_port());
    second.arg("--headless").env("XDG_RUNTIME_DIR", dir.path().join("run-ann"));
    let second = finish(&mut second, "");
    assert!(
        second.code == Some(1) && second.stderr.contains("already in use by another process"),
        "{second:?}"
    );
    assert_eq!(ann.ok("whoami")["ok"], true, "the first one was not touched");
    ann.kill();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    let mut again = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    assert_eq!(again.socket(), socket);
    let (code, took) = again.stop();
    assert!(code == Some(0) && took < Duration::from_secs(5), "{code:?} after {took:?}");
    assert!(!socket.exists(), "nothing is left");
}

#[test]
fn it_ends_within_five_seconds_by_quit_and_by_signals_with_a_command_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    for by in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let name = format!("ann-{}", by.map_or(0, Signal::as_raw));
        let mut ann = Service::start(dir.path(), &name, &trackers.info(), &[]);
        ann.enter(&name);
        // It waits for a tracker that is gone.
        trackers.kill(1);
        let body = json!({ "line": "list_groups" }).to_string();
        let head =
            format!("POST /api/1/command HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        // It is asked before it is told to end.
        let mut asks = UnixStream::connect(ann.socket()).unwrap();
        asks.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let begun = Instant::now();
        match by {
            None => {
                let said = ann.ok("quit");
                assert_eq!(said["command"], "quit");
            }
            Some(signal) => ann.signal(signal),
        }
        until("it ends", || ann.child().try_wait().unwrap().is_some());
        assert!(begun.elapsed() < Duration::from_secs(5), "{by:?}: {:?}", begun.elapsed());
        assert!(ann.child().wait().unwrap().success(), "{by:?}");
        let mut cut = String::new();
        // What was cut off may end in an error.
        let _ = asks.read_to_string(&mut cut);
        assert!(cut.is_empty() || cut.starts_with("HTTP/1.1 503"), "{by:?}: {cut:?}");
        trackers.restart(1);
    }
}

#[test]
fn another_users_program_gets_nothing_even_where_the_files_let_it_in() {
    if !root_or_skip("another_users_program_gets_nothing_even_where_the_files_let_it_in") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let mut path = ann.socket();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    while path.pop() && path.starts_with(dir.path()) {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let script =
        "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; print while <$s>;";
    let mut stranger = Command::new("setpriv");
    stranger
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script])
        .arg(ann.socket());
    let said = finish(&mut stranger, "");
    assert!(said.stdout.contains("403") && said.stdout.contains("only programs of the user"), "{said:?}");
    until("it is logged", || ann.log().contains("a program of another user"));
}

#[test]
fn without_a_folder_for_sockets_the_data_folder_has_it_and_without_any_it_shares_on() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    // No folder can be made below a file, and no socket beside a file of its name.
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let start = || {
        let mut command = client_command(dir.path(), "ann", &trackers.info(), free_port());
        command.args(["--headless", "--exec", "create_user ann secret", "--exec", "login ann secret"]);
        command.args(["--exec", "create_group g"]).env("XDG_RUNTIME_DIR", &file);
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut child = start();
    let socket = dir.path().join("ann/shoal.sock");
    until("it is in the data folder", || UnixStream::connect(&socket).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "a file in the way").unwrap();
    let mut child = start();
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    until("it works all the same", || bob.ok("list_groups")["groups"][0]["group"] == "g");
    child.kill().unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("no commands are taken while this runs"), "{said}");
}
