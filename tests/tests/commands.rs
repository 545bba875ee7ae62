//! Every command as a script gives it: JSON by the letter of P16, errors that help, words in any case and in quotes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use serde_json::Value;
use shoal_tests::{Client, Trackers, same_content, sha1_of, until};

/// Ann owns `g`, bob is a member; both trackers are up, and bob asks the second.
struct Pair {
    ann: Client,
    bob: Client,
    trackers: Trackers,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trackers = Trackers::start(dir.path(), 2);
        trackers.until_in_step();
        let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
        let mut bob = Client::enter(dir.path(), "bob", &trackers.info_of(2));
        ann.ok("create_group g");
        ann.let_in("g", &mut [&mut bob]);
        Self { ann, bob, trackers, dir }
    }
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn mentions(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn accounts() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Client::start(dir.path(), "ann", &trackers.info());
    let mut other = Client::start(dir.path(), "other", &trackers.info_of(2));
    let whoami = ann.ok("whoami");
    assert_eq!(whoami["user"], Value::Null);
    assert_eq!((&whoami["command"], &whoami["ok"]), (&"whoami".into(), &true.into()));
    let created = ann.ok("create_user ann secret");
    assert_eq!(created.get("provisional"), None, "both trackers are up: {created}");
    assert_eq!(ann.ok("whoami")["user"], Value::Null, "creating an account is not logging in");
    mentions(&ann.fails("create_user ann other"), &["ann"]);
    mentions(&other.fails("create_user ann other"), &["ann"]);
    let wrong = other.fails("login ann wrong");
    mentions(&wrong, &["wrong password for ann", "create_user ann"]);
    assert_eq!(wrong.replace("ann", "nobody"), other.fails("login nobody wrong"), "one text for both");
    other.ok("login ann secret");
    assert_eq!(other.ok("whoami")["user"], "ann");
    other.ok("login ann secret");
    mentions(&other.fails("login ann wrong"), &["not the password of ann"]);
    mentions(&other.fails("login bob secret"), &["logout"]);
    ann.ok("LOGIN ann secret");
    ann.ok("change_password secret better");
    other.ok("logout");
    other.fails("login ann secret");
    other.ok("login ann better");
    other.ok("logout");
    assert_eq!(other.ok("whoami")["user"], Value::Null);
    mentions(&other.fails("logout"), &["login"]);
    for name in ["bob~12abEF", "..bob\u{7}", "' bob'", "''"] {
        other.fails(&format!("create_user {name} secret"));
    }
}

#[test]
fn without_login_only_a_few_commands_work() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut client = Client::start(dir.path(), "client", &trackers.info());
    for command in [
        "create_group g",
        "join_group g",
        "leave_group g",
        "list_requests g",
        "accept_request g bob",
        "reject_request g bob",
        "list_files g",
        "upload_file /etc/hostname g",
        "download_file g f /tmp",
        "show_downloads",
        "stop_share g f",
        "logout",
        "list_members g",
        "show_peers g f",
        "change_password a b",
        "pause_download g f",
        "resume_download g f",
        "cancel_download g f",
        "move_download g f /tmp",
        "prioritize g f high",
        "limit_download g f 1M",
        "limit up 1M",
        "wait 1",
    ] {
        mentions(&client.fails(command), &["log in first", "login"]);
    }
    assert!(client.ok("help")["ok"] == true);
    assert_eq!(client.ok("list_groups")["groups"], Value::Array(vec![]));
    client.ok("whoami");
}

#[test]
fn groups_and_requests() {
    let Pair { mut ann, mut bob, trackers, dir } = Pair::new();
    // Both trackers are asked: ann's answers come from the first, bob's from the second.
    let ann_sees = ann.ok("list_groups")["groups"].clone();
    let bob_sees = bob.ok("list_groups")["groups"].clone();
    for groups in [&ann_sees, &bob_sees] {
        assert_eq!(groups.as_array().unwrap().len(), 1);
        assert_eq!(keys(&groups[0]), ["group", "member", "owner"]);
        assert_eq!(groups[0], serde_json::json!({ "group": "g", "owner": "ann", "member": true }));
    }
    let mut eve = Client::enter(dir.path(), "eve", &trackers.info_of(2));
    assert_eq!(eve.ok("list_groups")["groups"][0]["member"], false);
    mentions(&eve.fails("create_group g"), &["g"]);
    for command in
        ["list_files g", "list_members g", "show_peers g f", "leave_group g", "download_file g f /tmp"]
    {
        mentions(&eve.fails(command), &["not a member of g", "join_group g"]);
    }
    for command in ["list_requests g", "accept_request g eve", "reject_request g eve"] {
        mentions(&bob.fails(command), &["owner"]);
        eve.fails(command);
    }
    mentions(&eve.fails("join_group nosuch"), &["nosuch", "list_groups"]);
    eve.ok("join_group g");
    mentions(&eve.fails("list_files g"), &["g"]);
    assert_eq!(ann.ok("list_requests g")["requests"], serde_json::json!(["eve"]));
    ann.ok("reject_request g eve");
    assert_eq!(ann.ok("list_requests g")["requests"], serde_json::json!([]));
    mentions(&ann.fails("accept_request g eve"), &["eve"]);
    eve.ok("join_group g");
    ann.ok("accept_request g eve");
    mentions(&eve.fails("join_group g"), &["g"]);
    assert_eq!(eve.ok("list_members g")["members"], serde_json::json!(["ann", "bob", "eve"]));
    // The owner leaves: the member who joined first is next (P5).
    ann.ok("leave_group g");
    assert_eq!(eve.ok("list_groups")["groups"][0]["owner"], "bob");
    mentions(&ann.fails("list_members g"), &["join_group g"]);
    ann.ok("join_group g");
    bob.ok("accept_request g ann");
    assert_eq!(ann.ok("list_groups")["groups"][0]["owner"], "ann", "the founder owns it while a member");
    for client in [&mut ann, &mut bob, &mut eve] {
        client.ok("leave_group g");
    }
    assert_eq!(
        bob.ok("list_groups")["groups"],
        serde_json::json!([]),
        "a group without members is not listed"
    );
    ann.fails("create_group g");
    ann.ok("create_group 'with a space'");
    assert_eq!(bob.ok("list_groups")["groups"][0]["group"], "with a space");
}

#[test]
fn files_peers_and_downloads() {
    let Pair { mut ann, mut bob, dir, trackers: _running } = Pair::new();
    let (path, sha1) = ann.share("g", "a.bin", 3 << 20);
    assert_eq!(sha1, sha1_of(&path));
    for client in [&mut ann, &mut bob] {
        until("the sharer is known to be online", || client.sharers("g", "a.bin") == 1);
        let files = client.ok("list_files g")["files"].clone();
        assert_eq!(
            files,
            serde_json::json!([{ "name": "a.bin", "size": 3 << 20, "sha1": sha1, "sharers": 1 }])
        );
    }
    let peers = bob.ok("show_peers g a.bin")["peers"].clone();
    assert_eq!(keys(&peers[0]), ["address", "peer", "percent", "user", "way"]);
    assert_eq!((&peers[0]["user"], &peers[0]["percent"]), (&"ann".into(), &100.into()));
    assert_eq!(peers[0]["address"], format!("127.0.0.1:{}", ann.port()));
    assert_eq!(peers[0]["peer"], ann.ok("whoami")["peer"]);
    mentions(&bob.fails("show_peers g nosuch"), &["nosuch", "list_files g"]);
    mentions(&bob.fails("download_file g nosuch /tmp"), &["nosuch", "list_files g"]);

    assert_eq!(bob.ok("show_downloads")["downloads"], serde_json::json!([]));
    bob.ok("limit down 200K");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    let download = bob.download("a.bin");
    assert_eq!(keys(&download), ["file", "group", "path", "percent", "rate", "sources", "state"]);
    assert_eq!((&download["state"], &download["group"]), (&"D".into(), &"g".into()));
    assert_eq!(download["path"], copy.display().to_string());
    assert!((0.0..100.0).contains(&download["percent"].as_f64().unwrap()), "{download}");
    assert!(download["rate"].is_number() && download["sources"].is_u64(), "{download}");
    mentions(&bob.fails(&format!("download_file g a.bin {}", copy.display())), &["a.bin"]);
    mentions(&bob.fails("wait 1"), &["show_downloads"]);

    bob.until_percent("a.bin", 1.0);
    bob.ok("pause_download g a.bin");
    bob.until_download("a.bin", "P");
    let paused = bob.download("a.bin")["percent"].clone();
    bob.ok("limit down 0");
    assert_eq!(bob.download("a.bin")["percent"], paused, "a paused download stays where it is");
    bob.ok("resume_download g a.bin");
    bob.ok("wait 60");
    assert_eq!(bob.download("a.bin")["state"], "C");
    assert_eq!(bob.download("a.bin")["percent"], 100);
    assert!(same_content(&path, &copy));
    mentions(&bob.fails("pause_download g a.bin"), &["a.bin"]);
    mentions(&bob.fails("resume_download g nosuch"), &["nosuch", "show_downloads"]);
    // The finished one stays listed until it is cancelled; the file stays.
    bob.ok("cancel_download g a.bin");
    assert_eq!(bob.ok("show_downloads")["downloads"], serde_json::json!([]));
    assert!(same_content(&path, &copy));
    // A cancelled unfinished one leaves nothing behind.
    ann.share("g", "b.bin", 3 << 20);
    bob.ok("limit down 100K");
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    bob.ok(&format!("download_file g b.bin '{}'", folder.display()));
    bob.until_percent("b.bin", 1.0);
    bob.ok("cancel_download g b.bin");
    until("nothing is left of it", || std::fs::read_dir(&folder).unwrap().next().is_none());
}

#[test]
fn stop_share_stops_it() {
    let Pair { mut ann, mut bob, dir, trackers: _running } = Pair::new();
    let (path, _) = ann.share("g", "a.bin", 2 << 20);
    mentions(&ann.fails("stop_share g nosuch"), &["nosuch"]);
    mentions(&bob.fails("stop_share g a.bin"), &["a.bin"]);
    // While he downloads it, bob may refuse to share it; completion does not share it again (P13).
    bob.ok("limit down 1M");
    bob.ok(&format!("download_file g a.bin {}", dir.path().join("copy.bin").display()));
    bob.ok("stop_share g a.bin");
    bob.until_download("a.bin", "C");
    assert_eq!(ann.sharers("g", "a.bin"), 1);
    ann.ok("stop_share g a.bin");
    until("nobody shares it", || bob.sharers("g", "a.bin") == 0);
    assert!(path.exists());
    // The name is free for other content now (P19), and was not before.
    let other = dir.path().join("a.bin");
    std::fs::write(&other, b"other content").unwrap();
    bob.ok(&format!("upload_file {} g", other.display()));
    assert_eq!(ann.ok("list_files g")["files"][0]["size"], 13);
    mentions(&ann.fails(&format!("upload_file {} g", path.display())), &["a.bin"]);
    // The same content again only adds a sharer.
    let same = dir.path().join("elsewhere/a.bin");
    std::fs::create_dir(same.parent().unwrap()).unwrap();
    std::fs::write(&same, b"other content").unwrap();
    ann.ok(&format!("upload_file {} g", same.display()));
    until("two share it", || bob.sharers("g", "a.bin") == 2);
}

#[test]
fn words_come_in_any_case_and_in_quotes() {
    let Pair { mut ann, mut bob, dir, trackers: _running } = Pair::new();
    let name = "my holiday's film.bin";
    let path = dir.path().join(name);
    std::fs::write(&path, b"film").unwrap();
    ann.ok(&format!("Upload_File \"{}\" g", path.display()));
    assert_eq!(bob.ok("LIST_FILES g")["files"][0]["name"], name);
    let folder = dir.path().join("a folder");
    std::fs::create_dir(&folder).unwrap();
    bob.ok(&format!("dOwNlOaD_fIlE g \"{name}\" '{}'", folder.display()));
    bob.until_download(name, "C");
    assert!(same_content(&path, &folder.join(name)));
    assert_eq!(bob.ok("Show_downloads")["downloads"][0]["file"], name);
    bob.ok(&format!("CANCEL_DOWNLOAD g \"{name}\""));
    // Ids are not words of the language: they keep their case.
    mentions(&bob.fails("list_files G"), &["G"]);
}

#[test]
fn mirrors_and_limits_are_checked() {
    let Pair { mut ann, dir, bob: _bob, trackers: _running } = Pair::new();
    let path = dir.path().join("a.bin");
    std::fs::write(&path, b"content").unwrap();
    let upload = |rest: &str| format!("upload_file {} g {rest}", path.display());
    ann.fails(&upload("--mirror ftp://example.org/a.bin"));
    ann.fails(&upload("--mirror"));
    ann.ok(&upload("--mirror http://example.org/a.bin --mirror https://example.net/a.bin"));
    for limit in
        ["limit up 20M", "limit down 1G", "limit up 512K", "limit down 1000", "limit up 0", "limit down 0"]
    {
        ann.ok(limit);
    }
    for limit in [
        "limit up",
        "limit sideways 1M",
        "limit up fast",
        "limit up -1",
        "limit up 1X",
        "limit up 99999999999999999999G",
    ] {
        ann.fails(limit);
    }
}

/// Runs the examples of `help`, each as it stands there but for the key.
struct Examples {
    left: Vec<String>,
}

impl Examples {
    fn of(client: &mut Client) -> Self {
        let help = client.ok("help");
        // An example stands in a line of its own below its command.
        let lines = help["text"].as_str().unwrap().lines();
        Self {
            left: lines.filter_map(|line| line.strip_prefix(&" ".repeat(19))).map(str::to_owned).collect(),
        }
    }

    /// Runs the examples of these commands, `key` in place of the one in them.
    fn run(&mut self, client: &mut Client, commands: &[&str], key: &str) {
        for command in commands {
            let of_it = |example: &String| example.split(' ').next() == Some(*command);
            let at = self.left.iter().position(of_it).unwrap_or_else(|| panic!("no example of {command}"));
            let example = self.left.remove(at);
            let ran = client.ok(&example.replace("hJk4Qz7P", key));
            assert_eq!(ran["command"], **command, "{example}");
        }
    }
}

#[test]
fn every_example_of_help_runs() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    for folder in ["pictures", "downloads"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    shoal_tests::random_file(&dir.path().join("pictures/beach.zip"), 1 << 20, 1);
    let variables = [("HOME", dir.path().to_str().unwrap()), ("SHOAL_PASSWORD", "secret")];
    let start = |name: &str| Client::start_in(dir.path(), name, &trackers.info(), &variables);
    let (mut ann, mut bob, mut other) = (start("ann"), start("bob"), start("other"));
    let mut examples = Examples::of(&mut ann);
    examples.run(&mut ann, &["help", "create_user", "login", "create_group"], "");
    bob.ok("create_user bob");
    bob.ok("login bob");
    examples.run(&mut bob, &["join_group"], "");
    examples.run(&mut ann, &["list_requests", "reject_request"], "");
    bob.ok("join_group holidays");
    examples.run(&mut ann, &["accept_request", "list_members", "list_groups"], "");
    examples.run(&mut ann, &["upload_file", "relocate", "list_files", "show_peers"], "");
    bob.ok("limit down 100K");
    examples.run(&mut bob, &["limit", "set", "download_file", "show_downloads", "explain"], "");
    examples.run(
        &mut bob,
        &["pause_download", "resume_download", "prioritize", "limit_download", "schedule"],
        "",
    );
    bob.ok("schedule remove 1");
    bob.ok("limit_download holidays beach.zip 0");
    bob.ok("limit down 0");
    let folder = dir.path().join("trip/pictures");
    std::fs::create_dir_all(folder.join("day 2")).unwrap();
    for name in ["day 2/a.jpg", "b.mov", "c.jpg"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    ann.ok(&format!("upload_file '{}' holidays", folder.display()));
    bob.ok("download_file holidays pictures ~/downloads/");
    bob.until_download("pictures", "C");
    examples.run(&mut bob, &["choose"], "");
    examples.run(&mut bob, &["wait", "move_download", "cancel_download", "stop_share", "leave_group"], "");
    assert!(same_content(&dir.path().join("pictures/beach.zip"), &dir.path().join("archive/beach.zip")));
    // Another client of ann's is lost.
    other.ok("login ann");
    other.share("holidays", "other.bin", 1_000);
    let key = other.ok("whoami")["peer"].as_str().unwrap().to_owned();
    let key = &key[key.len() - 8..];
    examples.run(&mut ann, &["sessions", "quota", "whoami", "logout"], key);
    drop(other);
    until("the tracker knows that it is gone", || ann.sharers("holidays", "other.bin") == 0);
    // The example takes the new password from the environment, where the present one must not be.
    ann.ok("change_password secret other");
    examples.run(&mut ann, &["forget_client", "change_password", "quit"], key);
    assert!(examples.left.is_empty(), "{:?}", examples.left);
}
