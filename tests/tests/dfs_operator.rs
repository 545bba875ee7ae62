//! The encrypted store towards its people: what a node tells its operator, first contact, who holds what, names and help.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use shoal_tests::{
    Finished, Mount, Store, Terminal, binary, finish, free_port, node_secret, random_file, root_or_skip,
    same_content, until,
};

fn sample(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    random_file(&path, size, 5);
    path
}

/// A node of its own, started with nothing but its port and what a test has to say.
fn alone(dir: &Path, folder: &Path, config: &Path, typed: &str) -> Finished {
    let mut command = Command::new(binary("dfs-server"));
    command.arg(free_port().to_string()).arg("--data-dir").arg(dir.join("alone"));
    command.arg("--join-secret").arg(node_secret(dir)).args(["--bind", "127.0.0.1"]);
    command.current_dir(folder).env("XDG_CONFIG_HOME", config).env_remove("RUST_LOG");
    finish(&mut command, typed)
}

#[test]
fn a_node_finds_the_trackers_by_itself_and_obeys_at_a_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::start(dir.path(), 1, 2);
    let (empty, config) = (dir.path().join("empty"), dir.path().join("config"));
    std::fs::create_dir(&empty).unwrap();
    let neither = alone(dir.path(), &empty, &config, "");
    assert_eq!(neither.code, Some(1));
    assert!(neither.stderr.contains("no file names the trackers"), "{neither:?}");
    let here = alone(dir.path(), dir.path(), &config, "status\nhelp\nwhat\nquit\n");
    assert_eq!(here.code, Some(0), "{here:?}");
    for words in
        ["takes the trackers from ./tracker_info.txt", "scrubbing: ", "repair: ", "end this node cleanly"]
    {
        assert!(here.stdout.contains(words), "{words}: {here:?}");
    }
    assert!(here.stderr.contains("there is no command what"), "{here:?}");
    std::fs::create_dir_all(config.join("shoal")).unwrap();
    std::fs::copy(dir.path().join("tracker_info.txt"), config.join("shoal/tracker_info.txt")).unwrap();
    let configured = alone(dir.path(), &empty, &config, "quit\n");
    let taken = format!("takes the trackers from {}", config.join("shoal/tracker_info.txt").display());
    assert!(configured.stdout.contains(&taken), "{configured:?}");
}

#[test]
fn a_node_has_a_prompt_at_a_terminal_and_logs_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 1);
    let data = dir.path().join("alone");
    let mut command = Command::new(binary("dfs-server"));
    command.arg(free_port().to_string()).arg("--data-dir").arg(&data);
    command
        .arg("--trackers")
        .arg(store.trackers.info())
        .arg("--join-secret")
        .arg(node_secret(dir.path()))
        .args(["--bind", "127.0.0.1", "-i", "1"]);
    let mut terminal = Terminal::start(command.env_remove("RUST_LOG"));
    terminal.expect("type status, help or quit");
    terminal.expect("0 copies made, 1 of 1 trackers");
    let status = terminal.run("Status");
    assert!(status.contains("scrubbing: ") && status.contains("up for "), "{status}");
    assert!(terminal.run("what").contains("there is no command what; there are: status, help, quit"));
    terminal.line("quit");
    assert_eq!(terminal.wait(), 0);
    let log = std::fs::read_to_string(data.join("dfs-server.log")).unwrap();
    assert!(log.contains("registered tracker=") && log.contains("scrubbing: "), "{log}");
}

#[test]
fn what_a_node_does_is_in_its_log_its_status_and_its_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["-i", "1", "--metrics", "127.0.0.1:0"];
    let mut store = Store::start_with(dir.path(), (1, 3), &["--repair-after", "2s"], &arguments, &[]);
    let file = sample(dir.path(), "f", 9_000_000);
    store.ok(&["put", file.to_str().unwrap(), "--copies", "3"]);
    store.ok(&["get", "f", "-o", dir.path().join("fetched").to_str().unwrap()]);
    until("the log of every node tells of the put", || {
        (1..=3).all(|node| {
            let log = store.log(node);
            let has = |words: &str| log.contains(words);
            has("connected")
                && has("logged in")
                && has(": put ")
                && has("scrubbing: ")
                && has(" of 1 trackers")
        })
    });
    until("the get is in a log", || (1..=3).any(|node| store.log(node).contains("get ")));
    let chunks = store.chunks(1).len() as u64;
    let status = |arguments: &[&str]| {
        let at = format!("127.0.0.1:{}", store.port(1));
        finish(Command::new(binary("dfs-server")).arg("--status").arg(at).args(arguments), "")
    };
    let json: Value = serde_json::from_str(status(&["--json"]).stdout.trim()).unwrap();
    assert_eq!(
        (json["chunks"].as_u64(), json["stored_chunks"].as_u64()),
        (Some(chunks), Some(chunks)),
        "{json}"
    );
    assert_eq!(json["trackers"][0]["up"], true, "{json}");
    assert!(status(&[]).stdout.contains("DFS1 at 127.0.0.1:"));
    let log = store.log(1);
    let at = log.split("metrics are at http://").nth(1).unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains(&format!("shoal_node_chunks {chunks}\n")), "{page}");
    // What repair does on it is said too.
    store.kill(1);
    std::fs::remove_dir_all(store.data(1).join("chunks")).unwrap();
    store.restart(1);
    until("the log tells of the repair", || store.log(1).contains("copies made, 0 failed"));
    let nobody = finish(Command::new(binary("dfs-server")).args(["--status", "127.0.0.1:1"]), "");
    assert!(nobody.code == Some(1) && nobody.stderr.contains("is the node running"), "{nobody:?}");
}

#[test]
fn a_node_says_what_its_disk_really_has_left() {
    if !root_or_skip("a_node_says_what_its_disk_really_has_left") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::new(&dir.path().join("node-1"), "size=16m");
    let store = Store::start_with(dir.path(), (1, 1), &[], &["--capacity", "100GiB"], &[]);
    until("the log tells of the disk", || {
        store.log(1).contains("less than the capacity of 100.0 GiB allows")
    });
    let at = format!("127.0.0.1:{}", store.port(1));
    let free = || {
        let asked = finish(Command::new(binary("dfs-server")).args(["--status", &at, "--json"]), "");
        serde_json::from_str::<Value>(asked.stdout.trim()).unwrap()["free"].as_u64().unwrap()
    };
    assert!((1..16 << 20).contains(&free()), "{}", free());
    // Another program fills the disk: the node says so, takes nothing, and takes chunks again when there is room.
    let ballast = disk.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 32 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    until("nothing is left", || free() == 0);
    until("the log tells that", || store.log(1).contains("100 % of the room is used"));
    let file = sample(dir.path(), "f", 1_000_000);
    let put = ["put", file.to_str().unwrap(), "--copies", "1"];
    assert_eq!(store.run("ann", &put)["ok"], false);
    std::fs::remove_file(&ballast).unwrap();
    until("there is room again", || free() > 8 << 20);
    until("the file is stored", || store.run("ann", &put)["ok"] == true);
}

#[test]
fn a_list_names_what_every_server_holds_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 20_000_000);
    store.ok(&["put", file.to_str().unwrap()]);
    store.until_repaired();
    let held = |store: &Store| store.ok(&["list", "f"])["files"][0].clone();
    let count = |file: &Value| -> usize {
        file["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|server| server["chunks"].as_array().unwrap().len())
            .sum()
    };
    let whole = held(&store);
    assert_eq!((count(&whole), whole["chunks"].as_u64()), (10, Some(5)), "{whole}");
    assert_eq!(
        (&whole["missing_chunks"], &whole["lacking_chunks"]),
        (&Value::from([0_u8; 0].as_slice()), &whole["missing_chunks"])
    );
    let shown = finish(&mut store.dfs("ann", &["list", "-v"]), "");
    assert!(
        shown.stdout.contains("    DFS1 ") && shown.stdout.contains("all 5 parts have 2 copies"),
        "{shown:?}"
    );
    store.kill(2);
    store.kill(3);
    let now = held(&store);
    assert_eq!(now["servers"][1]["reached"], false, "{now}");
    assert!(!now["missing_chunks"].as_array().unwrap().is_empty(), "{now}");
    let shown = finish(&mut store.dfs("ann", &["list", "f"]), "");
    assert!(shown.stdout.contains("MISSING: parts ") && shown.stdout.contains("not reached ("), "{shown:?}");
}

#[test]
fn a_name_without_its_ending_is_found_and_a_new_version_keeps_its_copies() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 3);
    let file = sample(dir.path(), "Richard III.txt", 100_000);
    store.ok(&["put", file.to_str().unwrap(), "--copies", "3"]);
    random_file(&file, 100_000, 9);
    store.ok(&["put", file.to_str().unwrap()]);
    assert_eq!(store.ok(&["list"])["files"][0]["wanted"], 3);
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    store.ok(&["get", "Richard", "III", "-o", to.to_str().unwrap()]);
    assert!(same_content(&file, &to.join("Richard III.txt")));
    let other = sample(dir.path(), "Richard III.md", 1_000);
    store.ok(&["put", other.to_str().unwrap()]);
    let error = store.refused(&["get", "Richard III"]);
    assert!(error.contains("did you mean Richard III.md or Richard III.txt?"), "{error}");
    // Nothing is removed by half a name.
    assert!(store.refused(&["rm", "Richard"]).contains("no stored file"));
}

#[test]
fn first_contact_needs_no_trackers_line_and_makes_the_account() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let conf = std::fs::read_to_string(dir.path().join("dfs.conf")).unwrap();
    let servers: Vec<&str> = conf.lines().filter(|line| line.starts_with("Server")).collect();
    std::fs::write(dir.path().join("dfs.conf"), servers.join("\n")).unwrap();
    let mut command = Command::new(binary("dfs"));
    command.arg("dfs.conf").arg("--data-dir").arg(dir.path().join("d")).current_dir(dir.path());
    command.env_remove("SHOAL_PASSWORD").env("XDG_CONFIG_HOME", dir.path().join("config"));
    let finished = finish(&mut command, "create_user eve\nsecret\nlist\nhelp\nhelp put\nexit\n");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for words in [
        "takes them from ./tracker_info.txt",
        "without an account, type create_user NAME first",
        "user eve was created",
        "From DFS1: Authorization Granted.",
        "you have no stored files",
        "Show the servers, their room",
        "--copies",
    ] {
        assert!(finished.stdout.contains(words), "{words}: {finished:?}");
    }
    let finished = finish(&mut command, "eve\nsecret\nlits\n");
    assert!(
        finished.stderr.contains("there is no command lits, did you mean list?; type help"),
        "{finished:?}"
    );
    assert!(!finished.stderr.contains("--help"), "{finished:?}");
    // A taken name gets a hint for where it was typed, and commands are taken in any case.
    let finished = finish(&mut command, "Create_User eve\nsecret\n");
    assert!(
        finished.stderr.contains("eve is taken") && finished.stderr.contains("type it here"),
        "{finished:?}"
    );
    let taken = store.run("eve", &["create_user"])["error"].to_string();
    assert!(taken.contains("--user eve") && !taken.contains("login eve"), "{taken}");
    // The other place where trackers are looked for.
    let config = dir.path().join("config/shoal");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::rename(dir.path().join("tracker_info.txt"), config.join("tracker_info.txt")).unwrap();
    let finished = finish(&mut command, "eve\nsecret\nexit\n");
    let taken = format!("takes them from {}", config.join("tracker_info.txt").display());
    assert!(finished.code == Some(0) && finished.stdout.contains(&taken), "{finished:?}");
    // Help needs neither servers nor trackers, and goes to stdout.
    for arguments in [&["help"][..], &["nowhere.conf", "help", "put"], &["help", "put", "--json"]] {
        let finished = finish(Command::new(binary("dfs")).args(arguments), "");
        assert!(finished.code == Some(0) && finished.stdout.contains("Store regular files"), "{finished:?}");
        assert_eq!(finished.stderr, "");
    }
}
