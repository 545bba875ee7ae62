//! The rules one by one, and all orders of events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::priority::Priority;

const LONG: Duration = Duration::from_secs(3_600);

fn normal(position: i64) -> Rank {
    Rank { priority: Priority::Normal, position }
}

fn rank(priority: Priority, position: i64) -> Rank {
    Rank { priority, position }
}

/// A queue in which the changes are carried out.
struct Carried {
    queue: Queue<u32>,
    runs: BTreeMap<u32, bool>,
    now: Instant,
}

impl Carried {
    fn new(most: usize, bound: Option<usize>) -> Self {
        Self { queue: Queue::new(most, bound), runs: BTreeMap::new(), now: Instant::now() }
    }

    fn with(bound: usize, downloads: &[(u32, Rank)]) -> Self {
        let mut carried = Self::new(100, Some(bound));
        carried.enter(downloads);
        carried
    }

    fn carry(&mut self, changes: Changes<u32>) {
        for (key, runs) in changes {
            let before = self.runs.insert(key, runs);
            assert_eq!(before, Some(!runs), "{key} was told to before");
        }
    }

    fn enter(&mut self, downloads: &[(u32, Rank)]) {
        self.runs.extend(downloads.iter().map(|&(key, _)| (key, false)));
        let changes = self.queue.enter(downloads.iter().copied(), self.now);
        self.carry(changes);
    }

    fn leave(&mut self, key: u32) {
        self.runs.remove(&key);
        let changes = self.queue.leave(key, self.now);
        self.carry(changes);
    }

    fn idles(&mut self, key: u32, idle: Duration) {
        let changes = self.queue.idles(key, idle, self.now);
        self.carry(changes);
    }

    fn moves(&mut self, key: u32) {
        let changes = self.queue.moves(key, self.now);
        self.carry(changes);
    }

    fn rank(&mut self, key: u32, rank: Rank) {
        let changes = self.queue.set_rank(key, rank, self.now);
        self.carry(changes);
    }

    fn bound(&mut self, bound: Option<usize>) {
        let changes = self.queue.set_bound(bound, self.now);
        self.carry(changes);
    }

    fn running(&self) -> Vec<u32> {
        self.runs.iter().filter(|(_, runs)| **runs).map(|(&key, _)| key).collect()
    }

    fn waiting(&self) -> Vec<u32> {
        self.queue.waiting().collect()
    }

    /// What always holds.
    fn check(&self) {
        let queue = &self.queue;
        assert!(queue.active.len() <= queue.places(), "more are active than there are places");
        assert!(queue.running() <= queue.most, "more files are open than may be");
        let running: Vec<u32> = self.running();
        assert_eq!(running.len(), queue.running(), "who was told to run runs");
        assert_eq!(queue.waiting().count() + running.len(), queue.entries.len(), "all are somewhere");
        if queue.active.len() < queue.places() {
            assert!(queue.fresh.is_empty(), "a place is free, and one that can take it waits");
        }
        if queue.running() < queue.most {
            assert!(queue.tried.is_empty(), "files may be opened, and one looks for no sharer");
        }
        if let (Some((next, _)), Some((worst, _))) = (queue.fresh.first(), queue.active.last()) {
            assert!(next.priority >= worst.priority, "a more urgent one waits for a less urgent one");
        }
    }
}

#[test]
fn a_free_place_goes_to_the_next() {
    let mut queue = Carried::with(2, &[(1, normal(4)), (2, normal(3)), (3, normal(2)), (4, normal(1))]);
    assert_eq!((queue.running(), queue.waiting()), (vec![3, 4], vec![2, 1]));
    queue.leave(4);
    assert_eq!((queue.running(), queue.waiting()), (vec![2, 3], vec![1]));
    queue.leave(1);
    queue.leave(2);
    assert_eq!((queue.running(), queue.waiting()), (vec![3], vec![]));
}

#[test]
fn one_that_waits_for_a_sharer_holds_no_place_and_takes_one_when_it_is_back() {
    let mut queue = Carried::with(1, &[(1, normal(1)), (2, normal(2)), (3, normal(3))]);
    queue.idles(1, PATIENCE / 2);
    assert_eq!(queue.running(), [1], "a moment is no stall");
    queue.idles(1, PATIENCE);
    assert_eq!(queue.running(), [1, 2], "it goes on looking for a sharer");
    queue.moves(1);
    assert_eq!((queue.running(), queue.waiting()), (vec![2], vec![1, 3]), "nobody is sent back for an equal");
    queue.leave(2);
    assert_eq!((queue.running(), queue.waiting()), (vec![1], vec![3]));
    queue.idles(1, PATIENCE);
    assert_eq!(queue.running(), [1], "it came back before: it is more patient");
    queue.idles(1, PATIENCE * 2);
    assert_eq!(queue.running(), [1, 3]);
    queue.leave(3);
    queue.moves(1);
    assert_eq!(queue.running(), [1], "a free place is taken at once");
}

#[test]
fn a_more_urgent_one_takes_the_place_of_a_less_urgent_one() {
    let mut queue = Carried::with(1, &[(1, rank(Priority::Low, 1)), (2, normal(2)), (3, normal(3))]);
    assert_eq!(queue.running(), [2]);
    queue.rank(3, rank(Priority::High, 3));
    assert_eq!((queue.running(), queue.waiting()), (vec![3], vec![2, 1]));
    queue.rank(3, rank(Priority::Low, 3));
    assert_eq!((queue.running(), queue.waiting()), (vec![2], vec![1, 3]));
    queue.rank(3, rank(Priority::Low, 0));
    assert_eq!((queue.running(), queue.waiting()), (vec![2], vec![3, 1]));
    queue.enter(&[(4, rank(Priority::High, 9))]);
    assert_eq!((queue.running(), queue.waiting()), (vec![4], vec![2, 3, 1]));
    queue.rank(99, normal(1));
    assert_eq!(queue.running(), [4], "one that is not there has no rank");
}

#[test]
fn a_lower_bound_sends_the_last_back_and_a_higher_one_starts_the_next() {
    let mut queue = Carried::with(3, &[(1, normal(1)), (2, normal(2)), (3, normal(3)), (4, normal(4))]);
    queue.bound(Some(1));
    assert_eq!((queue.running(), queue.waiting()), (vec![1], vec![2, 3, 4]));
    queue.bound(None);
    assert_eq!((queue.running(), queue.waiting()), (vec![1, 2, 3, 4], vec![]));
    queue.bound(Some(0));
    assert_eq!(queue.running(), [1], "one at least");
}

#[test]
fn where_few_files_may_be_open_those_without_a_sharer_take_turns_and_make_room_for_others() {
    let mut queue = Carried::new(2, None);
    queue.enter(&[(1, normal(1)), (2, normal(2)), (3, normal(3)), (4, normal(4))]);
    assert_eq!(queue.running(), [1, 2]);
    queue.idles(1, PATIENCE);
    assert_eq!((queue.running(), queue.waiting()), (vec![2, 3], vec![4, 1]));
    queue.idles(2, PATIENCE);
    assert_eq!((queue.running(), queue.waiting()), (vec![3, 4], vec![1, 2]));
    queue.idles(3, PATIENCE);
    assert_eq!((queue.running(), queue.waiting()), (vec![1, 4], vec![2, 3]), "the first is tried again");
    queue.idles(1, PATIENCE / 2);
    assert_eq!(queue.running(), [1, 4], "it is given its time");
    queue.moves(1);
    assert_eq!((queue.running(), queue.waiting()), (vec![1, 4], vec![2, 3]), "its sharer is back");
    queue.enter(&[(5, rank(Priority::High, 5))]);
    assert_eq!((queue.running(), queue.waiting()), (vec![1, 5], vec![4, 2, 3]));
}

#[test]
fn a_sharer_that_comes_and_goes_makes_few_changes() {
    // For an hour it is there for a second and away for six.
    let mut queue = Carried::with(1, &[(1, rank(Priority::High, 1)), (2, normal(2))]);
    let (mut changes, mut idle, mut runs) = (0, Duration::ZERO, true);
    for second in 0..3_600 {
        queue.now += Duration::from_secs(1);
        if second % 7 == 0 {
            (idle, _) = (Duration::ZERO, queue.moves(1));
        } else {
            idle += Duration::from_secs(1);
            queue.idles(1, idle);
        }
        let now = queue.running().contains(&2);
        changes += u32::from(now != runs);
        runs = now;
        queue.check();
    }
    // Twice after the begin, and twice after every ten minutes.
    assert!(changes <= 14, "{changes}");
    // Who was calm for long is as patient as at first.
    queue.now += LONG;
    queue.idles(1, PATIENCE);
    assert_eq!(queue.running(), [1, 2]);
}

#[derive(Debug, Clone)]
enum Event {
    Begin(u32, Rank),
    End(u32),
    Stall(u32),
    Return(u32),
    Reprioritise(u32, Rank),
    Bound(Option<usize>),
    /// All that are there enter anew, as after a restart.
    Restart,
}

fn ranks() -> impl Strategy<Value = Rank> {
    (0usize..3, -4i64..4).prop_map(|(priority, position)| rank(Priority::ALL[priority], position))
}

fn events() -> impl Strategy<Value = Event> {
    let key = || 0u32..12;
    prop_oneof![
        4 => (key(), ranks()).prop_map(|(key, rank)| Event::Begin(key, rank)),
        2 => key().prop_map(Event::End),
        4 => key().prop_map(Event::Stall),
        3 => key().prop_map(Event::Return),
        2 => (key(), ranks()).prop_map(|(key, rank)| Event::Reprioritise(key, rank)),
        1 => prop_oneof![Just(None), (1usize..6).prop_map(Some)].prop_map(Event::Bound),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold_and_nobody_waits_in_vain(
        most in 1usize..8,
        bound in prop_oneof![Just(None), (1usize..6).prop_map(Some)],
        events in proptest::collection::vec(events(), 0..60),
    ) {
        let mut queue = Carried::new(most, bound);
        for event in events {
            queue.now += Duration::from_secs(1);
            let runs = |key: &u32| queue.runs.get(key).copied();
            match event {
                Event::Begin(key, rank) if runs(&key).is_none() => queue.enter(&[(key, rank)]),
                Event::End(key) => queue.leave(key),
                // A run that was told to end may have said it just before.
                Event::Stall(key) => queue.idles(key, LONG),
                Event::Return(key) => queue.moves(key),
                Event::Reprioritise(key, rank) => queue.rank(key, rank),
                Event::Bound(bound) => queue.bound(bound),
                Event::Restart => {
                    let there: Vec<(u32, Rank)> =
                        queue.queue.entries.iter().map(|(&key, entry)| (key, entry.rank)).collect();
                    let bound = queue.queue.bound;
                    queue = Carried::new(most, bound);
                    queue.enter(&there);
                    let mut first: Vec<Rank> = there.iter().map(|(_, rank)| *rank).collect();
                    first.sort_unstable();
                    first.truncate(queue.queue.places());
                    let running: Vec<Rank> = queue.queue.active.iter().map(|(rank, _)| *rank).collect();
                    prop_assert_eq!(running, first, "the first of the order begin");
                }
                Event::Begin(..) => {}
            }
            queue.check();
        }
        // From now on each that runs stalls or ends: all get to run.
        let mut ran: BTreeMap<u32, bool> = queue.runs.clone();
        let all = ran.len();
        for _ in 0..2 * all + 1 {
            for (step, key) in queue.running().into_iter().enumerate() {
                queue.now += Duration::from_secs(1);
                if step % 2 == 0 { queue.idles(key, LONG) } else { queue.leave(key) }
                queue.check();
                ran.extend(queue.running().into_iter().map(|key| (key, true)));
            }
        }
        let never: Vec<u32> = ran.iter().filter(|(_, ran)| !**ran).map(|(&key, _)| key).collect();
        prop_assert!(never.is_empty(), "never ran: {:?}", never);
    }
}
