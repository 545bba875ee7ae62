//! A machine with `shoal up` whose address changes while it runs.

use std::path::Path;
use std::process::Command;

use shoal_tests::{
    Network, Service, binary, in_own_network, line_for_friends, random_file, same_content, until, up_command,
};

/// `shoal up` on a machine of the network, with what it looks up by itself.
fn up_on(network: &Network, machine: u8, dir: &Path, name: &str, arguments: &[&str]) -> Service {
    let plain = up_command(dir, name, arguments);
    let mut command = network.on(machine, binary("shoal").to_str().unwrap());
    command.args(plain.get_args());
    for (key, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    Service::launch(dir, name, command)
}

/// The machine gets another address in its network.
fn move_to(network: &Network, machine: u8, address: &str) {
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    let before = format!("{}/24", network.address(machine));
    run(network.on(machine, "ip").args(["addr", "del", &before, "dev", "eth0"]));
    run(network.on(machine, "ip").args(["addr", "add", &format!("{address}/24"), "dev", "eth0"]));
    let router = format!("10.83.{machine}.254");
    run(network.on(machine, "ip").args(["route", "replace", "default", "via", &router]));
}

fn ok(service: &Service, arguments: &[&str], input: &str) -> String {
    let finished = service.run(arguments, input);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

/// Shares a file on one and fetches it on the other.
fn passes(dir: &Path, name: &str, from: &Service, to: &Service) {
    let (path, copy) = (dir.join(name), dir.join(format!("copy-{name}")));
    random_file(&path, 300_000, 3);
    ok(from, &["upload_file", path.to_str().unwrap(), "films"], "");
    ok(to, &["download_file", "films", name, copy.to_str().unwrap()], "");
    ok(to, &["wait", "60"], "");
    assert!(same_content(&path, &copy));
}

#[test]
fn a_changed_address_is_followed_and_what_friends_must_type_is_said() {
    if !in_own_network("address::a_changed_address_is_followed_and_what_friends_must_type_is_said") {
        return;
    }
    let (dir, network) = (tempfile::tempdir().unwrap(), Network::new(2));
    let ann = up_on(&network, 1, dir.path(), "ann", &["--no-web"]);
    let line = line_for_friends(&ann);
    assert!(line.starts_with("10.83.1.1 7071 "), "{line}");
    let mut bob = up_on(&network, 2, dir.path(), "bob", &["--no-web", "--join", &line]);
    for (service, user) in [(&ann, "ann"), (&bob, "bob")] {
        ok(service, &["create_user", user], "secret\n");
        ok(service, &["login", user], "secret\n");
    }
    ok(&ann, &["create_group", "films"], "");
    ok(&bob, &["join_group", "films"], "");
    ok(&ann, &["accept_request", "films", "bob"], "");
    passes(dir.path(), "first", &ann, &bob);

    // The friend's machine: who has the tracker finds it at its new address.
    move_to(&network, 2, "10.83.2.9");
    until("bob says so", || bob.log().contains("was 10.83.2.1 and is 10.83.2.9 now"));
    until("bob is found there", || {
        let listed = ann.run(&["--json", "show_peers", "films", "first"], "");
        listed.stdout.contains("10.83.2.9:")
    });
    passes(dir.path(), "second", &bob, &ann);

    // The machine with the tracker.
    move_to(&network, 1, "10.83.1.77");
    until("ann says so", || ann.log().contains("was 10.83.1.1 and is 10.83.1.77 now"));
    let now = line.replace("10.83.1.1 ", "10.83.1.77 ");
    assert!(ann.log().contains(&format!("shoal up --join '{now}'")), "{}", ann.log());
    let info = std::fs::read_to_string(dir.path().join("ann/tracker_info.txt")).unwrap();
    assert_eq!(info.trim(), now, "it is handed out");
    until("ann is there", || ok(&ann, &["whoami"], "").contains("10.83.1.77:7070"));
    bob.stop();
    let bob = up_on(&network, 2, dir.path(), "bob", &["--no-web", "--join", &now]);
    ok(&bob, &["login", "bob"], "secret\n");
    passes(dir.path(), "third", &ann, &bob);
}
