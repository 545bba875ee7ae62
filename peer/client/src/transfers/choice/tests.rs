//! Many holders and few places, in made-up time.

mod random;

use std::collections::{BTreeMap, BTreeSet};

use shoal_common::UserName;
use shoal_common::tracker_api::Completeness;
use shoal_engine::SourceState;

use super::*;

/// What the holders deliver: bytes per second, by the number that names them.
struct World {
    choice: Choice,
    rates: BTreeMap<u8, u64>,
    in_use: BTreeMap<SourceId, u8>,
    added: BTreeMap<u8, usize>,
    now: Instant,
}

fn holder(number: u8) -> Holder {
    let user = UserName::create("ann").unwrap();
    Holder {
        peer: PeerId([number; 32]),
        address: "127.0.0.1:1".into(),
        user,
        completeness: Completeness::Complete,
        unproven: None,
        lan: None,
        reached: None,
    }
}

impl World {
    fn new(rates: impl IntoIterator<Item = (u8, u64)>) -> Self {
        Self::seeded(1, rates)
    }

    fn seeded(seed: u64, rates: impl IntoIterator<Item = (u8, u64)>) -> Self {
        let choice = Choice { rng: Rng::with_seed(seed), ..Choice::default() };
        let (rates, now) = (rates.into_iter().collect(), Instant::now());
        Self { choice, rates, in_use: BTreeMap::new(), added: BTreeMap::new(), now }
    }

    fn offer(&mut self) {
        self.choice.offered(self.rates.keys().copied().map(holder).collect());
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(250);
        let row = |(&id, number): (&SourceId, &u8)| SourceRow {
            id,
            state: SourceState::Active,
            fetched_bytes: 0,
            rate: self.rates[number],
            requests: 1,
            holds: 1,
            silent: false,
            patient: false,
        };
        let rows: Vec<SourceRow> = self.in_use.iter().map(row).collect();
        for step in self.choice.next_steps(&rows, false, self.now) {
            match step {
                Step::Replace(id, _) => assert!(self.in_use.contains_key(&id)),
                Step::Add(id, holder) => {
                    let number = holder.peer.0[0];
                    assert!(self.in_use.insert(id, number).is_none());
                    *self.added.entry(number).or_default() += 1;
                }
                Step::Remove(id) => {
                    assert!(self.in_use.remove(&id).is_some());
                }
            }
        }
        assert!(self.in_use.len() <= MAX_SOURCES);
    }

    fn pass(&mut self, seconds: usize) {
        for step in 0..4 * seconds {
            if step % 20 == 0 {
                self.offer();
            }
            self.step();
        }
    }

    fn uses(&self, number: u8) -> bool {
        self.in_use.values().any(|&other| other == number)
    }
}

#[test]
fn few_holders_are_all_used_and_keep_their_places() {
    let mut world = World::new((0..60).map(|number| (number, u64::from(number))));
    world.pass(100);
    assert_eq!(world.in_use.len(), 60);
    assert!(world.added.values().all(|&times| times == 1));
}

#[test]
fn addresses_that_may_be_a_third_partys_are_tried_last_and_one_at_a_time() {
    let mut choice = Choice::default();
    let unproven = |number| Holder { unproven: Some(true), ..holder(number) };
    choice.offered((0..5).map(unproven).chain((5..10).map(holder)).collect());
    let (now, mut added) = (Instant::now(), Vec::new());
    let mut steps = |choice: &mut Choice, now| {
        for step in choice.next_steps(&[], false, now) {
            match step {
                Step::Add(id, holder) => added.push((id, holder.peer.0[0])),
                other => panic!("{other:?}"),
            }
        }
        added.clone()
    };
    let first = steps(&mut choice, now);
    assert_eq!(first.len(), 6, "{first:?}");
    assert!(first[..5].iter().all(|&(_, number)| number >= 5) && first[5].1 < 5, "{first:?}");
    assert_eq!(steps(&mut choice, now), first, "while it is being dialled");
    choice.gone(first[5].0, now);
    let second = steps(&mut choice, now);
    assert_eq!(second.len(), 7, "{second:?}");
    choice.opened(second[6].0, now);
    assert_eq!(steps(&mut choice, now).len(), 8, "that one is where it said");
}

#[test]
fn a_fast_one_among_two_hundred_slow_ones_is_found_and_kept() {
    // It may be among the first that are tried, when nobody had the time to show what it can.
    for (seed, fast) in (0..50).zip([0, 100, 200].into_iter().cycle()) {
        let mut world = World::seeded(seed, (0..=200).map(|number| (number, 10_000)));
        world.rates.insert(fast, 1_000_000);
        world.pass(60);
        assert!(world.uses(fast), "seed {seed}");
        world.pass(120);
        assert!(world.uses(fast) && world.added[&fast] == 1, "it lost its place, seed {seed}");
    }
}

#[test]
fn holders_that_come_when_all_places_are_taken_are_tried_as_well() {
    let mut world = World::new((0..64).map(|number| (number, 10_000)));
    world.pass(20);
    assert_eq!(world.in_use.len(), MAX_SOURCES);
    world.rates.extend((64..200).map(|number| (number, 10_000)));
    world.rates.insert(150, 1_000_000);
    world.pass(60);
    assert!(world.uses(150));
}

#[test]
fn everybody_has_a_trial_and_those_who_deliver_are_not_disturbed() {
    let mut world = World::new((0..=200).map(|number| (number, 10_000)));
    world.pass(1);
    let first: BTreeSet<u8> = world.in_use.values().copied().collect();
    world.pass(60);
    assert_eq!(world.added.len(), 201, "each was tried once");
    let stayed = first.iter().filter(|&&number| world.uses(number)).count();
    assert!(stayed >= MAX_SOURCES - FIRST_TRIALS, "{stayed} of the first stayed");
    let trials: usize = world.added.values().sum();
    world.pass(60);
    let later = world.added.values().sum::<usize>() - trials;
    assert!(later <= 60, "{later} trials of known ones in a minute");
}

#[test]
fn the_only_one_that_holds_what_is_missing_gets_its_turn_and_stays() {
    // The others have nothing that is of use any more.
    let mut world = World::new((0..=200).map(|number| (number, 0)));
    world.pass(120);
    world.rates.insert(170, 3_000);
    world.pass(600);
    assert!(world.uses(170));
}

#[test]
fn who_is_gone_is_tried_again_while_it_is_named_and_a_liar_never() {
    let mut world = World::new((0..3).map(|number| (number, 1)));
    world.offer();
    world.step();
    let ids: Vec<SourceId> = world.in_use.keys().copied().collect();
    let now = world.now;
    assert!(world.choice.gone(ids[0], now) && !world.choice.gone(ids[0], now));
    assert_eq!(world.choice.banned(ids[1]).unwrap().1, "ann at 127.0.0.1:1");
    assert_eq!(world.choice.banned(ids[1]), None, "it is reported once");
    ids[..2].iter().for_each(|id| {
        world.in_use.remove(id);
    });
    // No tracker names it again, as while no tracker answers.
    (0..8).for_each(|_| world.step());
    assert_eq!(world.in_use.keys().copied().collect::<Vec<_>>(), [ids[0], ids[2]], "under the old id");
}

/// When a source that never opens is put into use, in milliseconds, over a minute.
fn tries(world: &mut World, takes: Duration) -> Vec<u128> {
    let (begun, mut tries) = (world.now, Vec::new());
    world.offer();
    while world.now < begun + Duration::from_secs(60) {
        world.step();
        if let Some((&id, _)) = world.in_use.iter().next() {
            tries.push((world.now - begun).as_millis());
            world.now += takes;
            let now = world.now;
            world.choice.gone(id, now);
            world.in_use.remove(&id);
        }
    }
    tries
}

#[test]
fn the_pause_grows_and_never_beyond_three_seconds_from_start_to_start() {
    let mut world = World::new([(0, 1)]);
    let refused = tries(&mut world, Duration::ZERO);
    assert!(refused[1] - refused[0] <= 500, "the first pause is short: {refused:?}");
    let mut world = World::new([(0, 1)]);
    let silent = tries(&mut world, Duration::from_secs(5));
    for (tries, longest) in [(refused, 3_250), (silent, 5_500)] {
        assert!(tries.windows(2).all(|pair| pair[1] - pair[0] <= longest), "{tries:?}");
        assert!(tries.len() <= 25, "it is no busy loop: {tries:?}");
    }
}

#[test]
fn who_is_named_anew_or_elsewhere_is_tried_at_once() {
    let mut world = World::new([(0, 1)]);
    tries(&mut world, Duration::ZERO);
    world.choice.offered(vec![]);
    world.step();
    assert!(world.in_use.is_empty(), "nobody names it");
    world.offer();
    world.step();
    assert!(world.uses(0));
    let (id, now) = (*world.in_use.keys().next().unwrap(), world.now);
    world.choice.gone(id, now);
    world.in_use.clear();
    world.choice.offered(vec![Holder { address: "127.0.0.1:2".into(), ..holder(0) }]);
    world.step();
    assert!(world.uses(0), "it is at another address");
}

#[test]
fn a_source_whose_holder_moved_is_replaced_and_one_that_came_back_only_if_it_is_silent() {
    let steps = |choice: &mut Choice, rate, now| {
        let row = SourceRow {
            id: SourceId(0),
            state: SourceState::Active,
            fetched_bytes: 0,
            rate,
            requests: 1,
            holds: 1,
            silent: false,
            patient: false,
        };
        choice.next_steps(&[row], false, now)
    };
    let moved = Holder { address: "127.0.0.1:2".into(), ..holder(0) };
    let mut choice = Choice::default();
    let begun = Instant::now();
    choice.offered(vec![holder(0)]);
    assert_eq!(steps(&mut choice, 0, begun), [Step::Add(SourceId(0), holder(0))]);
    choice.offered(vec![moved.clone()]);
    assert_eq!(
        steps(&mut choice, 9, begun),
        [Step::Replace(SourceId(0), moved.clone())],
        "even if it delivers"
    );
    assert_eq!(steps(&mut choice, 9, begun), []);
    // Away for the trackers and back.
    for (rate, after, replaced) in [(9, 60, false), (0, 1, false), (0, 60, true)] {
        let now = begun + Duration::from_secs(after);
        choice.offered(vec![]);
        choice.offered(vec![moved.clone()]);
        assert_eq!(!steps(&mut choice, rate, now).is_empty(), replaced, "{rate} {after}");
    }
}

#[test]
fn the_dead_among_many_do_not_keep_the_living_out() {
    // Ninety of a hundred are named and never answer.
    let is_dead = |number: u8| number < 90;
    let mut world = World::new((0..100).map(|number| (number, if is_dead(number) { 0 } else { 10_000 })));
    let mut begun: BTreeMap<SourceId, Instant> = BTreeMap::new();
    for step in 0..4 * 60 {
        if step % 4 == 0 {
            world.offer();
        }
        world.step();
        let now = world.now;
        begun.retain(|id, _| world.in_use.contains_key(id));
        for (id, number) in world.in_use.clone() {
            let since = *begun.entry(id).or_insert(now);
            if !is_dead(number) {
                world.choice.opened(id, since);
            } else if since + Duration::from_secs(5) <= now {
                world.choice.gone(id, now);
                world.in_use.remove(&id);
                begun.remove(&id);
            }
        }
        let all = (90..100).all(|number| world.uses(number));
        assert!(all || step < 4 * 15, "not all that live are in use at step {step}");
    }
    let again = (0..90).filter(|number| world.added[number] >= 4).count();
    assert_eq!(again, 90, "the others are tried again and again");
}
