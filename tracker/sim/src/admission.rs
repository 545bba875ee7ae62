//! Rows that are judged before they are taken: a liar's rows do no harm, and ranks lead all trackers to the
//! same row.

use std::cmp::Ordering;

use shoal_replica::{Admission, Alarm, Kind, Row, TrackerNo};

use crate::scenarios::{World, cluster, run_connected_for, run_for, value, write};
use crate::world::put;

fn refuses_lies(row: &Row, _: Option<&Row>) -> Admission {
    if row.value == b"lie" { Admission::Refused } else { Admission::ByTime }
}

/// The longer value ranks higher.
fn ranks_by_length(row: &Row, held: Option<&Row>) -> Admission {
    match held.map(|held| row.value.len().cmp(&held.value.len())) {
        None | Some(Ordering::Equal) => Admission::ByTime,
        Some(Ordering::Greater) => Admission::Above,
        Some(Ordering::Less) => Admission::Below,
    }
}

fn alarms(world: &World, wanted: impl Fn(&Alarm) -> bool) -> usize {
    world.alarms.iter().filter(|alarm| wanted(alarm)).count()
}

#[test]
fn what_does_not_prove_itself_is_not_taken_and_holds_nothing_up() {
    let mut world = cluster(3, &[(0, 1), (0, 2), (1, 2)]);
    write(&mut world, 1, vec![put(b"k", b"truth"), put(b"m", b"truth")]);
    world.deliver_all().unwrap();
    for honest in [0, 1] {
        world.nodes[honest].store.judge_by(refuses_lies);
    }
    // Written while no peer is connected, so that no copies are acknowledged. The others pull it.
    run_connected_for(&mut world, 5_000);
    [0, 1].into_iter().for_each(|honest| world.kill(honest));
    write(&mut world, 2, vec![put(b"k", b"lie"), put(b"new", b"lie"), put(b"m", b"lie")]);
    run_for(&mut world, 5_000);
    [0, 1].into_iter().for_each(|honest| world.start(honest));
    run_connected_for(&mut world, 60_000);
    write(&mut world, 2, vec![put(b"later", b"truth")]);
    run_connected_for(&mut world, 120_000);
    for honest in [0, 1] {
        assert_eq!(value(&world, honest, b"k"), Some(b"truth".to_vec()));
        assert_eq!(value(&world, honest, b"m"), Some(b"truth".to_vec()));
        assert_eq!(value(&world, honest, b"new"), None);
        assert_eq!(value(&world, honest, b"later"), Some(b"truth".to_vec()));
        let vector = |node: usize| world.nodes[node].replica.as_ref().unwrap().vector().clone();
        assert_eq!(vector(honest), vector(2));
    }
    let liar = TrackerNo(3);
    let refused = alarms(
        &world,
        |alarm| matches!(alarm, Alarm::Refused { peer, kind: Kind::LAST_WINS, .. } if *peer == liar),
    );
    assert!((2..=12).contains(&refused), "{:?}", world.alarms);
    let about_honest = |alarm: &Alarm| matches!(alarm, Alarm::Refused { peer, .. } if *peer != liar);
    assert_eq!(alarms(&world, about_honest), 0, "{:?}", world.alarms);
    // Buckets are compared once and not every ten seconds. Only the liar, which believes itself, continues.
    let before = world.alarms.len();
    run_connected_for(&mut world, 60_000);
    let by_liar = |alarm: &Alarm| matches!(alarm, Alarm::Diverged { peer } if *peer != liar);
    let others: Vec<&Alarm> = world.alarms[before..].iter().filter(|alarm| !by_liar(alarm)).collect();
    assert!(others.iter().all(|alarm| matches!(alarm, Alarm::Refused { .. })), "{others:?}");
}

#[test]
fn a_row_of_a_higher_rank_stays_whichever_is_later() {
    for (earlier, later) in [(&b"long"[..], &b"x"[..]), (b"x", b"long"), (b"even", b"EVEN")] {
        let mut world = cluster(2, &[]);
        for node in [0, 1] {
            world.nodes[node].store.judge_by(ranks_by_length);
        }
        write(&mut world, 0, vec![put(b"k", earlier)]);
        run_for(&mut world, 1_000);
        write(&mut world, 1, vec![put(b"k", later)]);
        run_connected_for(&mut world, 30_000);
        let stays = if earlier.len() > later.len() { earlier } else { later };
        for node in [0, 1] {
            assert_eq!(value(&world, node, b"k"), Some(stays.to_vec()));
        }
        assert_eq!(world.alarms, []);
    }
}
