//! One of three trackers lies: a hand-made one, let in like any other, against real ones over real sockets. Whatever it
//! says, it removes nothing, stops no one, poisons no time, and holds nothing up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use std::time::{Duration, Instant};

use common::liar::{Liar, Link, Manner, rand_writer_id};
use common::{Client, free_ports, in_sync, start, until};
use shoal_common::tracker_api::{Answer, Call};
use shoal_replica::{
    Bounds, Config, Entry, Frame, Kind, Live, NameSpace, Now, Pull, Replica, Row, Stamp, TrackerNo, Write,
    WriterId, decision_key,
};
use shoal_tracker::clock;
use shoal_tracker::store::Store;
use shoal_tracker::tracker::Tracker;

const DAY_MS: i64 = 24 * 3_600_000;

/// Two honest trackers in step, who hold `groups` groups of one user, and a third one's port at which the liar starts.
struct Cluster {
    dir: tempfile::TempDir,
    ports: Vec<u16>,
    one: Tracker,
    two: Tracker,
    alice: Client,
    liar: Liar,
}

async fn cluster(groups: usize) -> Cluster {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(3));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    alice.enter("alice").await;
    for number in 0..groups {
        alice.create_group(&format!("g{number}")).await;
    }
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let liar = Liar::start(ports[2]).await;
    Cluster { dir, ports, one, two, alice, liar }
}

async fn groups(port: u16) -> usize {
    let mut client = Client::connect(port).await;
    let (mut count, mut after) = (0, None);
    loop {
        let Answer::Groups { groups, more } = client.ok(Call::ListGroups { after }).await else {
            panic!("no list")
        };
        count += groups.len();
        after = groups.last().map(|group| group.name.clone()).filter(|_| more);
        if after.is_none() {
            client.close().await;
            return count;
        }
    }
}

async fn alarms_of(tracker: &Tracker, word: &str) {
    until(word, async || {
        let status = tracker.status().await.unwrap();
        status.last_alarms.iter().any(|alarm| alarm.contains(word))
    })
    .await;
}

/// Both still answer, take writes, and come into step.
async fn go_on(cluster: &mut Cluster, name: &str) {
    let before = groups(cluster.ports[0]).await;
    cluster.alice.create_group(name).await;
    until("both have the new group", async || {
        groups(cluster.ports[0]).await == before + 1 && groups(cluster.ports[1]).await == before + 1
    })
    .await;
    in_sync(&cluster.one, 1).await;
    in_sync(&cluster.two, 1).await;
}

/// Restarts both. What a tracker wrote since its start it does not give up, whatever another one says.
async fn restart(cluster: Cluster) -> Cluster {
    let Cluster { dir, ports, one, two, alice, liar } = cluster;
    alice.close().await;
    one.shutdown().await;
    two.shutdown().await;
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    let mut alice = Client::connect(ports[0]).await;
    alice.login("alice", "secret").await.unwrap();
    Cluster { dir, ports, one, two, alice, liar }
}

async fn close(cluster: Cluster) {
    cluster.one.shutdown().await;
    cluster.two.shutdown().await;
}

/// Makes a tracker compare everything with the liar, which claims to hold all that the tracker does.
async fn demand_a_fresh_round(link: &Link) {
    link.its_writer_id().await;
    common::until_heard(|| Some(link.its_vector()).filter(|vector| !vector.is_empty())).await;
    let own = link.its_writer_id().await;
    let others = link.its_vector().into_iter().filter(|entry| entry.writer != own);
    link.say(Frame::Vector(others.collect()));
    link.say(Frame::Vector(link.its_vector()));
    let made_up = Entry { writer: WriterId(rand_writer_id()), seq: 5 };
    link.say(Frame::GcWatermark { entries: vec![made_up], dropped: Stamp::at_ms(1) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_floor_removes_nothing_anywhere() {
    let mut cluster = restart(cluster(12).await).await;
    let first = cluster.liar.link(cluster.ports[0], 1, 0).await;
    demand_a_fresh_round(&first).await;
    alarms_of(&cluster.one, "would have been removed").await;
    let second = cluster.liar.link(cluster.ports[1], 2, 0).await;
    demand_a_fresh_round(&second).await;
    alarms_of(&cluster.two, "would have been removed").await;
    for port in [cluster.ports[0], cluster.ports[1]] {
        assert_eq!(groups(port).await, 12);
    }
    let report = cluster.one.report().await.unwrap();
    assert!(report.text().contains("allow-removal 3"), "{}", report.text());
    go_on(&mut cluster, "after").await;
    assert!(!cluster.one.allow_removal(2).await.unwrap(), "no removal by tracker 2 is held back");
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_else_to_ask_no_more_than_a_small_part_is_removed() {
    let mut cluster = cluster(150).await;
    cluster.two.shutdown().await;
    // What it wrote since its start it does not give up, whatever another one says.
    cluster.one.shutdown().await;
    cluster.one = start(cluster.dir.path(), &cluster.ports, 1).await;
    let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
    demand_a_fresh_round(&link).await;
    alarms_of(&cluster.one, "would have been removed").await;
    assert_eq!(groups(cluster.ports[0]).await, 150);
    // An operator may decide otherwise.
    assert!(cluster.one.allow_removal(3).await.unwrap());
    until("what the operator allowed is done", async || groups(cluster.ports[0]).await == 0).await;
    cluster.one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_over_ones_own_rows_stops_nobody() {
    let mut cluster = cluster(3).await;
    for (port, number) in [(cluster.ports[0], 1), (cluster.ports[1], 2)] {
        let link = cluster.liar.link(port, number, 0).await;
        let own = link.its_writer_id().await;
        link.say(Frame::Vector(vec![Entry { writer: own, seq: (1 << 62) + 1 }]));
        link.say(Frame::Ack { ids: vec![1], held: (1 << 62) + 1 });
    }
    alarms_of(&cluster.one, "what it did not write").await;
    alarms_of(&cluster.two, "what it did not write").await;
    go_on(&mut cluster, "after").await;
    // The same about the other one: a tracker that receives this passes it on to no one.
    let to_two = cluster.liar.link(cluster.ports[1], 2, 0).await;
    let to_one = cluster.liar.link(cluster.ports[0], 1, 0).await;
    let own = to_one.its_writer_id().await;
    to_two.say(Frame::Vector(vec![Entry { writer: own, seq: (1 << 62) + 1 }]));
    to_two.its_writer_id().await;
    go_on(&mut cluster, "later").await;
    // Nor where the one that it is about is away.
    cluster.one.shutdown().await;
    to_two.say(Frame::Vector(vec![Entry { writer: own, seq: (1 << 62) + 2 }]));
    cluster.one = start(cluster.dir.path(), &cluster.ports, 1).await;
    cluster.alice = Client::connect(cluster.ports[0]).await;
    cluster.alice.login("alice", "secret").await.unwrap();
    go_on(&mut cluster, "last").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_times_are_refused() {
    let mut cluster = cluster(3).await;
    for stamp in [Stamp::MAX, Stamp::at_ms(u64::MAX >> 20)] {
        let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
        link.its_writer_id().await;
        link.say(Frame::GcWatermark { entries: Vec::new(), dropped: Stamp::MAX });
        let row = Row {
            kind: Kind(200),
            key: b"poison".to_vec(),
            stamp,
            writer: cluster.liar.writer,
            seq: 1,
            born: stamp,
            tombstone: false,
            value: b"for ever".to_vec(),
            blobs: Vec::new(),
        };
        link.say(Frame::Live(Live { id: 1, from: 0, to: 1, rows: vec![row] }));
        until("the link is refused", async || !link.is_up()).await;
    }
    alarms_of(&cluster.one, "impossible time").await;
    let kinds = cluster.one.report().await.unwrap().records_by_kind;
    assert!(kinds.iter().all(|(kind, _)| *kind != 200), "{kinds:?}");
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_name_from_before_the_cluster_began_changes_no_holder() {
    let mut cluster = cluster(1).await;
    for early in [Stamp::default(), Stamp::at_ms(1_600_000_000_000)] {
        let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
        link.its_writer_id().await;
        let row = Row {
            kind: NameSpace::Group.decision_kind(),
            key: decision_key(b"g0"),
            stamp: early,
            writer: cluster.liar.writer,
            seq: 1,
            born: early,
            tombstone: false,
            value: vec![9; 16],
            blobs: Vec::new(),
        };
        link.say(Frame::Live(Live { id: 1, from: 0, to: 1, rows: vec![row] }));
        until("the link is refused", async || !link.is_up()).await;
    }
    alarms_of(&cluster.one, "impossible time").await;
    for port in [cluster.ports[0], cluster.ports[1]] {
        let mut client = Client::connect(port).await;
        let Answer::Groups { groups, .. } = client.ok(Call::ListGroups { after: None }).await else {
            panic!("no list")
        };
        assert!(groups.iter().any(|group| group.name.as_str() == "g0"), "{groups:?}");
        client.close().await;
    }
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_whose_clock_is_weeks_off_is_told_so_and_not_linked_with() {
    let mut cluster = cluster(1).await;
    let link = cluster.liar.link(cluster.ports[0], 1, 20 * DAY_MS).await;
    until("the link is refused", async || !link.is_up()).await;
    alarms_of(&cluster.one, "set the wrong one").await;
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_far_ahead_wrote_reaches_the_others_after_restamp() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let (one, two) = (start(dir.path(), &ports, 1).await, start(dir.path(), &ports, 2).await);
    in_sync(&one, 1).await;
    one.shutdown().await;
    {
        // For a while its clock is a year ahead.
        let mut store = Store::open(&dir.path().join("1")).unwrap();
        let (configured, bounds) = (vec![TrackerNo(1), TrackerNo(2)], Bounds::default());
        let (writer, cluster) = (WriterId(rand_writer_id()), *b"shoal tracker  1");
        let config = Config { me: TrackerNo(1), configured, writer, cluster, bounds };
        let wall_ms = clock::wall_ms().saturating_add_signed(365 * DAY_MS);
        let now = Now { wall_ms, mono_ms: 0 };
        store.begin().unwrap();
        let mut replica = Replica::open(&mut store, config, now).unwrap();
        let write = Write { kind: Kind(200), key: b"k".to_vec(), value: b"v".to_vec(), ..Write::default() };
        replica.write(&mut store, vec![write], now).unwrap();
        store.commit().unwrap();
    }
    let one = start(dir.path(), &ports, 1).await;
    alarms_of(&two, "impossible time").await;
    let holds = async |tracker: &Tracker| {
        let kinds = tracker.report().await.unwrap().records_by_kind;
        kinds.iter().any(|(kind, count)| *kind == 200 && *count == 1)
    };
    assert!(!holds(&two).await);
    let report = one.report().await.unwrap();
    assert!(report.set_back && report.text().contains("restamp"), "{}", report.text());
    one.restamp().await.unwrap();
    until("it has come over", async || holds(&two).await).await;
    assert!(!one.report().await.unwrap().set_back);
    in_sync(&one, 1).await;
    in_sync(&two, 1).await;
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_any_more_loses_its_link_and_can_raise_another() {
    let mut cluster = cluster(40).await;
    let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
    link.its_writer_id().await;
    link.be_deaf();
    // More than fits into every buffer on the way.
    for sync_id in 0..3_000 {
        link.say(Frame::Pull(Pull { sync_id, credit: 8, full: true, sums: None }));
    }
    let again = cluster.liar.link(cluster.ports[0], 1, 0).await;
    again.its_writer_id().await;
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_talks_without_acknowledging_is_not_waited_for() {
    let mut cluster = cluster(1).await;
    let mut slow = 0;
    for number in 0..10 {
        let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
        let own = link.its_writer_id().await;
        let since = Instant::now();
        cluster.alice.create_group(&format!("quick{number}")).await;
        slow += u32::from(since.elapsed() > Duration::from_millis(1_400));
        drop((link, own));
    }
    assert!(slow <= 4, "{slow} of 10 writes waited for a tracker that never acknowledges");
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_rows_hold_no_round_up() {
    let mut cluster = cluster(2).await;
    cluster.two.shutdown().await;
    let link = cluster.liar.link(cluster.ports[0], 1, 0).await;
    link.answer(Manner::Empty);
    link.its_writer_id().await;
    link.say(Frame::Vector(vec![Entry { writer: cluster.liar.writer, seq: 50 }]));
    let pulled = || link.heard().into_iter().find(|frame| matches!(frame, Frame::Pull(_)));
    common::until_heard(pulled).await;
    cluster.two = start(cluster.dir.path(), &cluster.ports, 2).await;
    let mut bob = Client::connect(cluster.ports[1]).await;
    bob.enter("bob").await;
    in_sync(&cluster.one, 1).await;
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_made_up_writers_leave_room_for_the_real_ones() {
    let mut cluster = cluster(2).await;
    for (port, number) in [(cluster.ports[0], 1), (cluster.ports[1], 2)] {
        let link = cluster.liar.link(port, number, 0).await;
        // The tracker is no longer new once it has synced with all others.
        let pulled = || link.heard().into_iter().find(|frame| matches!(frame, Frame::Pull(_)));
        common::until_heard(pulled).await;
        let mut made_up: Vec<Entry> =
            (0..16_300).map(|_| Entry { writer: WriterId(rand_writer_id()), seq: 1 }).collect();
        while !made_up.is_empty() {
            let rest = made_up.split_off(made_up.len().min(2_000));
            link.say(Frame::Vector(std::mem::replace(&mut made_up, rest)));
        }
        let of = if number == 1 { &cluster.one } else { &cluster.two };
        alarms_of(of, "writer ids").await;
    }
    // New processes have new writer ids.
    cluster.two.shutdown().await;
    cluster.two = start(cluster.dir.path(), &cluster.ports, 2).await;
    let mut bob = Client::connect(cluster.ports[1]).await;
    bob.enter("bob").await;
    go_on(&mut cluster, "after").await;
    close(cluster).await;
}
