//! The queue of `dfs`: what is left there is worked off in order, through kill -9, servers that are away, and files that are gone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use shoal_tests::{Mount, Store, Terminal, finish, random_file, root_or_skip, same_content, until};

fn sample(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    random_file(&path, size, 5);
    path
}

fn prompt(store: &Store) -> Terminal {
    let mut terminal = Terminal::start(&store.dfs("ann", &["--retry-time", "1"]));
    terminal.expect("dfs> ");
    terminal
}

fn jobs(store: &Store) -> Vec<Value> {
    store.ok(&["queue"])["jobs"].as_array().unwrap().clone()
}

fn names(store: &Store) -> Vec<String> {
    let listed = store.ok(&["list"]);
    let files = listed["files"].as_array().unwrap();
    let mut names: Vec<String> = files.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_prompt_works_off_in_order_what_was_left_and_a_failed_job_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let files = ["a", "gone", "changed", "z"].map(|name| sample(dir.path(), name, 100_000));
    let mut arguments = vec!["put", "--queue"];
    arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
    assert_eq!(store.ok(&arguments)["queued"], serde_json::json!([1, 2, 3, 4]));
    assert!(store.refused(&["put", "--queue", "nowhere"]).contains("nothing was queued"));
    std::fs::remove_file(&files[1]).unwrap();
    random_file(&files[2], 5_000, 6);
    // Nobody else's prompt touches it.
    assert_eq!(store.run("bob", &["create_user"])["ok"], true);
    assert_eq!(store.run("bob", &["wait"])["ok"], true);
    assert_eq!(jobs(&store).len(), 4);
    let mut terminal = prompt(&store);
    terminal.expect("job 1: a is stored");
    terminal.expect("job 2: put");
    terminal.expect("gone failed: cannot read");
    terminal.expect("changed failed:");
    terminal.expect("changed since it was queued");
    terminal.expect("job 4: z is stored");
    assert_eq!(names(&store), ["a", "z"]);
    // Left there while the prompt is open, from another process.
    let late = sample(dir.path(), "late", 1_000);
    store.ok(&["put", "--queue", late.to_str().unwrap()]);
    terminal.expect("job 5: late is stored");
    let mut second = Terminal::start(&store.dfs("ann", &[]));
    second.expect("another dfs of yours works the queue off");
    let shown = terminal.run("queue");
    assert!(shown.contains("2  failed") && shown.contains("3  failed"), "{shown}");
    assert!(terminal.run("queue --clear").contains("2 jobs"));
    assert!(terminal.run("queue").contains("the queue is empty"));
    terminal.line("get z");
    terminal.expect("queued as job 6");
    terminal.line("quit");
    terminal.wait();
    // The other one takes over, if it was not done before.
    second.line("wait");
    second.expect("the queue is worked off");
}

#[test]
fn kill_9_in_the_middle_of_a_queued_put_is_continued_by_the_next_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 3);
    let big = sample(dir.path(), "big", 60_000_000);
    let mut terminal = prompt(&store);
    // One node takes nothing, so that the job cannot be done before the prompt is killed.
    store.freeze(3, true);
    terminal.line(&format!("put {}", big.display()));
    terminal.expect("queued as job 1");
    until("some of it is stored", || (1..=2).any(|node| !store.chunks(node).is_empty()));
    terminal.kill();
    store.freeze(3, false);
    assert_eq!(jobs(&store).len(), 1);
    let small = sample(dir.path(), "small", 1_000);
    store.ok(&["put", "--queue", small.to_str().unwrap()]);
    // Without a prompt, wait works it off.
    store.ok(&["wait"]);
    assert_eq!(jobs(&store).len(), 0);
    assert_eq!(names(&store), ["big", "small"]);
    let to = tempfile::tempdir_in(dir.path()).unwrap();
    store.ok(&["get", "big", "-o", to.path().to_str().unwrap()]);
    assert!(same_content(&big, &to.path().join("big")));
}

#[test]
fn with_all_servers_down_a_put_waits_says_so_and_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 2);
    let (one, two) = (sample(dir.path(), "one", 100_000), sample(dir.path(), "two", 100_000));
    let mut terminal = prompt(&store);
    store.kill(1);
    store.kill(2);
    terminal.line(&format!("put {} {}", one.display(), two.display()));
    terminal.expect("waits: only 0 of 2 servers can be reached");
    terminal.expect("job 2: put");
    terminal.expect("waits: only 0 of 2");
    let shown = terminal.run("queue");
    assert!(shown.contains("1  waiting") && shown.contains("2  waiting"), "{shown}");
    assert!(terminal.run("cancel 7").contains("there is no job 7"));
    terminal.line("pause 1");
    terminal.expect("1 job paused");
    terminal.line("cancel 2");
    terminal.expect("1 job cancelled");
    terminal.line("resume");
    terminal.expect("1 job resumed");
    store.restart(1);
    store.restart(2);
    terminal.expect("job 1: one is stored");
    assert_eq!(names(&store), ["one"]);
    assert!(jobs(&store).is_empty());
}

#[test]
fn a_job_that_waits_lets_the_next_ones_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    let one = sample(dir.path(), "one", 10_000);
    store.ok(&["put", one.to_str().unwrap()]);
    // Neighbours hold the same part.
    [1, 2].iter().for_each(|&node| store.kill(node));
    let (two, there) = (sample(dir.path(), "two", 10_000), dir.path().join("there"));
    let mut terminal = prompt(&store);
    terminal.line(&format!("get one -o {}", there.display()));
    terminal.expect("job 1: get one waits: ");
    terminal.line(&format!("put {}", two.display()));
    terminal.expect("job 2: two is stored");
    let shown = terminal.run("queue");
    assert!(shown.contains("get one") && !shown.contains("two"), "{shown}");
    [1, 2].iter().for_each(|&node| store.restart(node));
    terminal.expect("job 1: ");
    until("it is there", || there.exists());
    assert!(same_content(&one, &there));
}

#[test]
fn a_job_waits_for_trackers_and_for_a_login_and_a_put_under_way_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 2);
    let (one, big, two) = (
        sample(dir.path(), "one", 100_000),
        sample(dir.path(), "big", 60_000_000),
        sample(dir.path(), "two", 1_000),
    );
    let mut terminal = prompt(&store);
    store.trackers.kill(1);
    terminal.line(&format!("put {}", one.display()));
    terminal.expect("waits: ");
    store.trackers.restart(1);
    terminal.expect("job 1: one is stored");
    let before = store.chunks(1).len();
    store.freeze(2, true);
    terminal.line(&format!("put {} {}", big.display(), two.display()));
    until("some of it is stored", || store.chunks(1).len() > before);
    terminal.line("cancel 2");
    until("it is cancelled", || jobs(&store).len() == 1);
    store.freeze(2, false);
    terminal.expect("job 3: two is stored");
    assert_eq!(names(&store), ["one", "two"], "nothing half-done is listed");
    // Her password is changed elsewhere, so this session has ended.
    let mut change = store.dfs("ann", &["--json", "change_password"]);
    let changed = shoal_tests::finish(&mut change, "another-4711\n");
    assert!(changed.stdout.contains("\"ok\":true"), "{changed:?}");
    terminal.line(&format!("put {}", one.display()));
    terminal.expect("waits: a login is needed: type login");
    for password in ["secret", "another-4711"] {
        terminal.line("login");
        terminal.expect("Password: ");
        terminal.line(password);
    }
    terminal.expect("logged in");
    terminal.expect("one is stored");
    terminal.line("quit");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn a_get_waits_for_space_and_says_so() {
    if !root_or_skip("a_get_waits_for_space_and_says_so") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let big = sample(dir.path(), "big", 8_000_000);
    store.ok(&["put", big.to_str().unwrap()]);
    let disk = Mount::new(&dir.path().join("disk"), "size=12m");
    let ballast = sample(disk.path(), "ballast", 8_000_000);
    let mut terminal = prompt(&store);
    terminal.line(&format!("get big -o {}", disk.path().display()));
    terminal.expect("waits: no space left");
    let shown = terminal.run("queue");
    assert!(shown.contains("waiting  get big") && !shown.contains("run it again"), "{shown}");
    std::fs::remove_file(&ballast).unwrap();
    terminal.expect("job 1: big is in ");
    assert!(same_content(&big, &disk.path().join("big")));
}

#[test]
fn a_service_works_the_queue_off_from_before_the_first_tracker_until_its_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 2);
    let (one, big) = (sample(dir.path(), "one", 1_000), sample(dir.path(), "big", 60_000_000));
    let start = |store: &Store| {
        let mut command = store.dfs("ann", &["--headless"]);
        let log = std::fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    };
    let said = |words: &str| std::fs::read_to_string(dir.path().join("log")).unwrap().contains(words);
    store.ok(&["put", "--queue", one.to_str().unwrap()]);
    store.trackers.kill(1);
    let mut service = start(&store);
    until("it says that it waits", || said("waits for one"));
    store.trackers.restart(1);
    until("the job is done", || said("job 1: one is stored"));
    let before = store.chunks(1).len();
    // One node takes nothing, so that the job cannot be done before the service is killed.
    store.freeze(2, true);
    store.ok(&["put", "--queue", big.to_str().unwrap()]);
    until("some of it is stored", || store.chunks(1).len() > before);
    service.kill().unwrap();
    service.wait().unwrap();
    store.freeze(2, false);
    let mut service = start(&store);
    until("the next one continues", || said("job 2: big is stored"));
    let changed = finish(&mut store.dfs("ann", &["--json", "change_password"]), "another-4711\n");
    assert!(changed.stdout.contains("\"ok\":true"), "{changed:?}");
    assert_eq!(service.wait().unwrap().code(), Some(1));
    assert!(said("the session was ended"));
}

#[test]
fn a_queue_that_cannot_be_kept_stands_in_the_way_of_no_other_command() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let file = sample(dir.path(), "one", 1_000);
    let folder = dir.path().join("dfs-state/queue");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(dir.path().join("dfs-state")).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    store.ok(&["put", file.to_str().unwrap()]);
    assert_eq!(names(&store), ["one"]);
    let refused = store.refused(&["put", "--queue", file.to_str().unwrap()]);
    assert!(refused.contains("nothing was queued") && refused.contains("dfs-state/queue"), "{refused}");
}
