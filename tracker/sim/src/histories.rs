//! The sequences of events that the rules exist for, and those that the simulation has found.

use shoal_replica::{BlobHash, Event, Frame, Kind, NameSpace, Rows, Uid, Warning, Write};

use crate::disk::Disk;
use crate::scenarios::{
    ANNA, DAY_MS, World, cluster, copies, holder, lose_disk, run_connected_for, run_for, value, write,
};
use crate::world::{Input, TxFate, claim, delete, put};

const FIRST: Uid = Uid([9; 16]);
const SECOND: Uid = Uid([1; 16]);

fn anna(uid: Uid) -> Vec<Write> {
    vec![claim(NameSpace::User, ANNA, uid)]
}

/// Asserts that every tracker has this definite holder.
fn assert_definite(world: &World, uid: Uid) {
    for node in 0..world.nodes.len() {
        let holder = holder(world, node).unwrap();
        assert_eq!((holder.uid, holder.definite), (uid, true), "at tracker {}", node + 1);
    }
}

/// Connects these trackers with each other and disconnects them from all others.
fn only(world: &mut World, side: &[usize]) {
    for a in 0..world.nodes.len() {
        for b in 0..a {
            if side.contains(&a) && side.contains(&b) {
                world.connect(a, b);
            } else {
                world.cut(a, b);
            }
        }
    }
    world.deliver_all().unwrap();
}

#[test]
fn a_wiped_voter_among_trackers_without_the_name_cannot_give_it_again() {
    let mut world = cluster(5, &[]);
    world.single_copies_count = false;
    run_connected_for(&mut world, 3_000);
    only(&mut world, &[0, 1, 2]);
    write(&mut world, 0, anna(FIRST));
    world.deliver_all().unwrap();
    assert!(holder(&world, 0).unwrap().definite);
    only(&mut world, &[]);
    lose_disk(&mut world, 2, None);
    only(&mut world, &[2, 3, 4]);
    assert_eq!(holder(&world, 2), None);
    write(&mut world, 3, anna(SECOND));
    run_for(&mut world, 5_000);
    // Two votes of five: those of trackers 4 and 5. Tracker 3 abstains.
    let there = holder(&world, 3).unwrap();
    assert_eq!((there.uid, there.definite), (SECOND, false));
    run_connected_for(&mut world, 10_000);
    assert_definite(&world, FIRST);
}

#[test]
fn a_tracker_that_abstains_creates_names_all_the_same() {
    let mut world = cluster(3, &[]);
    run_connected_for(&mut world, 3_000);
    world.kill(0);
    world.start(0);
    only(&mut world, &[0, 1]);
    assert!(!world.nodes[0].replica.as_ref().unwrap().may_vote());
    write(&mut world, 0, anna(FIRST));
    world.deliver_all().unwrap();
    assert_eq!(copies(&world, 0), Some(2));
    // Tracker 2 voted, tracker 1 does not yet.
    let there = holder(&world, 0).unwrap();
    assert_eq!((there.uid, there.definite), (FIRST, false));
    run_connected_for(&mut world, 5_000);
    assert!(world.nodes[0].replica.as_ref().unwrap().may_vote());
    assert_definite(&world, FIRST);
}

#[test]
fn a_blob_cut_off_after_its_record_is_neither_acknowledged_nor_counted() {
    let mut world = cluster(2, &[(0, 1)]);
    let content = vec![5; 200_000];
    let hash = BlobHash::of(&content);
    write(&mut world, 0, vec![Write { blobs: vec![(hash, content)], ..put(b"list", b"") }]);
    let mut chunks = 0;
    while chunks == 0 {
        for (to, from) in [(1, 0), (0, 1)] {
            let events = world.next_event(to, from);
            let is_chunk = |event: &&Event| matches!(event, Event::Frame { frame: Frame::Chunk(_), .. });
            chunks += events.iter().filter(is_chunk).count();
            world.transact(to, events.into_iter().map(Input::Event).collect(), TxFate::Commit).unwrap();
        }
    }
    world.kill(0);
    world.deliver_all().unwrap();
    assert_eq!(value(&world, 1, b"list"), None, "a record without its blob is not taken");
    assert_eq!(world.nodes[1].store.blob_len(hash).unwrap(), None);
    assert!(world.nodes[1].replica.as_ref().unwrap().vector().is_empty());
    world.start(0);
    run_connected_for(&mut world, 5_000);
    assert_eq!(value(&world, 1, b"list"), Some(Vec::new()));
    assert_eq!(world.nodes[1].store.blob_len(hash).unwrap(), Some(200_000));
}

/// A deletion of `gone` whose tombstone was dropped everywhere, and a backup of tracker 2 that still has the
/// row.
fn forgotten_deletion(trackers: usize) -> (World, Option<<shoal_replica::memory::Memory as Disk>::Backup>) {
    let mut world = cluster(trackers, &[]);
    world.single_copies_count = false;
    run_connected_for(&mut world, 3_000);
    write(&mut world, 0, vec![put(b"gone", b"v"), put(b"stays", b"v")]);
    run_connected_for(&mut world, 3_000);
    let backup = Some(world.nodes[1].store.backup());
    write(&mut world, 0, vec![delete(b"gone")]);
    run_connected_for(&mut world, 3_000);
    world.now_ms += DAY_MS;
    run_connected_for(&mut world, 130_000);
    assert!(world.nodes.iter().all(|node| node.store.get(Kind::LAST_WINS, b"gone").unwrap().is_none()));
    (world, backup)
}

fn assert_gone(world: &World) {
    for node in &world.nodes {
        assert_eq!(node.store.get(Kind::LAST_WINS, b"gone").unwrap(), None, "at tracker {}", node.no);
    }
    assert!((0..world.nodes.len()).all(|node| value(world, node, b"stays").is_some()));
    assert_eq!(world.alarms, []);
}

#[test]
fn a_restored_tracker_serves_no_sync_during_its_own_full_sync() {
    let (mut world, backup) = forgotten_deletion(3);
    lose_disk(&mut world, 1, backup);
    world.kill(2);
    world.start(2);
    // Tracker 3 is blank and asks the restored one, which knows from tracker 1 that it needs a full sync.
    lose_disk(&mut world, 2, None);
    world.connect(0, 1);
    let mut busy = 0;
    for _ in 0..60 {
        world.connect(1, 2);
        for (to, from) in [(1, 0), (0, 1), (1, 2), (2, 1)] {
            let events = world.next_event(to, from);
            let is_busy = |event: &&Event| matches!(event, Event::Frame { frame: Frame::Busy { .. }, .. });
            busy += events.iter().filter(is_busy).count();
            world.transact(to, events.into_iter().map(Input::Event).collect(), TxFate::Commit).unwrap();
        }
    }
    assert!(busy > 0, "the sync that tracker 3 asked for was put off");
    run_connected_for(&mut world, 10_000);
    assert_gone(&world);
}

#[test]
fn growing_from_three_to_five_trackers_displaces_no_holder() {
    let mut world = cluster(3, &[]);
    run_connected_for(&mut world, 3_000);
    only(&mut world, &[0, 1]);
    write(&mut world, 0, anna(FIRST));
    world.deliver_all().unwrap();
    assert!(holder(&world, 0).unwrap().definite, "by two votes of three");
    // Tracker 3 does not know of it when two blank ones join it and form a majority of the five with it.
    (0..3).for_each(|node| world.kill(node));
    world.add(2);
    world.start_all();
    only(&mut world, &[2, 3, 4]);
    write(&mut world, 3, anna(SECOND));
    run_for(&mut world, 5_000);
    assert!(!holder(&world, 3).unwrap().definite, "they abstain until they have synced with the others");
    run_connected_for(&mut world, 10_000);
    assert_definite(&world, FIRST);
}

#[test]
fn a_deletion_holds_where_rows_came_from_a_tracker_without_its_tombstone() {
    let (mut world, backup) = forgotten_deletion(3);
    // Tracker 3 never saw the deletion: its rows come from tracker 1, where the tombstone was dropped.
    lose_disk(&mut world, 2, None);
    run_connected_for(&mut world, 5_000);
    world.kill(0);
    lose_disk(&mut world, 1, backup);
    world.connect(1, 2);
    run_for(&mut world, 2_000);
    assert!(world.warnings.contains(&Warning::FullSync { peer: world.nodes[2].no }));
    world.start(0);
    run_connected_for(&mut world, 10_000);
    assert_gone(&world);
}

#[test]
fn a_key_deleted_by_a_clock_days_ahead_can_be_written_again() {
    let mut world = cluster(3, &[]);
    run_connected_for(&mut world, 3_000);
    let days = i64::try_from(4 * DAY_MS).unwrap();
    world.nodes[2].skew_ms = days;
    write(&mut world, 2, vec![delete(b"k")]);
    run_connected_for(&mut world, 3_000);
    // Only tracker 3 takes the deletion for old, and drops it.
    world.now_ms += DAY_MS;
    run_connected_for(&mut world, 130_000);
    for (node, content) in [(2, b"one"), (1, b"two"), (0, b"six")] {
        write(&mut world, node, vec![put(b"k", content)]);
        run_connected_for(&mut world, 15_000);
        assert!((0..3).all(|node| value(&world, node, b"k") == Some(content.to_vec())));
    }
    assert_eq!(world.alarms, []);
}

#[test]
fn a_majority_that_one_lost_disk_would_undo_is_not_reported() {
    let mut world = cluster(3, &[]);
    world.single_copies_count = false;
    run_connected_for(&mut world, 3_000);
    only(&mut world, &[0, 2]);
    // Tracker 1's vote never arrives anywhere. Tracker 3 votes for the retried claim, and its vote arrives.
    world.network.block(0, 2, world.now_ms + 60_000);
    write(&mut world, 0, anna(FIRST));
    write(&mut world, 2, anna(FIRST));
    for _ in 0..4 {
        world.step().unwrap();
    }
    assert_eq!(copies(&world, 0), Some(1));
    let there = holder(&world, 0).unwrap();
    assert_eq!(
        (there.uid, there.definite),
        (FIRST, false),
        "both votes are here, but one of them nowhere else"
    );
    world.network.unblock_all();
    only(&mut world, &[0, 2]);
    run_for(&mut world, 2_000);
    assert!(holder(&world, 0).unwrap().definite);
    run_connected_for(&mut world, 5_000);
    assert_definite(&world, FIRST);
}
