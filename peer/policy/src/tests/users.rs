//! What the keys of one account get beside other accounts.

use proptest::prelude::*;

use super::*;

/// What users with so many keys each are sent, in pieces, when all want as much as they can get of a file. Connections
/// with pieces under way share the uplink; a key that is not served well asks again at once.
fn served_to(keys: &[u8], slots: usize, seeding: bool, rng: &mut fastrand::Rng) -> Vec<u32> {
    const PIECES: u32 = 5_000;
    let mut world = World::new(PIECES, slots);
    let mut channels = Vec::new();
    for (user, &keys) in (1..).zip(keys) {
        for _ in 0..keys {
            let id = channels.len();
            let peer = u8::try_from(id + 100).unwrap();
            channels.push((world.open_as(id as u64, (user, peer), seeding), usize::from(user) - 1));
        }
    }
    let mut asked = vec![HashSet::new(); channels.len()];
    let mut sending = vec![VecDeque::new(); channels.len()];
    let mut sent = vec![0; keys.len()];
    for _ in 0..2_000 {
        for (id, &(channel, _)) in channels.iter().enumerate() {
            while asked[id].len() < 4 {
                let index = rng.u32(..PIECES);
                if asked[id].insert(index) {
                    world.request(channel, index);
                }
            }
        }
        for action in world.actions() {
            let id = usize::try_from(action.channel().0).unwrap();
            match action {
                Action::Serve { piece, .. } => sending[id].push_back(piece.get()),
                Action::NotNow { piece, .. } | Action::Busy { piece, .. } => {
                    asked[id].remove(&piece.get());
                }
                Action::Stop { .. } => panic!("nothing was cancelled"),
            }
        }
        world.now += Duration::from_millis(5);
        world.handle(Event::Tick);
        let busy: Vec<usize> = (0..sending.len()).filter(|&id| !sending[id].is_empty()).collect();
        let Some(&id) = rng.choice(&busy) else { continue };
        let Some(index) = sending[id].pop_front() else { continue };
        asked[id].remove(&index);
        sent[channels[id].1] += 1;
        world.sent(channels[id].0, index);
    }
    sent
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_user_with_many_keys_gets_no_more_than_a_users_share(
        greedy in 2u8..60,
        others in 1usize..8,
        slots in 1usize..20,
        seeding in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut keys = vec![1; others];
        keys.insert(0, greedy);
        let sent = served_to(&keys, slots, seeding, &mut fastrand::Rng::with_seed(seed));
        let (all, share) = (sent.iter().sum::<u32>(), sent.iter().sum::<u32>() / u32::try_from(keys.len()).unwrap());
        prop_assert!(all > 1_000, "{sent:?}");
        prop_assert!(sent[0] <= share * 5 / 4 + 20, "{sent:?}");
        // With few slots the rarest pieces, and so chance, decide among users with one key: the least got 50 % of a share in 120
        // runs without an account of many keys, and 59 % beside one (27 November 2026).
        prop_assert!(sent[1..].iter().all(|&sent| sent + 20 >= share / 2), "{sent:?}");
    }
}

#[test]
fn a_users_further_keys_are_served_while_no_other_user_wants_anything() {
    let mut world = World::new(400, 8);
    let keys: Vec<ChannelId> =
        (0..10).map(|n| world.open_as(n, (1, u8::try_from(n).unwrap()), true)).collect();
    let other = world.open_as(99, (2, 99), true);
    for (&key, n) in keys.iter().zip(0..) {
        (0..20).for_each(|k| world.request(key, n * 20 + k));
    }
    let mut under_way = world.served();
    let users = |under_way: &[(u64, u32)]| under_way.iter().map(|&(id, _)| id).collect::<HashSet<u64>>();
    assert_eq!(users(&under_way).len(), 6, "some of the eight slots are left for others");
    (300..340).for_each(|index| world.request(other, index));
    under_way.extend(world.served());
    assert!(users(&under_way).contains(&99), "who finds a slot");
    for _ in 0..30 {
        // In the order in which they began, so that all that was under way before the other came has ended.
        let (id, index) = under_way.remove(0);
        world.sent(ChannelId(id), index);
        under_way.extend(world.served());
    }
    assert!(users(&under_way).len() <= 3, "{under_way:?}: one of each, and what is under way of a third");
    world.handle(Event::Closed { channel: other });
    under_way.retain(|&(id, _)| id != 99);
    under_way.extend(world.served());
    assert_eq!(users(&under_way).len(), 6, "all the same again when the other is gone");
}

#[test]
fn a_users_waiting_keys_do_not_make_a_leechers_queue_long_for_others() {
    let mut world = World::new(100, 100);
    let keys: Vec<ChannelId> =
        (0..40).map(|n| world.open_as(n, (1, u8::try_from(n).unwrap()), false)).collect();
    for (&key, index) in keys.iter().zip(0..) {
        world.request(key, index);
    }
    let mut busy = 0;
    for action in world.actions() {
        busy += usize::from(matches!(action, Action::Busy { .. }));
    }
    assert!(busy > 20, "its own keys are sent elsewhere: {busy}");
    let other = world.open_as(99, (2, 99), false);
    world.request(other, 50);
    assert_eq!(world.served(), [(99, 50)]);
}

#[test]
fn pieces_that_crawl_to_a_user_with_more_than_its_share_are_taken_back_when_another_starves() {
    let mut world = World::new(100, 4);
    let hers: Vec<ChannelId> =
        (0..3).map(|n| world.open_as(n, (1, u8::try_from(n).unwrap()), true)).collect();
    let (slow, late) = (world.open(50, 50, true), world.open(60, 60, true));
    for (&channel, index) in hers.iter().zip(0..) {
        world.request(channel, index);
    }
    assert_eq!(world.served().len(), 3);
    world.request(slow, 50);
    assert_eq!(world.served(), [(50, 50)], "all four slots are taken, and nothing comes out of any");
    let mut stopped = Vec::new();
    for _ in 0..=11 * 20 {
        world.request(late, 60);
        world.now += Duration::from_millis(50);
        world.handle(Event::Tick);
        for action in world.actions() {
            match action {
                Action::Stop { channel, .. } => stopped.push(channel),
                Action::Busy { .. } | Action::NotNow { .. } => {}
                Action::Serve { .. } => panic!("there is no slot"),
            }
        }
    }
    assert_eq!(stopped, hers, "each once, and not the one with its one slot");
    let piece = world.piece(0);
    world.handle(Event::Aborted { channel: hers[0], piece });
    world.request(late, 61);
    assert!(world.served().contains(&(60, 61)));
}
