//! Programs of an earlier version and of this one together: they work, or say which to update. `scripts/versions COMMIT`
//! builds an earlier version and runs these tests with it.

use std::path::{Path, PathBuf};

use shoal_tests::{
    Client, Earlier, Member, Store, Trackers, binary, download, node_secret, random_file, same_content, until,
};

/// One founds a group and lets the other in; each shares a file and gets the other's.
fn exchange(dir: &Path, one: &mut Client, other: &mut Client) {
    one.ok("create_group g");
    one.let_in("g", &mut [other]);
    let files = [
        ("one.bin", one.share("g", "one.bin", 3 << 20).0),
        ("two.bin", other.share("g", "two.bin", 1 << 20).0),
    ];
    for ((file, path), to) in files.into_iter().zip([other, one]) {
        let copy = dir.join(format!("copy-{file}"));
        until("the file is listed", || to.sharers("g", file) > 0);
        download(to, file, &copy);
        to.until_download(file, "C");
        assert!(same_content(&path, &copy));
    }
}

/// A name with a joiner, which earlier versions cannot read.
const JOINED: &str = "می\u{200c}خواهم";

/// A file with a longer name than earlier versions take.
fn long_file(dir: &Path) -> PathBuf {
    let path = dir.join(format!("{}.bin", "n".repeat(251)));
    random_file(&path, 1000, 5);
    path
}

/// What a user does with an account, a group and files, besides exchanging them.
fn look_around(client: &mut Client) {
    for command in [
        "whoami",
        "sessions",
        "list_groups",
        "list_members g",
        "list_files g",
        "show_peers g one.bin",
        "show_downloads -v",
    ] {
        client.ok(command);
    }
}

#[test]
fn clients_of_an_earlier_version_work_with_these_trackers_and_clients() {
    let Some(earlier) =
        Earlier::or_skip("clients_of_an_earlier_version_work_with_these_trackers_and_clients")
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    let mut ann =
        Client::start_program(dir.path(), "ann", &trackers.info(), earlier.program("client")).entered();
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    exchange(dir.path(), &mut ann, &mut bob);
    look_around(&mut ann);
    look_around(&mut bob);
    ann.ok("change_password secret 'quite another one'");
    // What it cannot read is left out, or it hears what to update.
    let path = long_file(dir.path());
    bob.ok(&format!("upload_file '{}' g", path.display()));
    bob.ok(&format!("create_group '{JOINED}'"));
    let mut zoe = Client::start(dir.path(), "zoe", &trackers.info());
    zoe.ok(&format!("create_user '{JOINED}' secret"));
    zoe.ok(&format!("login '{JOINED}' secret"));
    zoe.ok("join_group g");
    look_around(&mut ann);
    assert_eq!(ann.ok("list_requests g")["requests"], serde_json::json!([]));
    let name = path.file_name().unwrap().to_str().unwrap();
    let error = ann.fails(&format!("download_file g '{name}' {}", dir.path().display()));
    assert!(error.contains("too long"), "{error}");
    // Updated, it has everything.
    let mut ann = ann.quit().0.restart_as(None);
    ann.ok("login ann 'quite another one'");
    look_around(&mut ann);
    until("its share is there", || bob.sharers("g", "one.bin") == 2);
}

#[test]
fn clients_work_with_trackers_of_an_earlier_version() {
    let Some(earlier) = Earlier::or_skip("clients_work_with_trackers_of_an_earlier_version") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 2);
    for number in [1, 2] {
        trackers.set_program(number, earlier.program("tracker"));
        trackers.restart(number);
    }
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    let mut bob =
        Client::start_program(dir.path(), "bob", &trackers.info(), earlier.program("client")).entered();
    exchange(dir.path(), &mut ann, &mut bob);
    look_around(&mut ann);
    look_around(&mut bob);
    ann.ok("change_password secret 'quite another one'");
    let path = long_file(dir.path());
    for command in [
        format!("upload_file '{}' g", path.display()),
        format!("create_group '{JOINED}'"),
        format!("create_user '{JOINED}' secret"),
    ] {
        let error = ann.fails(&command);
        assert!(error.contains("ask its operator to update it"), "{command}: {error}");
    }
    look_around(&mut ann);
    // The trackers are updated one by one; nobody notices.
    for number in [1, 2] {
        assert!(trackers.stop(number));
        trackers.set_program(number, binary("tracker"));
        trackers.restart(number);
        trackers.until_in_step();
        look_around(&mut ann);
        look_around(&mut bob);
    }
    until("both shares are there", || ann.sharers("g", "one.bin") == 2 && bob.sharers("g", "two.bin") == 2);
    for number in [1, 2] {
        assert_eq!(trackers.status(number)["alarms"], 0, "{}", trackers.log(number));
    }
}

#[test]
fn trackers_of_two_versions_are_one_cluster() {
    let Some(earlier) = Earlier::or_skip("trackers_of_two_versions_are_one_cluster") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 2);
    trackers.set_program(1, earlier.program("tracker"));
    trackers.restart(1);
    trackers.restart(2);
    trackers.until_in_step();
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info_of(1));
    let mut bob =
        Client::start_program(dir.path(), "bob", &trackers.info_of(2), earlier.program("client")).entered();
    exchange(dir.path(), &mut ann, &mut bob);
    look_around(&mut ann);
    look_around(&mut bob);
    let (mut old, mut new) = (Member::connect(trackers.port(1)), Member::connect(trackers.port(2)));
    // Whose names look like others to this version, but not to the earlier one: they may stay provisional for now.
    old.create_user("mm", "secret");
    new.create_user("cm", "secret");
    new.create_user(JOINED, "secret");
    assert!(Member::connect(trackers.port(2)).login("mm", "secret").is_ok());
    assert!(Member::connect(trackers.port(1)).login("cm", "secret").is_ok());
    new.login(JOINED, "secret").unwrap();
    new.create_group(JOINED);
    let error = bob.fails("create_user 'b\u{43e}b' secret");
    assert!(error.contains("resembles"), "{error}");
    trackers.until_in_step();
    // Back to the earlier version.
    assert!(trackers.stop(2));
    trackers.set_program(2, earlier.program("tracker"));
    trackers.restart(2);
    trackers.until_in_step();
    look_around(&mut ann);
    for number in [1, 2] {
        assert!(trackers.stop(number));
        trackers.set_program(number, binary("tracker"));
        trackers.restart(number);
    }
    trackers.until_in_step();
    look_around(&mut ann);
    for name in ["mm", "cm", JOINED] {
        until(&format!("{name} is definite"), || {
            !Member::connect(trackers.port(1)).login(name, "secret").unwrap().provisional
        });
    }
    for number in [1, 2] {
        assert_eq!(trackers.status(number)["alarms"], 0, "{}", trackers.log(number));
    }
}

#[test]
fn the_store_works_with_servers_trackers_and_users_of_an_earlier_version() {
    let Some(earlier) =
        Earlier::or_skip("the_store_works_with_servers_trackers_and_users_of_an_earlier_version")
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let secret = node_secret(dir.path());
    let mut trackers = Trackers::stopped(dir.path(), 2);
    for (number, program) in [(1, earlier.program("tracker")), (2, binary("tracker"))] {
        trackers.set_program(number, program);
        trackers.set_arguments(number, &["--node-secret", secret.to_str().unwrap(), "--repair-after", "2s"]);
        trackers.restart(number);
    }
    let mut store = Store::begin(dir.path(), trackers, 3, &[], &[]);
    for number in [1, 2] {
        store.kill(number);
        let _ = std::fs::remove_dir_all(store.data(number));
        store.set_program(number, earlier.program("dfs-server"));
        store.restart(number);
    }
    store.enter();
    let programs = [earlier.program("dfs"), binary("dfs")];
    for (one, other) in [(0, 1), (1, 0)] {
        let name = format!("file-{one}");
        let path = dir.path().join(&name);
        random_file(&path, 5 << 20, 7);
        store.set_client(programs[one].clone());
        store.ok(&["put", path.to_str().unwrap(), "--copies", "3"]);
        store.set_client(programs[other].clone());
        let to = dir.path().join(format!("to-{one}"));
        std::fs::create_dir(&to).unwrap();
        store.ok(&["get", &name, "-o", to.to_str().unwrap()]);
        assert!(same_content(&path, &to.join(&name)));
        store.ok(&["list"]);
        store.ok(&["status"]);
    }
    store.ok(&["rm", "file-0"]);
    // A server is lost; copies are made from one version's to the other's.
    std::fs::remove_dir_all(store.data(3).join("chunks")).unwrap();
    store.kill(3);
    store.set_program(1, binary("dfs-server"));
    store.kill(1);
    store.restart(1);
    store.restart(3);
    store.until_up(3);
    store.until_repaired();
}
