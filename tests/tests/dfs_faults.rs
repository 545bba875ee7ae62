//! The encrypted store where things go wrong: puts killed a hundred times, several servers lost, new keys, strangers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use shoal_common::storage::ChunkId;
use shoal_common::tracker_api::storage::{StoreAnswer, StoreCall};
use shoal_common::tracker_api::{Answer, Call};
use shoal_dfs::connection::{NodeConnection, RequestError};
use shoal_tests::{Member, Store, files_below, random_file, same_content, until};
use tokio_util::task::TaskTracker;

fn sample(dir: &Path, name: &str, size: usize, seed: u64) -> PathBuf {
    let path = dir.join(name);
    random_file(&path, size, seed);
    path
}

/// Fetches a stored file of that name, and compares it.
fn fetched(store: &Store, dir: &Path, name: &str, original: &Path) {
    let to = tempfile::tempdir_in(dir).unwrap();
    store.ok(&["get", name, "-o", to.path().to_str().unwrap()]);
    assert!(same_content(original, &to.path().join(name)), "{name} came back different");
}

fn chunks_of(put: &Value) -> usize {
    usize::try_from(put["files"][0]["chunks"].as_u64().unwrap()).unwrap()
}

fn listed(store: &Store) -> Vec<String> {
    let files = store.ok(&["list"])["files"].as_array().unwrap().clone();
    files.iter().map(|file| file["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_hundred_killed_puts_list_nothing_half_and_leave_no_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let at_once = ["--min-age", "1s", "--keep-deleted", "1s", "--daily-deletions", "100"];
    let mut store = Store::start_with(dir.path(), (1, 4), &["--grace", "1s"], &at_once, &[]);
    let seed = std::env::var("SHOAL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("SHOAL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let file = sample(dir.path(), "f", 3_000_000, seed);
    let chunks = chunks_of(&store.ok(&["put", file.to_str().unwrap()]));
    let mut ended = vec!["f".to_owned()];
    for number in 0..100 {
        let name = format!("f{number}");
        let path = dir.path().join(&name);
        std::fs::hard_link(&file, &path).unwrap();
        let mut command = store.dfs("ann", &["put", path.to_str().unwrap()]);
        let mut put =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Killed at any moment: the time is the fault.
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
        if put.try_wait().unwrap().is_some_and(|status| status.success()) {
            ended.push(name);
        }
        put.kill().unwrap();
        put.wait().unwrap();
    }
    // One that was killed after its version was recorded is stored all the same: it has to be whole.
    let stored = listed(&store);
    assert!(ended.iter().all(|name| stored.contains(name)), "{ended:?} in {stored:?}");
    assert!(stored.len() < 100, "none was killed in the middle");
    for name in stored.iter().rev().take(5) {
        fetched(&store, dir.path(), name, &file);
    }
    // The leases of the killed ones end with the tracker; that it began blank keeps everything until an operator speaks.
    assert!(store.trackers.stop(1));
    store.trackers.restart(1);
    store.until_up(4);
    store.trackers.say(1, "allow-deletions");
    let held = |store: &Store| (1..=4).map(|node| store.chunks(node).len()).sum::<usize>();
    until("no garbage is left", || held(&store) == stored.len() * chunks * 2);
    // What was begun can still be ended.
    let left = (0..100).map(|number| format!("f{number}")).find(|name| !stored.contains(name)).unwrap();
    store.ok(&["put", dir.path().join(&left).to_str().unwrap()]);
    fetched(&store, dir.path(), &left, &file);
    fetched(&store, dir.path(), "f", &file);
}

#[test]
fn who_reads_while_a_new_version_is_put_gets_one_or_the_other_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let [old, new] = [("old", 24_000_000, 1), ("new", 23_000_000, 2)].map(|(folder, size, seed)| {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        sample(&dir.path().join(folder), "doc", size, seed)
    });
    store.ok(&["put", old.to_str().unwrap()]);
    for round in 0..6 {
        let to = dir.path().join(format!("to-{round}"));
        std::fs::create_dir(&to).unwrap();
        let mut command = store.dfs("ann", &["--json", "get", "doc", "-o", to.to_str().unwrap()]);
        let get = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it reads", || !files_below(&to).is_empty());
        let put = [&new, &old][round % 2];
        store.ok(&["put", put.to_str().unwrap()]);
        let output = get.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let got = to.join("doc");
        assert!(same_content(&old, &got) || same_content(&new, &got), "round {round}: a mixture");
        assert_eq!(files_below(&to), [got], "round {round}");
    }
}

#[test]
fn of_three_copies_any_two_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 5_000_000, 3);
    let put = store.ok(&["put", file.to_str().unwrap(), "--copies", "3"]);
    let chunks = chunks_of(&put);
    for (one, other) in [(1, 2), (3, 4), (1, 3), (2, 4), (1, 4), (2, 3)] {
        store.kill(one);
        store.kill(other);
        fetched(&store, dir.path(), "f", &file);
        store.restart(one);
        store.restart(other);
        store.until_up(4);
    }
    // Nothing was copied twice meanwhile.
    store.until_repaired();
    assert_eq!((1..=4).map(|node| store.chunks(node).len()).sum::<usize>(), chunks * 3);
}

#[test]
fn a_server_that_lost_disk_and_key_is_filled_again_under_its_new_one() {
    let dir = tempfile::tempdir().unwrap();
    // It is back long before its copies are made elsewhere.
    let mut store = Store::start_with(dir.path(), (2, 4), &["--repair-after", "30s"], &[], &[]);
    let file = sample(dir.path(), "f", 9_000_000, 4);
    store.ok(&["put", file.to_str().unwrap()]);
    let before = store.chunks(2).len();
    store.kill(2);
    std::fs::remove_dir_all(store.data(2)).unwrap();
    store.restart(2);
    store.until_up(4);
    // A tracker that has not heard of its new key yet knows of no missing copy.
    until("it is filled again", || store.chunks(2).len() == before);
    store.until_repaired();
    for lost in [1, 3, 4] {
        store.kill(lost);
        fetched(&store, dir.path(), "f", &file);
        store.restart(lost);
        store.until_up(4);
    }
}

#[test]
fn a_strangers_ticket_neither_reads_nor_deletes_and_a_copied_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "f", 1_000_000, 6);
    store.ok(&["put", file.to_str().unwrap()]);
    let ticket = |member: &mut Member| match member.done(Call::Store(StoreCall::Ticket)) {
        Answer::Store(StoreAnswer::Ticket { ticket, .. }) => ticket,
        other => panic!("{other:?}"),
    };
    let mut ann = Member::connect(store.trackers.port(1));
    ann.login("ann", "secret").unwrap();
    let mut eve = Member::connect(store.trackers.port(1));
    eve.enter("eve");
    let nodes = match eve.done(Call::Store(StoreCall::Nodes)) {
        Answer::Store(StoreAnswer::Nodes(nodes)) => nodes,
        other => panic!("{other:?}"),
    };
    let node = nodes.iter().find(|node| node.name.as_str() == "DFS1").unwrap();
    let held = store.chunks(1);
    let (path, tasks) = (held.first().unwrap(), TaskTracker::new());
    let length = u32::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
    let chunk = ChunkId::of(&std::fs::read(path).unwrap());
    let ask = |member: &Member, shown: Vec<u8>| {
        let address = node.address.parse().unwrap();
        member.handle().block_on(async {
            let connection =
                NodeConnection::connect(address, node.peer, member.identity(), &tasks).await.unwrap();
            connection.show(shown).await?;
            let read = connection.fetch(chunk, length, None, None).await;
            let holds = connection.holds(vec![chunk]).await?;
            let _ = connection.delete(vec![chunk], None).await;
            Ok::<_, RequestError>((read.is_ok(), holds))
        })
    };
    let (anns, eves) = (ticket(&mut ann), ticket(&mut eve));
    assert_eq!(ask(&eve, eves).unwrap(), (false, vec![false]));
    assert!(matches!(ask(&eve, anns.clone()), Err(RequestError::Refused { .. })));
    assert!(ask(&eve, b"made up".to_vec()).is_err());
    assert!(path.is_file(), "a stranger deleted it");
    // Its owner may read it; a ticket alone, which a tracker could make up, deletes nothing.
    assert_eq!(ask(&ann, anns).unwrap(), (true, vec![true]));
    assert!(!store.log(1).contains("out of the bin"), "it never was in the bin");
    assert!(path.is_file());
    fetched(&store, dir.path(), "f", &file);
    store.ok(&["rm", "f"]);
    until("its owner deleted it", || !path.is_file());
}

#[test]
fn what_a_killed_get_left_does_not_stand_in_the_way_of_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 4);
    let file = sample(dir.path(), "doc", 60_000_000, 7);
    store.ok(&["put", file.to_str().unwrap()]);
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let mut command = store.dfs("ann", &["get", "doc", "-o", to.to_str().unwrap()]);
    let mut get = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it reads", || files_below(&to).len() > 1);
    get.kill().unwrap();
    get.wait().unwrap();
    random_file(&file, 5_000_000, 8);
    store.ok(&["put", file.to_str().unwrap()]);
    store.ok(&["get", "doc", "-o", to.to_str().unwrap()]);
    assert!(same_content(&file, &to.join("doc")));
    assert_eq!(files_below(&to), [to.join("doc")]);
}

#[test]
fn of_several_files_those_that_can_be_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let (a, c) = (sample(dir.path(), "a", 1_000, 1), sample(dir.path(), "c", 1_000, 2));
    let error = store.refused(&["put", a.to_str().unwrap(), "/nowhere/b", c.to_str().unwrap()]);
    assert!(error.contains("only these were stored: a, c") && error.contains("/nowhere/b"), "{error}");
    assert_eq!(listed(&store), ["a", "c"]);
}

#[test]
fn a_tracker_that_no_node_talks_to_says_so_and_calls_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start_with(dir.path(), (2, 2), &["--repair-after", "1s"], &[], &[]);
    let file = sample(dir.path(), "f", 1_000_000, 9);
    store.ok(&["put", file.to_str().unwrap()]);
    store.kill(1);
    store.kill(2);
    // The other tracker heard what they held, and misses it.
    until("it is missed", || store.trackers.status(1)["store"]["lost_chunks"].as_u64() > Some(0));
    store.trackers.kill(2);
    store.trackers.restart(2);
    store.trackers.until_in_step();
    until("it has the records", || store.trackers.status(2)["store"]["files"] == 1);
    store.trackers.say(2, "status");
    until("it says so", || store.trackers.said(2).contains("NO STORAGE NODE REPORTS TO THIS TRACKER"));
    until("a node that is away for longer counts as lost", || {
        let status = store.trackers.status(2);
        status["store"]["unheard"] == true && status["uptime_s"].as_u64() > Some(3)
    });
    assert_eq!(store.trackers.status(2)["store"]["lost_chunks"], 0);
    store.restart(1);
    store.restart(2);
    store.until_repaired();
    assert_eq!(store.trackers.status(2)["store"]["unheard"], false);
}

#[test]
fn two_nodes_do_not_keep_their_chunks_in_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let mut command = std::process::Command::new(shoal_tests::binary("dfs-server"));
    let port = shoal_tests::free_port().to_string();
    command
        .args([&port, "--bind", "127.0.0.1", "--name", "THIEF"])
        .arg("--trackers")
        .arg(store.trackers.info());
    command.arg("--join-secret").arg(shoal_tests::node_secret(dir.path()));
    command.arg("--data-dir").arg(dir.path().join("thief")).arg("--store").arg(store.data(1).join("chunks"));
    let finished = shoal_tests::finish(&mut command, "");
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("each node needs one of its own (--store)"), "{finished:?}");
}

#[test]
fn lines_that_are_no_commands_are_answered_in_json_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(dir.path(), 1, 2);
    let script = "bogus\nlist x\nget \"unclosed\nlist\nexit\n";
    let finished = shoal_tests::finish(&mut store.dfs("ann", &["--json"]), script);
    let objects: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, bool)> = objects
        .iter()
        .filter_map(|object| Some((object["command"].as_str()?, object["ok"].as_bool()?)))
        .collect();
    assert_eq!(told, [("bogus", false), ("list", false), ("get", false), ("list", true)], "{finished:?}");
    assert_eq!(finished.code, Some(1));
}
