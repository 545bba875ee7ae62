//! Names that look alike, in one cluster and in clusters with trackers of an earlier version, which know only names.

use shoal_replica::{Holder, NameSpace, Rows, Uid, memory::Memory};

use crate::disk::look;
use crate::scenarios::{World, cluster, run_connected_for, write};
use crate::world::claim;

const FIRST: Uid = Uid([9; 16]);
const SECOND: Uid = Uid([1; 16]);
/// Three names that look alike.
const NAMES: [&[u8]; 3] = [b"xx1", b"xx2", b"xx3"];

fn holder(world: &World, node: usize, name: &[u8]) -> Option<Holder> {
    let it = &world.nodes[node];
    it.replica.as_ref().unwrap().holder(&it.store, NameSpace::User, name).unwrap()
}

fn create(world: &mut World, node: usize, name: &[u8], uid: Uid) {
    write(world, node, vec![claim(NameSpace::User, name, uid)]);
}

/// Makes a tracker one of an earlier version, or of this one, by a restart.
fn set_version(world: &mut World, node: usize, alike: fn(&[u8]) -> Vec<u8>) {
    world.kill(node);
    world.nodes[node].store.alike_by(alike);
    world.start(node);
}

fn earlier(world: &mut World, nodes: &[usize]) {
    nodes.iter().for_each(|&node| set_version(world, node, <[u8]>::to_vec));
    if nodes.len() == world.nodes.len() {
        world.history.is_earlier = true;
    }
}

/// The names that have a definite holder at a tracker, with that holder, if it claimed the very name.
fn definite(world: &World, node: usize) -> Vec<(&'static [u8], Uid)> {
    let own = |name: &'static [u8]| {
        let holder = holder(world, node, name).filter(|holder| holder.definite)?;
        holder.claim.is_some_and(|claim| claim.key[1..].starts_with(name)).then_some((name, holder.uid))
    };
    NAMES.into_iter().filter_map(own).collect()
}

#[test]
fn names_that_look_alike_are_one_name() {
    let mut world = cluster(1, &[]);
    create(&mut world, 0, NAMES[0], FIRST);
    for name in NAMES {
        let holder = holder(&world, 0, name).unwrap();
        assert_eq!((holder.uid, holder.definite), (FIRST, true));
    }
    assert_eq!(holder(&world, 0, b"xy1"), None);
}

#[test]
fn of_look_alikes_on_both_sides_of_a_partition_one_holds_its_name() {
    for trackers in [2, 3, 5] {
        let mut world = cluster(trackers, &[]);
        run_connected_for(&mut world, 3_000);
        for a in 0..trackers {
            (0..a).for_each(|b| world.cut(a, b));
        }
        create(&mut world, 0, NAMES[0], FIRST);
        world.now_ms += 1_000;
        create(&mut world, 1, NAMES[1], SECOND);
        assert_eq!(holder(&world, 1, NAMES[0]).unwrap().uid, SECOND);
        run_connected_for(&mut world, 5_000);
        for node in 0..trackers {
            // Whichever of the two a majority heard of first. Of two trackers each voted for its own.
            let winner = holder(&world, 0, NAMES[0]).unwrap();
            assert_eq!(winner.definite, trackers > 2);
            for name in NAMES {
                assert_eq!(holder(&world, node, name).unwrap().uid, winner.uid, "at tracker {}", node + 1);
            }
            assert_eq!(definite(&world, node).len(), usize::from(trackers > 2));
        }
    }
}

#[test]
fn names_that_an_earlier_version_decided_stay_though_they_look_alike() {
    for trackers in [1, 3] {
        let mut world = cluster(trackers, &[]);
        let all: Vec<usize> = (0..trackers).collect();
        earlier(&mut world, &all);
        run_connected_for(&mut world, 3_000);
        create(&mut world, 0, NAMES[0], FIRST);
        create(&mut world, 0, NAMES[1], SECOND);
        run_connected_for(&mut world, 5_000);
        all.iter().for_each(|&node| set_version(&mut world, node, look));
        run_connected_for(&mut world, 5_000);
        create(&mut world, 0, NAMES[2], Uid([5; 16]));
        run_connected_for(&mut world, 5_000);
        for node in all {
            assert_eq!(definite(&world, node), [(NAMES[0], FIRST), (NAMES[1], SECOND)]);
            assert_eq!(holder(&world, node, NAMES[2]).unwrap().uid, FIRST);
        }
    }
}

#[test]
fn one_tracker_of_an_earlier_version_lets_no_look_alike_in() {
    let mut world = cluster(3, &[]);
    earlier(&mut world, &[2]);
    run_connected_for(&mut world, 3_000);
    create(&mut world, 0, NAMES[0], FIRST);
    run_connected_for(&mut world, 3_000);
    // It compares only names.
    create(&mut world, 2, NAMES[1], SECOND);
    run_connected_for(&mut world, 5_000);
    for node in [0, 1] {
        assert_eq!(definite(&world, node), [(NAMES[0], FIRST)]);
    }
    assert!(!holder(&world, 2, NAMES[1]).unwrap().definite);
    set_version(&mut world, 2, look);
    run_connected_for(&mut world, 5_000);
    for node in 0..3 {
        assert_eq!(definite(&world, node), [(NAMES[0], FIRST)]);
        let claims = {
            let it = &world.nodes[node];
            it.replica.as_ref().unwrap().claims(&it.store, NameSpace::User, NAMES[1]).unwrap()
        };
        assert_eq!(claims.len(), 2, "the other is carried");
    }
}

#[test]
fn a_vote_by_name_of_an_earlier_version_is_not_changed_by_the_new_one() {
    let mut world = cluster(3, &[]);
    earlier(&mut world, &[0, 1, 2]);
    run_connected_for(&mut world, 3_000);
    for a in 0..3 {
        (0..a).for_each(|b| world.cut(a, b));
    }
    // Each side votes for its own claim.
    create(&mut world, 0, NAMES[0], FIRST);
    world.now_ms += 1_000;
    create(&mut world, 1, NAMES[1], SECOND);
    create(&mut world, 2, NAMES[1], SECOND);
    (0..3).for_each(|node| set_version(&mut world, node, look));
    run_connected_for(&mut world, 5_000);
    for node in 0..3 {
        assert_eq!(definite(&world, node), [(NAMES[1], SECOND)], "two of three voted for it");
    }
}

#[test]
fn a_store_gives_the_rivals_of_a_place() {
    let mut world = cluster(1, &[]);
    create(&mut world, 0, NAMES[0], FIRST);
    create(&mut world, 0, NAMES[1], SECOND);
    create(&mut world, 0, b"zz1", SECOND);
    let store: &Memory = &world.nodes[0].store;
    let kind = NameSpace::User.claim_kind();
    assert_eq!(store.rivals(kind, &store.place_for(kind, NAMES[2])).unwrap().len(), 2);
    assert_eq!(store.rivals(NameSpace::Group.claim_kind(), b"xx").unwrap().len(), 0);
}
