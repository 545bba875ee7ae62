//! Names with the real binaries: look-alikes and hidden characters of users and groups, and files whose names are typed in
//! another normal form, hide something, or are as long as file systems take (P1, P3, P11, T7).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use shoal_tests::{
    Client, Finished, Store, Trackers, World, binary, download, finish, free_port, random_file, run_script,
    same_content, until,
};

/// A name as macOS writes it, and as it is typed elsewhere.
const DECOMPOSED: &str = "Ame\u{301}lie.txt";
const COMPOSED: &str = "Am\u{e9}lie.txt";
/// It is shown as `photoexe.png` where nothing is escaped.
const REVERSED: &str = "photo\u{202e}gnp.exe";

/// A file of 255 bytes' name in a folder of its own.
fn long_file(dir: &Path) -> (PathBuf, String) {
    let name = format!("{}{}.bin", "é".repeat(125), "x");
    assert_eq!(name.len(), 255);
    let path = dir.join("long").join(&name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    random_file(&path, 300_000, 3);
    (path, name)
}

fn file(dir: &Path, folder: &str, name: &str) -> PathBuf {
    let path = dir.join(folder).join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    random_file(&path, 200_000, 4);
    path
}

/// A server of one file or folder, ended with the value.
struct Server(Child, String);

impl Server {
    fn of(dir: &Path, option: &str, path: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("server"));
        command.arg(option).arg(path).args(["-a", "127.0.0.1", "-p", &port.to_string()]).current_dir(dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self(child, port.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(dir: &Path, name: &str, info: &Path, lines: &str) -> Finished {
    run_script(dir, name, info, &[], lines)
}

#[test]
fn users_and_groups_that_look_alike_or_hide_something_are_refused_with_what_they_resemble() {
    let world = World::new();
    let info = world.trackers.info();
    let mut client = Client::start(&world.path(""), "dora", &info);
    for (typed, said) in [
        ("\u{430}nn", "resembles the existing user 'ann'"),
        ("ａｎｎ", "resembles the existing user 'ann'"),
        ("𝐚nn", "resembles the existing user 'ann'"),
        ("ann\u{ad}", "must not contain"),
        ("ann\u{3164}", "must not contain"),
        ("an\u{fe0f}n", "must not contain"),
        ("ann\u{e0061}", "must not contain"),
        ("\u{202e}nna", "must not contain"),
        ("ann~\u{430}bcdef", "six hex digits"),
    ] {
        let error = client.fails(&format!("create_user '{typed}' secret"));
        assert!(error.contains(said), "{typed:?}: {error}");
    }
    for fine in ["Ann", "می\u{200c}خواهم", "👩\u{200d}🚀", "anna"] {
        client.ok(&format!("create_user '{fine}' secret"));
    }
    client.ok("login Ann secret");
    client.ok("create_group films");
    let error = client.fails("create_group 'fi\u{217c}ms'");
    assert!(error.contains("resembles the existing group 'films'"), "{error}");
    // A look-alike means nobody.
    assert!(client.fails("join_group 'fi\u{217c}ms'").contains("no group"));
}

#[test]
fn a_user_logs_in_and_a_group_is_found_in_whichever_normal_form_is_typed() {
    let world = World::new();
    let info = world.trackers.info();
    let mut client = Client::start(&world.path(""), "zoe", &info);
    client.ok("create_user 'zoe\u{308}' secret");
    for typed in ["zo\u{eb}", "zoe\u{308}"] {
        let answer = client.ok(&format!("login '{typed}' secret"));
        assert_eq!(answer["user"], "zo\u{eb}", "names are kept composed");
        client.ok("logout");
        let taken = client.fails(&format!("create_user '{typed}' other"));
        assert!(taken.contains("is taken"), "{taken}");
    }
    client.ok("login 'zoe\u{308}' secret");
    client.ok("create_group 'cafe\u{301}'");
    for typed in ["caf\u{e9}", "cafe\u{301}"] {
        client.ok(&format!("list_members '{typed}'"));
    }
}

#[test]
fn look_alikes_of_a_partition_are_one_name_and_the_later_goes_on_under_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (first_info, second_info) = (trackers.info_of(1), trackers.info_of(2));
    trackers.kill(2);
    let mut first = Client::start(dir.path(), "first", &first_info);
    first.ok("create_user anna one");
    trackers.kill(1);
    trackers.restart(2);
    let mut second = Client::start(dir.path(), "second", &second_info);
    second.ok("create_user '\u{430}nna' two");
    trackers.restart(1);
    trackers.until_in_step();
    for info in [&first_info, &second_info] {
        let tag = format!("again-{}", fastrand::u32(..));
        let mut winner = Client::start(dir.path(), &format!("winner-{tag}"), info);
        assert_eq!(winner.ok("login anna one")["user"], "anna");
        let mut loser = Client::start(dir.path(), &format!("loser-{tag}"), info);
        // Under the name that was claimed, and under the new one.
        let user = loser.ok("login '\u{430}nna' two")["user"].as_str().unwrap().to_owned();
        assert!(user.starts_with("\u{430}nna~"), "{user}");
        loser.ok("logout");
        loser.ok(&format!("login '{user}' two"));
        assert!(loser.fails("create_user '\u{3b1}nna' three").contains("resembles the existing user 'anna'"));
    }
}

#[test]
fn a_shared_file_is_found_in_whichever_normal_form_is_typed_and_written_as_it_was_shared() {
    let mut world = World::new();
    let mut ben = world.member("ben");
    let original = file(&world.path("ann-files"), ".", DECOMPOSED);
    // Typed composed, as the prompt of another system gives it.
    let typed = original.with_file_name(COMPOSED);
    let shared = world.ann.ok(&format!("upload_file '{}' g", typed.display()));
    assert_eq!(shared["file"], DECOMPOSED, "{shared}");
    for (number, typed) in [COMPOSED, DECOMPOSED].into_iter().enumerate() {
        let to = world.path(&format!("to-{number}"));
        std::fs::create_dir_all(&to).unwrap();
        download(&mut ben, &format!("'{typed}'"), &to);
        ben.until_download(DECOMPOSED, "C");
        assert!(same_content(&original, &to.join(DECOMPOSED)));
        assert!(!ben.ok(&format!("show_peers g '{typed}'"))["peers"].as_array().unwrap().is_empty());
        ben.ok(&format!("stop_share g '{typed}'"));
        ben.ok(&format!("cancel_download g '{typed}'"));
    }
    // The same content in the other form is another sharer of it, another content is refused.
    let other = file(&world.path("ben-files"), ".", COMPOSED);
    let upload = format!("upload_file '{}' g", other.display());
    ben.ok(&upload);
    assert_eq!(ben.sharers("g", DECOMPOSED), 2);
    assert_eq!(ben.ok("list_files g")["files"].as_array().unwrap().len(), 1);
    ben.ok(&format!("stop_share g '{DECOMPOSED}'"));
    std::fs::write(&other, "another content").unwrap();
    let error = ben.fails(&upload);
    assert!(error.contains("has another file named"), "{error}");
}

#[test]
fn hidden_characters_of_a_shared_file_are_shown_escaped_and_can_be_typed_so() {
    let mut world = World::new();
    let mut ben = world.member("ben");
    let original = file(&world.path("ann-files"), ".", REVERSED);
    world.ann.ok(&format!("upload_file '{}' g", original.display()));
    let info = world.trackers.info();
    let lines = "login ann secret\nlist_files g\nwhoami\n";
    let shown = text(&world.path(""), "other", &info, lines);
    assert!(shown.stdout.contains("photo\\u{202e}gnp.exe"), "{shown:?}");
    assert!(!shown.stdout.contains('\u{202e}') && !shown.stderr.contains('\u{202e}'), "{shown:?}");
    let to = world.path("to");
    std::fs::create_dir_all(&to).unwrap();
    download(&mut ben, "'photo\\u{202e}gnp.exe'", &to);
    ben.until_download(REVERSED, "C");
    assert!(same_content(&original, &to.join(REVERSED)));
    let unknown = ben.fails("download_file g 'none\u{202e}' /tmp");
    assert!(unknown.contains("none\\u{202e}") && !unknown.contains('\u{202e}'), "{unknown}");
}

#[test]
fn a_file_name_of_255_bytes_is_shared_and_downloaded() {
    let mut world = World::new();
    let mut ben = world.member("ben");
    let (original, name) = long_file(&world.path(""));
    world.ann.ok(&format!("upload_file '{}' g", original.display()));
    let to = world.path("to");
    std::fs::create_dir_all(&to).unwrap();
    download(&mut ben, &format!("'{name}'"), &to);
    ben.until_download(&name, "C");
    assert!(same_content(&original, &to.join(&name)));
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 1, "nothing of ours is left beside it");
}

#[test]
fn fetch_takes_a_name_of_255_bytes_and_one_in_another_normal_form() {
    let dir = tempfile::tempdir().unwrap();
    let (original, name) = long_file(dir.path());
    let server = Server::of(dir.path(), "-f", &original);
    let to = dir.path().join("to");
    std::fs::create_dir_all(&to).unwrap();
    let ended = finish(Command::new(binary("fetch")).args(["-p", &server.1, "-o"]).arg(&to), "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(same_content(&original, &to.join(&name)));
    // From a folder, by the name as it is typed and not as it is on the disk.
    let macs = file(dir.path(), "mac", DECOMPOSED);
    let server = Server::of(dir.path(), "--root", &dir.path().join("mac"));
    for typed in [COMPOSED, DECOMPOSED] {
        let url = format!("http://127.0.0.1:{}/{typed}", server.1);
        let out = dir.path().join(format!("out-{}", typed.len()));
        let ended = finish(Command::new(binary("fetch")).arg(url).arg("-o").arg(&out), "");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(same_content(&macs, &out));
    }
}

#[test]
fn dfs_finds_a_name_in_whichever_normal_form_and_takes_255_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let to = dir.path().join("to");
    std::fs::create_dir_all(&to).unwrap();
    let out = to.to_str().unwrap();
    let (long, name) = long_file(dir.path());
    store.ok(&["put", long.to_str().unwrap()]);
    store.ok(&["get", &name, "-o", out]);
    assert!(same_content(&long, &to.join(&name)));

    let original = file(dir.path(), "mac", DECOMPOSED);
    let typed = original.with_file_name(COMPOSED);
    store.ok(&["put", typed.to_str().unwrap()]);
    for typed in [COMPOSED, DECOMPOSED] {
        store.ok(&["get", typed, "-o", out, "--force"]);
        assert!(same_content(&original, &to.join(DECOMPOSED)), "it keeps the name that it had");
        store.ok(&["list", typed]);
    }
    // A new version from a system that composes takes its place.
    let composed = file(dir.path(), "elsewhere", COMPOSED);
    random_file(&composed, 100_000, 9);
    store.ok(&["put", composed.to_str().unwrap()]);
    assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 2);
    store.ok(&["rm", COMPOSED]);
    assert_eq!(store.ok(&["list"])["files"].as_array().unwrap().len(), 1);

    let reversed = file(dir.path(), "hidden", REVERSED);
    store.ok(&["put", reversed.to_str().unwrap()]);
    let listed = finish(&mut store.dfs("ann", &["list"]), "");
    assert!(
        listed.stdout.contains("photo\\u{202e}gnp.exe") && !listed.stdout.contains('\u{202e}'),
        "{listed:?}"
    );
    store.ok(&["rm", "photo\\u{202e}gnp.exe"]);
}
