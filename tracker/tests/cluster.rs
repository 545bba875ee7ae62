//! Two real trackers and hand-made clients: what one acknowledged the other shows, one alone is enough, and a tracker
//! that was away, or blank, catches up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use common::{Client, free_ports, group, in_sync, start, until, user};
use shoal_common::RequestId;
use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_tracker::tracker::Tracker;

async fn members(client: &mut Client, name: &str) -> Vec<String> {
    match client.ok(Call::ListMembers { group: group(name), after: None }).await {
        Answer::Users { users, .. } => users.into_iter().map(|user| user.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

async fn groups(client: &mut Client) -> Vec<(String, bool)> {
    match client.ok(Call::ListGroups { after: None }).await {
        Answer::Groups { groups, .. } => {
            groups.into_iter().map(|group| (group.name.to_string(), group.provisional)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A name that both trackers voted for. Where the disk or the machine is busy, one may be disconnected for a moment, and what
/// is created then is provisional; so more than one is tried.
async fn definite(trackers: [&Tracker; 2], stem: &str, mut create: impl AsyncFnMut(&str) -> bool) -> String {
    for number in 0..20 {
        in_sync(trackers[0], 1).await;
        in_sync(trackers[1], 1).await;
        let name = format!("{stem}{number}");
        if !create(&name).await {
            return name;
        }
    }
    panic!("with both trackers connected every name is provisional");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_tracker_acknowledged_the_other_shows_at_once() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    let mut alice = Client::connect(ports[0]).await;
    let mut bob = Client::connect(ports[1]).await;
    let owner = definite([&one, &two], "alice", async |name| alice.create_user(name, "a").await.1).await;
    alice.login(&owner, "a").await.unwrap();
    let g = definite([&one, &two], "g", async |name| alice.found(name).await.1).await;
    assert!(groups(&mut bob).await.iter().any(|(name, _)| *name == g));
    // Bob's tracker calls it definite once another one is known to hold its own vote.
    until("the group is definite", async || groups(&mut bob).await.contains(&(g.clone(), false))).await;
    assert_eq!(bob.login(&owner, "wrong").await.unwrap_err().kind, RefusalKind::WrongPassword);
    bob.enter("bob").await;

    bob.ok(Call::JoinGroup { request: RequestId::random(), group: group(&g) }).await;
    let requests = alice.ok(Call::ListRequests { group: group(&g), after: None }).await;
    assert!(matches!(requests, Answer::Users { users, .. } if users[0].name == user("bob")));
    let request = RequestId::random();
    let decide = Call::Decide { request, group: group(&g), user: user("bob"), accept: true };
    alice.ok(decide.clone()).await;
    assert_eq!(members(&mut bob, &g).await, [owner.as_str(), "bob"]);
    // The same request again, as a client carries it to another tracker, answers as it did.
    alice.ok(decide).await;
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tracker_alone_reads_and_writes_and_the_other_catches_up() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start(dir.path(), &ports, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    let (_, provisional) = alice.create_user("alice", "a").await;
    assert!(provisional, "one of two trackers is no majority");
    alice.login("alice", "a").await.unwrap();
    alice.create_group("alone").await;

    let two = start(dir.path(), &ports, 2).await;
    in_sync(&two, 1).await;
    let mut stranger = Client::connect(ports[1]).await;
    until("the name is settled", async || one.status().await.unwrap().members[0].in_sync).await;
    alice.close().await;
    one.shutdown().await;
    assert_eq!(groups(&mut stranger).await.iter().map(|g| g.0.as_str()).collect::<Vec<_>>(), ["alone"]);
    let session = stranger.login("alice", "a").await.unwrap();
    assert_eq!(session.tickets.len(), 1);

    // A blank replacement gets everything from the survivor.
    std::fs::remove_dir_all(dir.path().join("1")).unwrap();
    let one = start(dir.path(), &ports, 1).await;
    let key = one.peer_id();
    until("its new key is seen", async || {
        let said = two.accept_tracker(1, None).await.unwrap_err().to_string();
        said.contains(&format!("accept-tracker 1 {key}"))
    })
    .await;
    assert_eq!(two.accept_tracker(1, Some(key)).await.unwrap(), key);
    in_sync(&one, 1).await;
    let mut again = Client::connect(ports[0]).await;
    assert_eq!(groups(&mut again).await.len(), 1);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_partitioned_creations_of_one_name_both_live_on() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start(dir.path(), &ports, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    alice.create_user("sam", "first").await;
    alice.login("sam", "first").await.unwrap();
    alice.create_group("firsts").await;
    alice.close().await;
    one.shutdown().await;

    let two = start(dir.path(), &ports, 2).await;
    let mut bob = Client::connect(ports[1]).await;
    bob.create_user("sam", "second").await;
    bob.login("sam", "second").await.unwrap();
    bob.create_group("seconds").await;

    let one = start(dir.path(), &ports, 1).await;
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut first = Client::connect(ports[0]).await;
    let session = first.login("sam", "first").await.unwrap();
    assert_eq!(session.name.as_str(), "sam");
    assert_eq!(session.tickets[0].name.as_str(), "firsts");
    let mut second = Client::connect(ports[0]).await;
    let session = second.login("sam", "second").await.unwrap();
    let renamed = session.name.clone();
    assert!(renamed.is_renamed() && renamed.base() == user("sam"), "{renamed}");
    assert_eq!(session.tickets[0].name.as_str(), "seconds");
    // The new name works as a name too.
    let mut third = Client::connect(ports[0]).await;
    assert_eq!(third.login(renamed.as_str(), "second").await.unwrap().user, session.user);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_at_another_tracker_and_on_no_other_client() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    let session = alice.enter("alice").await;
    let id = alice.identity.clone();
    let mut moved = Client::connect_as(id, ports[1]).await;
    let resumed = moved.ok(Call::Resume { token: session.token.clone() }).await;
    assert!(matches!(resumed, Answer::LoggedIn(again) if again.user == session.user));
    let mut thief = Client::connect(ports[1]).await;
    assert_eq!(thief.refused(Call::Resume { token: session.token }).await.kind, RefusalKind::NotLoggedIn);
    let create = Call::create_group(session.user, group("x")).1;
    assert_eq!(thief.refused(create).await.kind, RefusalKind::NotLoggedIn);
    one.shutdown().await;
    two.shutdown().await;
}
