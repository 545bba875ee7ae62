//! `shoal export` and `shoal import`: a client goes on elsewhere, with its key, shares, downloads and tracker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shoal_tests::{
    Client, Service, Trackers, free_ports, line_for_friends, random_file, same_content, until, up, up_command,
};

use crate::{alone, fails, ok, pair, succeeds};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `shoal up` of ann, with the account of the same name logged in and the group films.
fn begun(dir: &Path, name: &str, keep: &[&str]) -> Service {
    let ann = up(dir, name, &["--listen", &pair()]);
    ok(&ann, &["create_user", "ann"], "secret\n");
    ok(&ann, &[&["login", "ann"], keep].concat(), "secret\n");
    ok(&ann, &["create_group", "films"], "");
    ann
}

fn json_of(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn a_member_goes_on_elsewhere_and_files_are_found_by_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let ann = begun(dir.path(), "ann", &[]);
    let line = line_for_friends(&ann);
    let listen = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut bob = up(dir.path(), "bob", &["--listen", &listen, "--join", &line]);
    ok(&bob, &["create_user", "bob"], "secret\n");
    ok(&bob, &["login", "bob"], "secret\n");
    ok(&bob, &["join_group", "films"], "");
    ok(&ann, &["accept_request", "films", "bob"], "");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::create_dir_all(&old).unwrap();
    fs::create_dir_all(new.join("deep")).unwrap();
    for name in ["a.bin", "b.bin", "c.bin"] {
        random_file(&old.join(name), 1 << 20, u64::from(name.as_bytes()[0]));
        ok(&bob, &["upload_file", text(&old.join(name)), "films"], "");
    }
    fs::create_dir_all(old.join("album/one")).unwrap();
    random_file(&old.join("album/one/e.bin"), 100_000, 8);
    ok(&bob, &["upload_file", text(&old.join("album")), "films"], "");
    random_file(&dir.path().join("d.bin"), 1 << 20, 9);
    ok(&ann, &["upload_file", text(&dir.path().join("d.bin")), "films"], "");
    ok(&bob, &["download_file", "films", "d.bin", text(&old.join("d.bin"))], "");
    ok(&bob, &["wait", "60"], "");
    ok(&bob, &["limit", "up", "5000000"], "");
    let whoami = json_of(&ok(&bob, &["whoami", "--json"], ""));

    let export = dir.path().join("bob.export");
    let said = json_of(&ok(&bob, &["export", text(&export), "--json"], "a passphrase\n"));
    assert_eq!((&said["shares"], &said["downloads"], &said["ended"]), (&json!(5), &json!(1), &json!(true)));
    until("the client ended by itself", || bob.child().try_wait().unwrap().is_some());
    assert_eq!(bob.child().wait().unwrap().code(), Some(0));
    assert_eq!(export.metadata().unwrap().mode() & 0o777, 0o600);
    let bytes = fs::read(&export).unwrap();
    for secret in ["a.bin", "films", "shoal-ed25519", "a passphrase"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    // The one here does not start by accident.
    let again = shoal_tests::finish(&mut up_command(dir.path(), "bob", &[]), "");
    fails(&again, &["was exported to", text(&export), "remove", "client/moved"]);

    // As on another machine: one file renamed, one at its old place, one lost, and one that only looks right.
    fs::rename(old.join("a.bin"), new.join("deep/renamed.bin")).unwrap();
    fs::rename(old.join("c.bin"), dir.path().join("c.elsewhere")).unwrap();
    fs::rename(old.join("d.bin"), new.join("deep/d.bin")).unwrap();
    fs::rename(old.join("album"), new.join("deep/album")).unwrap();
    random_file(&new.join("c.bin"), 1 << 20, 77);
    // Of the same name, and not what was shared.
    fs::create_dir_all(new.join("album/one")).unwrap();
    random_file(&new.join("album/one/e.bin"), 100_000, 78);
    let moved = dir.path().join("moved");
    let import = ["import", text(&export), "--data", text(&moved), "--shares-at", text(&new)];
    fails(&alone(dir.path(), &import, "another\n"), &["that is not its passphrase"]);
    assert!(!moved.exists(), "nothing is written before it opens");
    let import = [&import[..], &["--json"]].concat();
    let said = json_of(succeeds(&alone(dir.path(), &import, "a passphrase\n")));
    assert_eq!((&said["found"], &said["downloads"], &said["tracker"]), (&json!(4), &json!(1), &json!(false)));
    let missing = json!([{ "group": "films", "file": "c.bin", "path": old.join("c.bin") }]);
    assert_eq!((&said["missing"], &said["peer"]), (&missing, &whoami["peer"]));

    let bob = up(dir.path(), "moved", &[]);
    ok(&bob, &["login", "bob"], "secret\n");
    assert_eq!(json_of(&ok(&bob, &["whoami", "--json"], ""))["peer"], whoami["peer"]);
    assert!(ok(&bob, &["limit", "--json"], "").contains("5000000"), "limits came along");
    let downloads = json_of(&ok(&bob, &["show_downloads", "--json"], ""));
    assert_eq!(downloads["downloads"][0]["path"], json!(new.join("deep/d.bin")));
    ok(&bob, &["relocate", "films", "c.bin", text(&dir.path().join("c.elsewhere"))], "");
    for (name, is) in [("a.bin", new.join("deep/renamed.bin")), ("c.bin", dir.path().join("c.elsewhere"))] {
        let copy = dir.path().join(format!("copy-{name}"));
        ok(&ann, &["download_file", "films", name, text(&copy)], "");
        ok(&ann, &["wait", "60"], "");
        assert!(same_content(&is, &copy), "{name}");
    }
    ok(&ann, &["download_file", "films", "album", text(&dir.path().join("copy"))], "");
    ok(&ann, &["wait", "60"], "");
    assert!(same_content(&new.join("deep/album/one/e.bin"), &dir.path().join("copy/one/e.bin")));
    // One client, not two: nothing is left over of the old one.
    let quota = json_of(&ok(&bob, &["quota", "--json"], ""));
    assert_eq!(quota["clients"].as_array().map(Vec::len), Some(1), "{quota}");
}

#[test]
fn a_tracker_of_its_own_and_a_kept_session_come_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut ann = begun(dir.path(), "ann", &["--keep"]);
    let line = line_for_friends(&ann);
    let export = dir.path().join("ann.export");
    // kill -9: what is in the logs of the databases alone comes along, too.
    ann.kill();
    let data = dir.path().join("ann");
    let words = ["export", text(&export), "--data", text(&data), "--session"];
    let said = alone(dir.path(), &words, "a passphrase\n");
    assert!(succeeds(&said).contains("its tracker with all accounts, its session"), "{said:?}");
    assert!(!dir.path().join("ann/client/session.key").exists(), "it is not kept here any more");
    assert!(!dir.path().join("ann/tracker.db.export").exists());
    let moved = dir.path().join("moved");
    let words = ["import", text(&export), "--data", text(&moved)];
    let said = alone(dir.path(), &words, "a passphrase\n");
    assert!(succeeds(&said).contains("send them the line"), "{said:?}");
    for file in
        ["client/identity.key", "client/session.key", "tracker/identity.key", "tracker/tracker.db", "up.json"]
    {
        assert_eq!(moved.join(file).metadata().unwrap().mode() & 0o777, 0o600, "{file}");
    }
    let ann = up(dir.path(), "moved", &[]);
    until("it is logged in again by itself", || ok(&ann, &["whoami"], "").contains("ann"));
    assert_eq!(line_for_friends(&ann), line, "the same key and port");
    assert!(ok(&ann, &["list_groups"], "").contains("films"));
    ok(&ann, &["create_group", "songs"], "");
}

#[test]
fn a_client_alone_moves_with_its_tracker_file_and_an_unfinished_download_with_its_partial_file() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let (mut ann, mut bob) = Client::pair(dir.path(), &info);
    let (path, _) = ann.share("g", "film.mkv", 8 << 20);
    ann.ok("limit up 1000000");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::create_dir_all(&old).unwrap();
    fs::create_dir_all(&new).unwrap();
    bob.ok(&format!("download_file g film.mkv '{}'", text(&old)));
    until("some of it is there", || bob.download("film.mkv")["percent"].as_f64().unwrap_or(0.0) > 5.0);
    bob.ok("pause_download g film.mkv");
    let percent = bob.download("film.mkv")["percent"].clone();
    let (data, export) = (dir.path().join("bob"), dir.path().join("bob.export"));
    let words = ["export", text(&export), "--data", text(&data)];
    let with = [&words[..], &["--trackers", text(&info)]].concat();
    fails(&alone(dir.path(), &words, "x\n"), &["--trackers TRACKER_INFO"]);
    fails(&alone(dir.path(), &with, "x\n"), &["a client runs in", "takes no commands", "quit at its prompt"]);
    bob.quit();
    succeeds(&alone(dir.path(), &with, "a passphrase\n"));
    for end in ["part", "pstate", "pinfo"] {
        let name = format!("film.mkv.{end}");
        fs::rename(old.join(&name), new.join(&name)).unwrap();
    }
    let moved = dir.path().join("carol");
    let words = ["import", text(&export), "--client", text(&moved), "--shares-at", text(&new)];
    let said = alone(dir.path(), &words, "a passphrase\n");
    assert!(succeeds(&said).contains("shoal client IP:PORT"), "{said:?}");
    let mut bob = Client::start(dir.path(), "carol", &moved.join("tracker_info.txt"));
    bob.ok("login bob secret");
    assert_eq!(bob.download("film.mkv")["percent"], percent, "what was there counts");
    ann.ok("limit up 0");
    bob.ok("resume_download g film.mkv");
    bob.until_download("film.mkv", "C");
    assert!(same_content(&path, &new.join("film.mkv")));
}

#[test]
fn what_cannot_be_exported_or_imported_is_said_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (none, file) = (dir.path().join("none"), dir.path().join("x"));
    let none = ["export", text(&file), "--data", text(&none)];
    fails(&alone(dir.path(), &none, "p\n"), &["there is no client in"]);
    let mut ann = begun(dir.path(), "ann", &[]);
    let data = dir.path().join("ann");
    let export = dir.path().join("ann.export");
    for (file, said) in [
        (dir.path().join("ann.log"), "exists already"),
        (data.join("inside"), "in the client's own folder"),
        (dir.path().join("no/such/folder"), "cannot write into"),
    ] {
        fails(&ann.run(&["export", text(&file)], "p\n"), &[said]);
    }
    fails(&ann.run(&["export", text(&export)], ""), &["the passphrase is missing"]);
    ok(&ann, &["whoami"], "");
    ok(&ann, &["export", text(&export)], "a passphrase\n");
    until("it ends", || ann.child().try_wait().unwrap().is_some());

    let into = |folder: &Path, file: &Path| {
        alone(dir.path(), &["import", text(file), "--data", text(folder)], "a passphrase\n")
    };
    let before = entries(dir.path());
    fails(&into(&data, &export), &["has a client already"]);
    let bytes = fs::read(&export).unwrap();
    let broken = dir.path().join("ann.export");
    let moved = dir.path().join("moved");
    let mut later = bytes.clone();
    later[13..15].copy_from_slice(b"02");
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (content, said) in [
        (bytes[..bytes.len() - 1].to_vec(), "it is not whole"),
        (bytes[..20].to_vec(), "it is not whole"),
        ([&bytes[..], b"x"].concat(), "it is not whole"),
        (changed, "it is damaged"),
        (later, "a later version of Shoal"),
        (b"anything else".to_vec(), "is no export of Shoal"),
        (Vec::new(), "is no export of Shoal"),
    ] {
        fs::write(&broken, content).unwrap();
        fails(&into(&moved, &broken), &[said]);
    }
    fails(&into(&moved, &dir.path().join("nowhere")), &["cannot read"]);
    fails(&into(&moved, dir.path()), &["cannot read"]);
    fs::write(&broken, &bytes).unwrap();
    assert_eq!(entries(dir.path()), before);
    let words = ["import", text(&export), "--data", text(&moved), "--shares-at", "/no/such/folder"];
    fails(&alone(dir.path(), &words, "a passphrase\n"), &["cannot read /no/such/folder"]);
    assert_eq!(entries(dir.path()), before);

    // An import that was cut off: nothing starts there, and the next one fills it.
    fs::create_dir_all(moved.join("client")).unwrap();
    for file in ["importing", "identity.key", "client.db"] {
        fs::write(moved.join("client").join(file), "cut off").unwrap();
    }
    let started = shoal_tests::finish(&mut up_command(dir.path(), "moved", &[]), "");
    fails(&started, &["did not come to its end", "run it again"]);
    succeeds(&into(&moved, &export));
    let ann = up(dir.path(), "moved", &[]);
    ok(&ann, &["login", "ann"], "secret\n");
}

#[test]
fn of_two_clients_with_one_key_trackers_know_the_one_that_logged_in_last() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let (mut ann, mut bob) = Client::pair(dir.path(), &info);
    bob.share("g", "a.bin", 1 << 20);
    let (data, export) = (dir.path().join("bob"), dir.path().join("bob.export"));
    bob.quit();
    let words = ["export", text(&export), "--data", text(&data), "--trackers", text(&info)];
    succeeds(&alone(dir.path(), &words, "p\n"));
    let moved = dir.path().join("moved");
    succeeds(&alone(dir.path(), &["import", text(&export), "--client", text(&moved)], "p\n"));
    // As a person who does what the message says must not be done.
    fs::remove_file(data.join("moved")).unwrap();
    let (mut old, mut new) =
        (Client::start(dir.path(), "bob", &info), Client::start(dir.path(), "moved", &info));
    let mut addresses = || {
        let shown = ann.ok("show_peers g a.bin");
        let peers = shown["peers"].as_array().unwrap();
        peers.iter().map(|peer| peer["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (of_old, of_new) = (format!("127.0.0.1:{}", old.port()), format!("127.0.0.1:{}", new.port()));
    old.ok("login bob secret");
    until("the first is found", || addresses() == [of_old.clone()]);
    new.ok("login bob secret");
    until("the second took its place", || addresses() == [of_new.clone()]);
    // Nothing breaks: the files are found at the second, and the first one is found again after its next login.
    new.quit();
    until("neither is found", || addresses().is_empty());
    old.ok("logout");
    old.ok("login bob secret");
    until("the first is found again", || addresses() == [of_old.clone()]);
}
