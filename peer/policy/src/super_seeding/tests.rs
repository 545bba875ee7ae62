use proptest::prelude::*;

use super::*;

struct World {
    super_seeding: SuperSeeding,
    layout: Layout,
    now: Instant,
}

impl World {
    fn new(pieces: u32) -> Self {
        let layout = Layout::new(u64::from(pieces) * 65_536, 65_536).unwrap();
        Self {
            super_seeding: SuperSeeding::new(layout.clone(), fastrand::Rng::with_seed(1)),
            layout,
            now: Instant::now(),
        }
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.layout.piece(index).unwrap()
    }

    /// A requester of a user of its own.
    fn join(&mut self) -> RequesterId {
        self.join_as(u8::try_from(self.super_seeding.next_requester % 256).unwrap())
    }

    fn join_as(&mut self, user: u8) -> RequesterId {
        self.super_seeding.join(Uid([user; 16]))
    }

    fn ask(&mut self, requester: RequesterId, index: u32) -> Decision {
        self.super_seeding.ask(requester, self.piece(index), self.now)
    }

    fn give(&mut self, requester: RequesterId, index: u32) {
        assert_eq!(self.ask(requester, index), Decision::Serve);
        self.super_seeding.start(requester, self.piece(index), self.now);
        self.super_seeding.sent(requester, self.piece(index), Duration::ZERO, self.now);
    }

    fn have(&mut self, requester: RequesterId, index: u32) {
        self.super_seeding.have(requester, self.piece(index));
    }
}

fn instead(decision: Decision) -> Option<u32> {
    match decision {
        Decision::Serve => None,
        Decision::NotNow { instead, .. } => instead.map(PieceIndex::get),
    }
}

const WAIT: Decision = Decision::NotNow { after: RETRY, instead: None };

#[test]
fn what_is_kept_for_an_accounts_further_keys_is_kept_from_its_own_keys_alone() {
    let mut world = World::new(3);
    let keys = [world.join_as(1), world.join_as(1), world.join_as(1)];
    let other = world.join_as(2);
    for (index, &key) in keys.iter().enumerate() {
        world.give(key, u32::try_from(index).unwrap());
    }
    assert_eq!(world.ask(keys[0], 2), Decision::NotNow { after: RETRY, instead: None });
    assert_eq!(world.ask(other, 0), Decision::NotNow { after: RETRY, instead: None }, "as any other's");
    assert_eq!(world.ask(other, 2), Decision::Serve);
    assert_eq!(world.ask(keys[1], 2), Decision::NotNow { after: RETRY, instead: None }, "the other's now");
    world.super_seeding.leave(keys[0]);
    assert!(matches!(world.ask(other, 1), Decision::NotNow { .. }), "the first now");
}

#[test]
fn a_lone_requester_is_never_put_off() {
    let mut world = World::new(50);
    let requester = world.join();
    for round in 0..3 {
        for index in 0..50 {
            world.give(requester, index);
            if round == 1 {
                world.have(requester, index);
            }
        }
    }
}

#[test]
fn a_given_piece_is_exchanged_for_an_ungiven_one_that_is_kept() {
    let mut world = World::new(2);
    let (a, b, c) = (world.join(), world.join(), world.join());
    world.give(a, 0);
    assert_eq!(instead(world.ask(b, 0)), Some(1));
    // Piece 1 is b's now, so c has to wait for what a and b pass on.
    assert_eq!(world.ask(c, 1), WAIT);
    assert_eq!(world.ask(c, 0), WAIT);
    world.have(a, 0);
    assert_eq!(world.ask(c, 0), Decision::Serve);
    world.give(b, 1);
    world.have(b, 1);
    assert_eq!(world.ask(a, 1), Decision::Serve);
}

#[test]
fn a_promise_ends_after_two_seconds() {
    let mut world = World::new(2);
    let (a, b) = (world.join(), world.join());
    world.give(a, 0);
    assert_eq!(instead(world.ask(b, 0)), Some(1));
    assert_eq!(world.ask(a, 1), WAIT);
    world.now += PROMISE;
    assert_eq!(world.ask(a, 1), Decision::Serve);
}

#[test]
fn no_requester_is_put_off_for_longer_than_two_seconds() {
    let mut world = World::new(100);
    let (a, b) = (world.join(), world.join());
    world.give(a, 0);
    world.have(a, 0);
    let start = world.now;
    while world.ask(b, 0) != Decision::Serve {
        world.now += RETRY;
    }
    assert_eq!(world.now - start, PUT_OFF);
}

#[test]
fn a_requester_that_keeps_everything_for_itself_delays_others_once() {
    let mut world = World::new(100);
    let (hostile, honest) = (world.join(), world.join());
    let start = world.now;
    let mut got = 0;
    while got < 100 {
        for index in 0..100 {
            let piece = world.piece(index);
            world.super_seeding.withdraw(hostile, piece);
            world.ask(hostile, index);
        }
        while got < 100 && world.ask(honest, got) == Decision::Serve {
            world.super_seeding.start(honest, world.piece(got), world.now);
            got += 1;
        }
        world.now += RETRY;
    }
    assert!(world.now - start <= PUT_OFF + RETRY);
}

#[test]
fn what_a_stopped_requester_got_is_given_again() {
    let mut world = World::new(2);
    let (a, b) = (world.join(), world.join());
    world.give(a, 0);
    world.give(b, 1);
    world.have(b, 1);
    assert_eq!(world.ask(b, 0), WAIT);
    world.now += MIN_GRACE;
    assert_eq!(world.ask(b, 0), Decision::Serve);
}

#[test]
fn what_a_lost_requester_got_is_given_again_at_once() {
    let mut world = World::new(2);
    let (a, b) = (world.join(), world.join());
    world.give(a, 0);
    world.give(a, 1);
    world.have(a, 1);
    assert_eq!(world.ask(b, 0), WAIT);
    world.super_seeding.leave(a);
    assert_eq!(world.ask(b, 0), Decision::Serve);
    assert_eq!(world.ask(b, 1), Decision::Serve);
}

#[test]
fn who_passes_pieces_on_owes_less() {
    let mut world = World::new(8);
    let (a, b) = (world.join(), world.join());
    for index in 0..4 {
        world.give(a, index);
        world.have(a, index);
    }
    assert_eq!(world.super_seeding.debt(a), 2);
    for index in 0..3 {
        world.have(b, index);
    }
    assert_eq!((world.super_seeding.debt(a), world.super_seeding.debt(b)), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Join,
    Leave(usize),
    Have(usize, u32),
    Ask(usize, u32),
    Withdraw(usize, u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
        6 => (any::<usize>(), 0u32..20).prop_map(|(t, p)| Step::Have(t, p)),
        12 => (any::<usize>(), 0u32..20).prop_map(|(t, p)| Step::Ask(t, p)),
        2 => (any::<usize>(), 0u32..20).prop_map(|(t, p)| Step::Withdraw(t, p)),
        4 => (0u64..1_500).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn counts_and_lists_agree_in_random_worlds(steps in proptest::collection::vec(step(), 1..400)) {
        let mut world = World::new(20);
        let mut requesters = vec![world.join()];
        for step in steps {
            let some = |n: usize, requesters: &[RequesterId]| requesters.get(n % requesters.len().max(1)).copied();
            match step {
                Step::Join => requesters.push(world.join_as(u8::try_from(requesters.len() % 3).unwrap())),
                Step::Leave(n) if requesters.len() > 1 => {
                    let requester = requesters.swap_remove(n % requesters.len());
                    world.super_seeding.leave(requester);
                }
                Step::Leave(_) => {}
                Step::Have(n, p) => world.have(some(n, &requesters).unwrap(), p),
                Step::Ask(n, p) => {
                    let requester = some(n, &requesters).unwrap();
                    if world.ask(requester, p) == Decision::Serve {
                        world.super_seeding.start(requester, world.piece(p), world.now);
                    }
                }
                Step::Withdraw(n, p) => world.super_seeding.withdraw(some(n, &requesters).unwrap(), world.piece(p)),
                Step::Wait(ms) => world.now += Duration::from_millis(ms),
            }
            let super_seeding = &world.super_seeding;
            for (place, index) in super_seeding.ungiven.iter().enumerate() {
                let piece = &super_seeding.pieces[index.as_usize()];
                prop_assert_eq!(piece.state, PieceState::Ungiven);
                prop_assert_eq!(piece.place as usize, place);
                prop_assert_eq!(piece.holders, 0);
            }
            let ungiven = super_seeding.pieces.iter().filter(|piece| piece.state == PieceState::Ungiven).count();
            prop_assert_eq!(ungiven, super_seeding.ungiven.len());
            for index in world.layout.iter() {
                let holders = super_seeding.requesters.values().filter(|requester| requester.holds.has(index)).count();
                let piece = &super_seeding.pieces[index.as_usize()];
                prop_assert!(piece.holders as usize >= holders);
                prop_assert_eq!(piece.state == PieceState::Held, piece.holders > 0);
            }
        }
    }
}

#[test]
fn nothing_is_kept_for_one_that_takes_its_requests_back_also_after_it_comes_again() {
    let mut world = World::new(200);
    let (mut greedy, honest) = (world.join_as(1), world.join_as(2));
    for index in 0..=MAX_PROMISED {
        assert_eq!(world.ask(greedy, index), Decision::Serve);
        world.super_seeding.start(greedy, world.piece(index), world.now);
        world.super_seeding.unsent(greedy, world.piece(index));
        assert_eq!(world.super_seeding.copies(world.piece(index)), 0);
    }
    for again in [false, true] {
        if again {
            world.super_seeding.leave(greedy);
            greedy = world.join_as(1);
        }
        let first = if again { 50 } else { 0 };
        for index in first..first + MAX_PROMISED {
            assert_eq!(world.ask(greedy, index), Decision::Serve, "it is served");
            assert_eq!(world.ask(honest, index), Decision::Serve, "and nothing is kept from others");
            world.super_seeding.withdraw(honest, world.piece(index));
            world.have(honest, index);
        }
    }
    // What is announced counts for more.
    for index in 100..150 {
        world.have(greedy, index);
    }
    assert_eq!(world.ask(greedy, 199), Decision::Serve);
    assert_eq!(instead(world.ask(honest, 199)).map(|other| other != 199), Some(true));
}

#[test]
fn a_piece_that_is_sent_again_and_again_and_never_announced_is_not_kept_for_longer() {
    let mut world = World::new(8);
    let (greedy, honest) = (world.join_as(1), world.join_as(2));
    let begun = world.now;
    while world.now < begun + MIN_GRACE {
        (0..8).for_each(|index| world.give(greedy, index));
        world.now += Duration::from_millis(100);
    }
    world.now += Duration::from_millis(1);
    for index in 0..8 {
        assert_eq!(world.ask(honest, index), Decision::Serve);
        world.super_seeding.withdraw(honest, world.piece(index));
        // Nothing more is kept for it.
        world.give(greedy, index);
        assert_eq!(world.ask(honest, index), Decision::Serve);
        world.super_seeding.withdraw(honest, world.piece(index));
    }
}
