//! One rule per test, on small clusters without other faults.

use shoal_replica::{
    Alarm, BlobHash, Bounds, Event, Holder, Kind, NameSpace, Reason, Row, Rows, Stamp, TrackerNo, Uid,
    Warning, Write, memory::Memory,
};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::world::{Input, TxFate, claim, delete, put};

pub(crate) type World = crate::world::World<Memory>;

pub(crate) const DAY_MS: u64 = 25 * 3_600_000;
pub(crate) const ANNA: &[u8] = b"anna";

/// A started cluster, connected as `links` says and in sync.
pub(crate) fn cluster(trackers: usize, links: &[(usize, usize)]) -> World {
    let mut world = World::new(trackers, 1);
    world.start_all();
    links.iter().for_each(|&(a, b)| world.connect(a, b));
    world.deliver_all().unwrap();
    world
}

pub(crate) fn write(world: &mut World, node: usize, writes: Vec<Write>) {
    world.transact(node, vec![Input::Write(writes)], TxFate::Commit).unwrap();
}

/// The number of copies in the last acknowledgement at a tracker.
pub(crate) fn copies(world: &World, node: usize) -> Option<usize> {
    world.nodes[node].acked.last().map(|&(_, copies)| copies)
}

pub(crate) fn value(world: &World, node: usize, key: &[u8]) -> Option<Vec<u8>> {
    let row = world.nodes[node].store.get(Kind::LAST_WINS, key).unwrap();
    row.filter(|row| !row.tombstone).map(|row| row.value)
}

pub(crate) fn holder(world: &World, node: usize) -> Option<Holder> {
    let it = &world.nodes[node];
    it.replica.as_ref().unwrap().holder(&it.store, NameSpace::User, ANNA).unwrap()
}

pub(crate) fn run_for(world: &mut World, ms: u64) {
    let end = world.now_ms + ms;
    while world.now_ms < end {
        world.step().unwrap();
    }
}

pub(crate) fn run_connected_for(world: &mut World, ms: u64) {
    let end = world.now_ms + ms;
    while world.now_ms < end {
        world.connect_all();
        world.step().unwrap();
    }
}

pub(crate) fn lose_disk(world: &mut World, node: usize, backup: Option<Memory>) {
    world.kill(node);
    world.nodes[node].store = backup.unwrap_or_else(Disk::blank);
    world.start(node);
}

#[test]
fn a_lone_tracker_reads_and_writes() {
    let mut world = cluster(2, &[]);
    write(&mut world, 0, vec![put(b"k", b"v"), claim(NameSpace::User, ANNA, Uid([1; 16]))]);
    assert_eq!(copies(&world, 0), Some(1));
    assert_eq!(value(&world, 0, b"k"), Some(b"v".to_vec()));
    let holder = holder(&world, 0).unwrap();
    assert_eq!((holder.uid, holder.definite), (Uid([1; 16]), false));
}

#[test]
fn a_write_is_acknowledged_once_every_connected_tracker_has_it() {
    let mut world = cluster(3, &[(0, 1), (0, 2), (1, 2)]);
    write(&mut world, 0, vec![put(b"k", b"v")]);
    assert_eq!(copies(&world, 0), None);
    world.deliver_all().unwrap();
    assert_eq!(copies(&world, 0), Some(3));
    assert_eq!(value(&world, 2, b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_created_name_is_definite_when_it_is_acknowledged_by_a_majority() {
    let mut world = cluster(3, &[(0, 1), (0, 2), (1, 2)]);
    world.cut(0, 2);
    world.cut(1, 2);
    world.deliver_all().unwrap();
    write(&mut world, 0, vec![claim(NameSpace::User, ANNA, Uid([1; 16]))]);
    world.deliver_all().unwrap();
    assert_eq!(copies(&world, 0), Some(2));
    assert!(holder(&world, 0).unwrap().definite);
    assert_eq!(world.history.names().count(), 1);
}

#[test]
fn one_configured_tracker_decides_names_alone() {
    let mut world = cluster(1, &[]);
    write(&mut world, 0, vec![claim(NameSpace::User, ANNA, Uid([1; 16]))]);
    assert!(holder(&world, 0).unwrap().definite);
}

#[test]
fn a_retried_claim_is_the_same_claim() {
    let mut world = cluster(2, &[(0, 1)]);
    for node in [0, 1] {
        write(&mut world, node, vec![claim(NameSpace::User, ANNA, Uid([1; 16]))]);
        world.deliver_all().unwrap();
        assert_eq!(copies(&world, node), Some(2));
    }
    let it = &world.nodes[1];
    let claims = it.replica.as_ref().unwrap().claims(&it.store, NameSpace::User, ANNA).unwrap();
    assert_eq!(claims.len(), 1);
}

#[test]
fn two_claims_of_a_partition_come_to_one_holder() {
    let mut world = cluster(2, &[]);
    write(&mut world, 0, vec![claim(NameSpace::User, ANNA, Uid([9; 16]))]);
    world.now_ms += 1_000;
    write(&mut world, 1, vec![claim(NameSpace::User, ANNA, Uid([1; 16]))]);
    run_connected_for(&mut world, 3_000);
    for node in [0, 1] {
        assert_eq!(holder(&world, node).unwrap().uid, Uid([9; 16]));
        let it = &world.nodes[node];
        let claims = it.replica.as_ref().unwrap().claims(&it.store, NameSpace::User, ANNA).unwrap();
        assert_eq!(claims.len(), 2);
        assert!(claims[0].stamp < claims[1].stamp);
    }
}

#[test]
fn a_blank_tracker_catches_up_with_rows_and_blobs() {
    let mut world = cluster(2, &[]);
    for number in 0..1_000_u32 {
        write(&mut world, 0, vec![put(&number.to_be_bytes(), &[1; 200])]);
    }
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    let hash = BlobHash::of(&content);
    write(&mut world, 0, vec![Write { blobs: vec![(hash, content)], ..put(b"list", b"") }]);
    world.connect(0, 1);
    run_for(&mut world, 1_500);
    let now = world.now(1);
    let status = world.nodes[1].replica.as_ref().unwrap().status(now);
    assert!(status[0].connected && status[0].in_sync, "{status:?}");
    assert_eq!(world.nodes[1].store.rows().count(), 1_001);
    assert_eq!(world.nodes[1].store.blob_len(hash).unwrap(), Some(1_200_000));
}

#[test]
fn a_record_that_names_a_blob_is_acknowledged_after_the_blob() {
    let mut world = cluster(2, &[(0, 1)]);
    let content = vec![5; 200_000];
    write(&mut world, 0, vec![Write { blobs: vec![(BlobHash::of(&content), content)], ..put(b"list", b"") }]);
    write(&mut world, 0, vec![put(b"small", b"")]);
    let is_small_there = |world: &World| value(world, 1, b"small").is_some();
    while !is_small_there(&world) {
        let events = world.next_event(1, 0).into_iter().map(Input::Event).collect();
        world.transact(1, events, TxFate::Commit).unwrap();
    }
    assert_eq!(value(&world, 1, b"list"), None);
    world.deliver_all().unwrap();
    assert_eq!(value(&world, 1, b"list"), Some(Vec::new()));
    assert_eq!(world.nodes[0].acked.len(), 2);
}

#[test]
fn a_tracker_silent_for_one_and_a_half_seconds_is_not_waited_for() {
    let mut world = cluster(2, &[(0, 1)]);
    write(&mut world, 0, vec![put(b"k", b"v")]);
    let start = world.now_ms;
    while copies(&world, 0).is_none() {
        world.now_ms = world.nodes[0].replica.as_ref().unwrap().next_timeout().unwrap().max(world.now_ms + 1);
        world.transact(0, vec![Input::Event(Event::Tick)], TxFate::Commit).unwrap();
    }
    assert_eq!(copies(&world, 0), Some(1));
    assert_eq!(world.now_ms - start, 1_500);
    assert_eq!(world.closed, [(TrackerNo(1), TrackerNo(2), Reason::Silent)]);
}

#[test]
fn a_tracker_silent_for_three_seconds_is_dead() {
    let mut world = cluster(2, &[(0, 1)]);
    let start = world.now_ms;
    while world.closed.is_empty() {
        world.now_ms = world.nodes[0].replica.as_ref().unwrap().next_timeout().unwrap().max(world.now_ms + 1);
        world.transact(0, vec![Input::Event(Event::Tick)], TxFate::Commit).unwrap();
    }
    assert_eq!(world.now_ms - start, 3_000);
}

#[test]
fn a_cut_sync_moves_no_vector() {
    let mut world = cluster(2, &[]);
    for number in 0..5_000_u32 {
        write(&mut world, 0, vec![put(&number.to_be_bytes(), &[1; 200])]);
    }
    world.connect(0, 1);
    while world.nodes[1].store.rows().count() < 300 {
        let ways = world.deliverable();
        let (to, from) = ways[world.rng.usize(..ways.len())];
        let events = world.next_event(to, from).into_iter().map(Input::Event).collect();
        world.transact(to, events, TxFate::Commit).unwrap();
    }
    world.kill(0);
    world.deliver_all().unwrap();
    assert!(world.nodes[1].store.rows().count() < 5_000);
    assert!(world.nodes[1].replica.as_ref().unwrap().vector().is_empty());
}

/// A deletion whose tombstone was dropped while there was a backup of tracker 2, and what that tracker wrote
/// after it was restored.
fn restore_an_old_backup(broken: Broken) -> World {
    let mut world = cluster(2, &[(0, 1)]);
    world.broken = broken;
    world.single_copies_count = false;
    write(&mut world, 0, vec![put(b"gone", b"v"), put(b"stays", b"v")]);
    run_connected_for(&mut world, 3_000);
    let backup = world.nodes[1].store.clone();
    write(&mut world, 0, vec![delete(b"gone")]);
    run_connected_for(&mut world, 3_000);
    world.now_ms += DAY_MS;
    run_connected_for(&mut world, 130_000);
    lose_disk(&mut world, 1, Some(backup));
    write(&mut world, 1, vec![put(b"new", b"v")]);
    run_connected_for(&mut world, 5_000);
    world
}

#[test]
fn tombstones_are_dropped_and_a_restored_backup_brings_nothing_deleted_back() {
    let world = restore_an_old_backup(Broken::Nothing);
    for node in [0, 1] {
        assert_eq!(world.nodes[node].store.get(Kind::LAST_WINS, b"gone").unwrap(), None);
        assert!(value(&world, node, b"stays").is_some() && value(&world, node, b"new").is_some());
    }
    assert!(world.warnings.contains(&Warning::FullSync { peer: TrackerNo(1) }));
    let world = restore_an_old_backup(Broken::FullSync);
    assert_ne!(world.nodes[1].store.get(Kind::LAST_WINS, b"gone").unwrap(), None);
}

#[test]
fn a_tombstone_stays_while_a_configured_tracker_is_away() {
    let mut world = cluster(3, &[(0, 1), (0, 2), (1, 2)]);
    world.kill(2);
    write(&mut world, 0, vec![delete(b"k")]);
    world.now_ms += DAY_MS;
    run_connected_for(&mut world, 130_000);
    assert!(world.nodes[0].store.get(Kind::LAST_WINS, b"k").unwrap().is_some());
    world.start(2);
    run_connected_for(&mut world, 130_000);
    assert!(world.nodes.iter().all(|node| node.store.rows().count() == 0));
}

#[test]
fn a_blob_that_no_row_names_is_dropped_after_a_day() {
    let mut world = cluster(1, &[]);
    let content = b"list".to_vec();
    write(&mut world, 0, vec![Write { blobs: vec![(BlobHash::of(&content), content)], ..put(b"k", b"") }]);
    write(&mut world, 0, vec![delete(b"k")]);
    run_for(&mut world, 61_000);
    assert_eq!(world.nodes[0].store.blob_count(), 1);
    world.now_ms += DAY_MS;
    run_for(&mut world, 61_000);
    assert_eq!(world.nodes[0].store.blob_count(), 0);
}

/// Tracker 1 gives a name away with tracker 2, loses its disk, and meets tracker 3, which was away.
fn lose_a_vote(broken: Broken) -> (World, Result<(), String>) {
    let mut world = cluster(3, &[(0, 1), (0, 2), (1, 2)]);
    world.broken = broken;
    world.single_copies_count = false;
    world.cut(0, 2);
    world.cut(1, 2);
    world.deliver_all().unwrap();
    write(&mut world, 0, vec![claim(NameSpace::User, ANNA, Uid([1; 16]))]);
    world.deliver_all().unwrap();
    assert!(holder(&world, 0).unwrap().definite);
    lose_disk(&mut world, 0, None);
    world.connect(0, 2);
    world.deliver_all().unwrap();
    assert_eq!(holder(&world, 0), None);
    write(&mut world, 0, vec![claim(NameSpace::User, ANNA, Uid([2; 16]))]);
    let outcome = world.deliver_all();
    (world, outcome)
}

#[test]
fn a_tracker_that_lost_its_disk_does_not_vote_before_it_synced_with_all() {
    let (mut world, outcome) = lose_a_vote(Broken::Nothing);
    outcome.unwrap();
    assert!(!holder(&world, 0).unwrap().definite);
    run_connected_for(&mut world, 5_000);
    for node in 0..3 {
        let holder = holder(&world, node).unwrap();
        assert_eq!((holder.uid, holder.definite), (Uid([1; 16]), true));
    }
    assert_eq!(world.alarms, []);
    let (_, outcome) = lose_a_vote(Broken::Abstention);
    assert!(outcome.unwrap_err().starts_with("invariant 3"));
}

#[test]
fn a_row_whose_tracker_lost_its_disk_reaches_all() {
    let mut world = cluster(3, &[]);
    world.single_copies_count = false;
    for number in 0..3_000_u32 {
        write(&mut world, 0, vec![put(&number.to_be_bytes(), &[1; 200])]);
    }
    world.connect(0, 1);
    while value(&world, 1, b"last").is_none() {
        let ways = world.deliverable();
        let (to, from) = ways[world.rng.usize(..ways.len())];
        let events = world.next_event(to, from).into_iter().map(Input::Event).collect();
        world.transact(to, events, TxFate::Commit).unwrap();
        let connected = world.nodes[0].replica.as_ref().unwrap().status(world.now(0))[0].connected;
        if connected && world.nodes[0].pending.is_empty() && value(&world, 0, b"last").is_none() {
            write(&mut world, 0, vec![put(b"last", b"v")]);
        }
    }
    lose_disk(&mut world, 0, None);
    run_connected_for(&mut world, 60_000);
    assert!((0..3).all(|node| value(&world, node, b"last").is_some()));
    let rows = |node: usize| world.nodes[node].store.rows().cloned().collect::<Vec<Row>>();
    assert_eq!(rows(0), rows(1));
    assert_eq!(rows(0), rows(2));
    assert_eq!(world.alarms, []);
}

#[test]
fn a_silent_difference_is_noticed_and_repaired() {
    let mut world = cluster(2, &[(0, 1)]);
    write(&mut world, 0, vec![put(b"a", b"1"), put(b"b", b"1")]);
    run_for(&mut world, 2_000);
    world.nodes[1].store.remove(Kind::LAST_WINS, b"a").unwrap();
    world.nodes[0].store.remove(Kind::LAST_WINS, b"b").unwrap();
    run_for(&mut world, 30_000);
    assert!(world.alarms.contains(&Alarm::Diverged { peer: TrackerNo(1) }));
    for node in [0, 1] {
        assert!(value(&world, node, b"a").is_some() && value(&world, node, b"b").is_some());
    }
    let alarms = world.alarms.len();
    run_for(&mut world, 30_000);
    assert_eq!(world.alarms.len(), alarms);
}

#[test]
fn a_wrong_clock_moves_no_other_and_its_rows_can_be_replaced() {
    let mut world = cluster(2, &[]);
    world.nodes[1].skew_ms = 3_600_000;
    write(&mut world, 1, vec![put(b"k", b"future")]);
    run_connected_for(&mut world, 3_000);
    assert!(world.warnings.contains(&Warning::ClockSkew { peer: TrackerNo(2), ahead_ms: 3_600_000 }));
    write(&mut world, 0, vec![put(b"k", b"now")]);
    write(&mut world, 0, vec![put(b"other", b"now")]);
    world.deliver_all().unwrap();
    assert_eq!(value(&world, 1, b"k"), Some(b"now".to_vec()));
    let other = world.nodes[0].store.get(Kind::LAST_WINS, b"other").unwrap().unwrap();
    assert!(other.stamp < Stamp::at_ms(world.now(0).wall_ms + 60_000));
}

#[test]
fn born_is_when_the_key_came_into_being() {
    let mut world = cluster(1, &[]);
    let born = |world: &mut World, it: Write| {
        write(world, 0, vec![it]);
        world.nodes[0].store.get(Kind::LAST_WINS, b"k").unwrap().unwrap().born
    };
    let first = born(&mut world, put(b"k", b"1"));
    assert_eq!(born(&mut world, put(b"k", b"2")), first);
    born(&mut world, delete(b"k"));
    assert!(born(&mut world, put(b"k", b"3")) > first);
}

#[test]
fn a_rolled_back_replica_is_opened_again_with_its_writer_id() {
    let mut world = cluster(2, &[(0, 1)]);
    write(&mut world, 0, vec![put(b"a", b"1")]);
    world.deliver_all().unwrap();
    world.transact(0, vec![Input::Write(vec![put(b"b", b"lost")])], TxFate::Rollback).unwrap();
    write(&mut world, 0, vec![put(b"b", b"kept")]);
    run_connected_for(&mut world, 3_000);
    assert_eq!(value(&world, 1, b"b"), Some(b"kept".to_vec()));
    let writers = world.nodes[1].replica.as_ref().unwrap().vector().len();
    assert_eq!(writers, 1);
}

#[test]
fn a_flood_is_taken_slowly_and_raises_an_alarm() {
    let mut world = World::new(2, 1);
    world.bounds = Bounds { bytes_burst: 20_000, bytes_per_s: 2_000, ..Bounds::default() };
    world.start_all();
    run_connected_for(&mut world, 3_000);
    for number in 0..100_u8 {
        write(&mut world, 0, vec![put(&[number], &[7; 2_000])]);
    }
    let held = |world: &World| (0..100_u8).filter(|&key| value(world, 1, &[key]).is_some()).count();
    run_connected_for(&mut world, 10_000);
    let soon = held(&world);
    assert!((10..40).contains(&soon), "{soon} of 100 after ten seconds");
    assert!(world.alarms.contains(&Alarm::Flood { peer: TrackerNo(1) }), "{:?}", world.alarms);
    // Nothing is refused: all rows arrive in time.
    run_connected_for(&mut world, 300_000);
    assert_eq!(held(&world), 100);
}
