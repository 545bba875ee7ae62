//! Who is a tracker is known before it is believed: impostors at trackers' addresses, keys that change, and what it takes
//! to have another key believed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shoal_common::storage::ChunkId;
use shoal_common::tracker_api::storage::{Order, OwnedChunk};
use shoal_net::Identity;
use shoal_tests::{Client, Impostor, Member, Store, Trackers, finish, random_file, tracker_command, until};

/// What a client remembers of the trackers' keys.
fn pins(client: &Client) -> String {
    std::fs::read_to_string(client.data().join("known_trackers")).unwrap_or_default()
}

/// Waits until the client knows that many trackers' keys.
fn until_known(client: &Client, count: usize) {
    let known = |text: &str| text.lines().filter(|line| line.starts_with("127.0.0.1:")).count();
    until("the client knows the trackers", || known(&pins(client)) == count);
}

/// Waits until the client complained of a tracker in these words.
fn until_complaint(client: &mut Client, words: &str) -> String {
    let mut found = String::new();
    until(&format!("the client says {words:?}"), || {
        let _ = client.run("whoami");
        let mut reasons = client.events().iter().filter_map(|event| event["reason"].as_str());
        found = reasons.find(|reason| reason.contains(words)).unwrap_or_default().to_owned();
        !found.is_empty()
    });
    found
}

/// The trackers' file with each one's peer id.
fn name_all(trackers: &Trackers) {
    let line = |number| format!("{} {}", trackers.address(number), trackers.peer_id(number));
    trackers.write_info(&(1..=trackers.count()).map(line).collect::<Vec<_>>());
}

/// Takes a tracker's disk away and starts it again, with another key.
fn replace(trackers: &mut Trackers, number: usize) {
    trackers.kill(number);
    std::fs::remove_dir_all(trackers.data(number)).unwrap();
    trackers.restart(number);
}

#[test]
fn a_client_says_nothing_to_an_impostor_at_a_down_trackers_address_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    // The second is vouched for by the first, which wrote so after their link stood.
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    until_known(&ann, 2);
    let known = ann.events().iter().filter(|event| event["event"] == "tracker_known").count();
    assert_eq!(known, 1, "{:?}", ann.events());
    let mode = std::fs::metadata(ann.data().join("known_trackers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    trackers.kill(2);
    let impostor = Impostor::start(trackers.address(2), Identity::generate(), vec![]);
    trackers.kill(1);
    let complaint = until_complaint(&mut ann, "shows another key than before");
    assert!(complaint.contains("known_trackers") && complaint.contains("tracker_info.txt"), "{complaint}");
    assert!(ann.log().contains(&format!("the tracker at {} shows another key", trackers.address(2))));
    trackers.restart(1);
    assert_eq!(ann.ok("whoami")["user"], "ann");
    assert_eq!(ann.ok("list_groups")["groups"][0]["group"], "g");
    assert_eq!(impostor.heard(), Vec::<String>::new());
}

#[test]
fn a_key_is_pinned_at_the_first_contact_and_learnt_again_once_its_line_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    let known = ann.until_event("tracker_known");
    assert_eq!(known["key"], trackers.peer_id(1).as_str());
    let (stopped, _) = ann.quit();
    let mut ann = stopped.restart();
    ann.ok("login ann secret");
    assert!(ann.events().iter().all(|event| event["event"] != "tracker_known"), "it is said once");
    replace(&mut trackers, 1);
    until_complaint(&mut ann, "shows another key than before");
    let error = ann.fails("list_groups");
    assert!(error.contains("shows another key than before") && error.contains("known_trackers"), "{error}");
    // What it says is done while it runs.
    std::fs::remove_file(ann.data().join("known_trackers")).unwrap();
    until("the new key is learnt", || pins(&ann).contains(&trackers.peer_id(1)));
    ann.ok("list_groups");
}

#[test]
fn a_replaced_tracker_is_believed_by_clients_once_the_others_vouch_for_its_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 3);
    trackers.until_in_step();
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    until_known(&ann, 3);
    replace(&mut trackers, 2);
    trackers.accept(1, 2);
    // One of two others is not most of them: the client does not follow.
    trackers.kill(1);
    ann.ok("list_groups");
    assert!(!pins(&ann).contains(&trackers.peer_id(2)), "{}", pins(&ann));
    trackers.restart(1);
    trackers.accept(3, 2);
    trackers.until_in_step();
    // Its next connection is with the first again, or with the third.
    until("the others' word has come", || {
        trackers.kill(3);
        trackers.restart(3);
        trackers.until_in_step();
        let _ = ann.run("list_groups");
        trackers.kill(1);
        trackers.restart(1);
        trackers.until_in_step();
        let _ = ann.run("list_groups");
        pins(&ann).contains(&trackers.peer_id(2))
    });
    trackers.kill(1);
    trackers.kill(3);
    assert_eq!(ann.ok("list_groups")["groups"][0]["group"], "g");
    let whoami = ann.ok("whoami");
    assert_eq!(
        (&whoami["user"], &whoami["tracker"]),
        (&"ann".into(), &trackers.address(2).to_string().into())
    );
}

#[test]
fn a_peer_id_in_the_file_overrides_what_was_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let (stopped, _) = Client::enter(dir.path(), "ann", &trackers.info()).quit();
    let old = trackers.peer_id(1);
    replace(&mut trackers, 1);
    name_all(&trackers);
    let mut ann = stopped.restart();
    ann.ok("list_groups");
    let pinned = format!("{} {}\n", trackers.address(1), trackers.peer_id(1));
    assert!(pins(&ann).contains(&pinned), "{}", pins(&ann));
    let (stopped, _) = ann.quit();
    trackers.write_info(&[format!("{} {old}", trackers.address(1))]);
    let mut ann = stopped.restart();
    let error = ann.fails("list_groups");
    assert!(error.contains("answers with another key"), "{error}");
}

#[test]
fn a_trackers_line_with_its_peer_id_is_printed_before_and_when_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 2);
    let line = |number: usize| {
        let mut command = tracker_command(&trackers.info(), number, &trackers.data(number));
        let printed = finish(command.arg("--id"), "");
        assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""), "{printed:?}");
        printed.stdout.trim_end().to_owned()
    };
    let lines = vec![line(1), line(2)];
    assert_eq!(line(1), lines[0]);
    trackers.write_info(&lines);
    trackers.restart(1);
    trackers.restart(2);
    trackers.until_in_step();
    for number in [1, 2] {
        let [host, port, key] = lines[number - 1].split(' ').collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(format!("{host}:{port}"), trackers.address(number).to_string());
        assert_eq!(key, trackers.peer_id(number));
        until("it is in the log", || trackers.logged(number, &lines[number - 1]) == 1);
    }
}

#[test]
fn trackers_say_nothing_to_an_impostor_and_link_with_a_replacement_once_their_operator_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    trackers.kill(2);
    let impostor = Impostor::start(trackers.address(2), Identity::generate(), vec![]);
    until("the other key is seen", || trackers.status(1)["members"][1]["refused"].is_string());
    assert!(trackers.logged(1, "type accept-tracker 2 12D3") == 1, "{}", trackers.log(1));
    // An operator who does not say which key is shown that one, and nothing is believed of it.
    let shown = trackers.status(1)["members"][1]["refused"].as_str().unwrap().to_owned();
    trackers.say(1, "accept-tracker 2");
    until("it asks for the key", || trackers.log(1).contains(&format!("type: accept-tracker 2 {shown}")));
    assert_eq!(trackers.logged(1, "its operator says so"), 0);
    // Nor when it is started again.
    assert!(trackers.stop(1));
    trackers.restart(1);
    until("the other key is seen", || trackers.status(1)["members"][1]["refused"].is_string());
    assert_eq!((impostor.heard(), &trackers.status(1)["members"][1]["up"]), (vec![], &false.into()));
    drop(impostor);
    // A blank one with a new key in its place is another matter, once the operator says so.
    std::fs::remove_dir_all(trackers.data(2)).unwrap();
    trackers.restart(2);
    until("it knows nothing yet", || trackers.status(2)["users"] == 0);
    let advice = format!("type accept-tracker 2 {} there", trackers.peer_id(2));
    until("it says what to do", || trackers.logged(2, &advice) == 1);
    trackers.accept(1, 2);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(2));
    ann.login("ann", "secret").unwrap();
}

#[test]
fn a_storage_node_takes_no_orders_from_an_impostor() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::start(dir.path(), 2, 3);
    let file = dir.path().join("f");
    random_file(&file, 300_000, 3);
    store.ok(&["put", file.to_str().unwrap()]);
    until("the node knows both", || known_to(&store.data(1)) == 2);
    let owner = Member::connect(store.trackers.port(1)).login("ann", "secret").unwrap().user;
    let chunks = store.chunks(1);
    assert!(!chunks.is_empty());
    let order = |path: &PathBuf| {
        let chunk = ChunkId::of(&std::fs::read(path).unwrap());
        Order::Delete { chunk: OwnedChunk { owner, chunk }, min_age_ms: 0 }
    };
    let orders = chunks.iter().map(order).collect();
    store.trackers.kill(2);
    let impostor = Impostor::start(store.trackers.address(2), Identity::generate(), orders);
    until("the node sees another key", || store.log(1).contains("a tracker is not believed"));
    // Nor when it is started again.
    store.kill(1);
    store.restart(1);
    store.until_up(3);
    until("the node sees another key", || store.log(1).matches("a tracker is not believed").count() > 1);
    assert_eq!((impostor.heard(), store.chunks(1).len()), (vec![], chunks.len()));
    store.ok(&["get", "f", "-o", dir.path().join("g").to_str().unwrap()]);
}

fn known_to(folder: &Path) -> usize {
    let text = std::fs::read_to_string(folder.join("known_trackers")).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("127.0.0.1:")).count()
}
