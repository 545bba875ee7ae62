//! `shoal up`: one command to begin, alone and with friends.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use shoal_tests::{
    Service, binary, finish, free_ports, line_for_friends, random_file, same_content, until, up, up_command,
};

/// Two free ports beside each other.
fn pair() -> u16 {
    loop {
        let ports = free_ports(2);
        if ports[1] == ports[0] + 1 {
            return ports[0];
        }
    }
}

fn ok(service: &Service, arguments: &[&str], input: &str) -> String {
    let finished = service.run(arguments, input);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

#[test]
fn one_command_begins_and_a_friend_joins_with_the_line_that_it_gave() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (format!("127.0.0.1:{}", pair()), format!("127.0.0.1:{}", free_ports(1)[0]));
    let mut ann = up(dir.path(), "ann", &["--listen", &first]);
    let line = line_for_friends(&ann);
    assert!(ann.log().contains("127.0.0.1 is this machine alone"), "{}", ann.log());
    let said = ann.log();
    assert_eq!(
        said.lines().filter(|line| !line.contains("known by its key")).count(),
        3,
        "three lines: {said}"
    );
    ok(&ann, &["create_user", "ann"], "secret\n");
    ok(&ann, &["login", "ann"], "secret\n");
    ok(&ann, &["create_group", "films"], "");

    let bob = up(dir.path(), "bob", &["--listen", &second, "--join", &line]);
    ok(&bob, &["create_user", "bob"], "secret\n");
    ok(&bob, &["login", "bob"], "secret\n");
    ok(&bob, &["join_group", "films"], "");
    ok(&ann, &["accept_request", "films", "bob"], "");
    let path = dir.path().join("a.bin");
    random_file(&path, 1 << 20, 9);
    ok(&ann, &["upload_file", path.to_str().unwrap(), "films"], "");
    let copy = dir.path().join("copy.bin");
    ok(&bob, &["download_file", "films", "a.bin", copy.to_str().unwrap()], "");
    ok(&bob, &["wait", "60"], "");
    assert!(same_content(&path, &copy));

    // Started again it is what it was, whatever the first start was given.
    let before = ok(&ann, &["whoami"], "");
    let (code, took) = ann.stop();
    assert!(code == Some(0) && took < Duration::from_secs(5), "{code:?} after {took:?}");
    drop(ann);
    let ann = up(dir.path(), "ann", &[]);
    assert_eq!(line_for_friends(&ann), line, "the same address, port and key");
    until("its tracker answers", || !ok(&ann, &["whoami"], "").contains("none answers"));
    ok(&ann, &["login", "ann"], "secret\n");
    assert_eq!(ok(&ann, &["whoami"], ""), before);
    until("bob sees the file again", || ok(&bob, &["list_files", "films"], "").contains("sharer"));
    drop(bob);
    let bob = up(dir.path(), "bob", &[]);
    assert!(bob.log().contains("with the tracker 127.0.0.1:"), "{}", bob.log());
    until("bob finds the tracker again", || bob.run(&["login", "bob"], "secret\n").code == Some(0));
}

#[test]
fn a_second_one_a_taken_port_and_nonsense_are_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let port = pair();
    let listen = format!("127.0.0.1:{port}");
    let refused = |name: &str, arguments: &[&str], said: &[&str]| {
        let finished = finish(&mut up_command(dir.path(), name, arguments), "");
        assert_eq!(finished.code, Some(1), "{arguments:?}: {finished:?}");
        assert!(said.iter().all(|said| finished.stderr.contains(said)), "{arguments:?}: {finished:?}");
    };
    let ann = up(dir.path(), "ann", &["--listen", &listen]);
    refused("ann", &[], &["shoal up runs already on", "pid", "client/shoal.sock whoami"]);
    refused(
        "eve",
        &["--listen", &listen],
        &[&format!("port {port} is in use by another program"), "--listen"],
    );
    ok(&ann, &["whoami"], "");
    drop(ann);
    // The tracker's port alone.
    let _taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    refused(
        "ann",
        &[],
        &[&format!("port {} is in use by another program", port + 1), "friends then need the new line"],
    );
    refused("ann", &["--join", "127.0.0.1 9"], &["a tracker of its own", "--data DIR"]);
    let free = format!("127.0.0.1:{}", free_ports(1)[0]);
    refused(
        "dan",
        &["--listen", &free, "--join", "nonsense"],
        &["names no tracker", "shoal up shows the line"],
    );
    std::fs::write(dir.path().join("file"), "x").unwrap();
    refused("file", &[], &["cannot keep data in", "--data DIR"]);
}

#[test]
fn the_line_that_it_shows_can_be_typed_into_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", pair());
    let mut command = up_command(dir.path(), "a nn/x y", &["--listen", &listen]);
    // Its socket is where nobody looks, and shoal is nowhere on the PATH.
    std::fs::create_dir_all(dir.path().join("run-ann")).unwrap();
    std::fs::write(dir.path().join("run-ann/shoal"), "in the way").unwrap();
    command.env("XDG_RUNTIME_DIR", dir.path().join("run-ann")).env("PATH", "/usr/bin:/bin");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = command.stdout(log).spawn().unwrap();
    let said = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    until("it says what to type", || said().contains("--join '"));
    let said = said();
    let typed = said.split("terminal: ").nth(1).and_then(|rest| rest.split(" create_user").next());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{} whoami", typed.unwrap())).current_dir("/");
    let whoami = finish(shell.env("PATH", "/usr/bin:/bin").env_remove("SHOAL_SOCKET"), "");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(whoami.code, Some(0), "{said}: {whoami:?}");
}

#[test]
fn a_routers_address_is_given_to_friends_and_the_own_tracker_is_reached_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody has it (RFC 5737): what is sent there is lost, as with a router that does not lead back in.
    let port = pair();
    let ann = up(dir.path(), "ann", &["--listen", &format!("203.0.113.5:{port}")]);
    assert!(line_for_friends(&ann).starts_with(&format!("203.0.113.5 {} ", port + 1)), "{}", ann.log());
    ok(&ann, &["create_user", "ann"], "secret\n");
    ok(&ann, &["login", "ann"], "secret\n");
    ok(&ann, &["create_group", "films"], "");
    assert!(ok(&ann, &["whoami"], "").contains(&format!("203.0.113.5:{port}")));
}

#[test]
fn its_files_are_its_owners_alone_and_a_folder_for_all_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ann");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    let mut lax = Command::new("sh");
    lax.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(binary("shoal"));
    let listen = format!("127.0.0.1:{}", pair());
    lax.args(["up", "--data"]).arg(&folder).args(["--listen", &listen]);
    let ann = Service::launch(dir.path(), "ann", lax);
    let line = line_for_friends(&ann);
    assert!(ann.log().contains("warning: others may write to"), "{}", ann.log());
    assert!(std::fs::read_to_string(folder.join("tracker_info.txt")).unwrap().contains(&line));
    for file in ["up.json", "tracker_info.txt"] {
        let mode = folder.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn several_that_begin_at_once_find_ports_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &'static str| {
        let dir = dir.path().to_owned();
        std::thread::spawn(move || up(&dir, name, &[]))
    };
    let all = ["ann", "bob", "eve", "dan"].map(start).map(|one| one.join().unwrap());
    let mut lines: Vec<String> = all.iter().map(line_for_friends).collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), all.len(), "{lines:?}");
}

#[test]
fn a_port_that_is_lost_or_makes_no_sense_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let port = pair();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listen = format!("127.0.0.1:{port}");
    assert_eq!(finish(&mut up_command(dir.path(), "ann", &["--listen", &listen]), "").code, Some(1));
    for nonsense in ["127.0.0.1:0", "224.0.0.1:7070"] {
        let said = finish(&mut up_command(dir.path(), "ann", &["--listen", nonsense]), "");
        assert!(said.code == Some(2) && said.stderr.contains("write"), "{said:?}");
    }
    for file in ["up.json", "tracker_info.txt"] {
        assert!(!dir.path().join("ann").join(file).exists(), "{file}");
    }
    drop(taken);
    let ann = up(dir.path(), "ann", &["--listen", &listen]);
    assert!(line_for_friends(&ann).starts_with(&format!("127.0.0.1 {} ", port + 1)));
    assert!(dir.path().join("ann/up.json").exists());
}

#[test]
fn quit_ends_the_tracker_too() {
    let dir = tempfile::tempdir().unwrap();
    let port = pair();
    let mut ann = up(dir.path(), "ann", &["--listen", &format!("127.0.0.1:{port}")]);
    assert!(ok(&ann, &["quit"], "").contains("the daemon ends"));
    until("it ends", || ann.child().try_wait().unwrap().is_some());
    assert!(ann.child().wait().unwrap().success());
    assert!(TcpListener::bind(("127.0.0.1", port + 1)).is_ok());
}
