//! Tables and random worlds for the upload policy.

use proptest::prelude::*;
use shoal_common::{Fid, Gid};

use super::scheduler::{LEECHER_QUEUE, LEECHER_SLOTS, MIN_AHEAD};
use super::*;

mod users;

const KEY: FileKey = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };

struct World {
    policy: Policy,
    layout: Layout,
    now: Instant,
}

impl World {
    fn new(pieces: u32, slots: usize) -> Self {
        let layout = Layout::new(u64::from(pieces) * 65_536, 65_536).unwrap();
        Self { policy: Policy::new(slots, fastrand::Rng::with_seed(3)), layout, now: Instant::now() }
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.layout.piece(index).unwrap()
    }

    /// Opens the file to a peer that is the only one of its user.
    fn open(&mut self, id: u64, peer: u8, seeding: bool) -> ChannelId {
        self.open_as(id, (peer, peer), seeding)
    }

    fn open_as(&mut self, id: u64, (user, peer): (u8, u8), seeding: bool) -> ChannelId {
        let channel = ChannelId(id);
        let (user, peer, layout) = (Uid([user; 16]), PeerId([peer; 32]), self.layout.clone());
        self.handle(Event::Opened { channel, user, peer, key: KEY, layout, seeding });
        channel
    }

    fn handle(&mut self, event: Event) {
        self.policy.handle(event, self.now);
    }

    fn request(&mut self, channel: ChannelId, index: u32) {
        let piece = self.piece(index);
        self.handle(Event::Request { channel, piece });
    }

    fn sent(&mut self, channel: ChannelId, index: u32) {
        let piece = self.piece(index);
        self.handle(Event::Sent { channel, piece });
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.policy.next(self.now)).collect()
    }

    fn served(&mut self) -> Vec<(u64, u32)> {
        let serve = |action| match action {
            Action::Serve { channel, piece } => (channel.0, piece.get()),
            other => panic!("{other:?}"),
        };
        self.actions().into_iter().map(serve).collect()
    }
}

#[test]
fn a_lone_requester_gets_its_pieces_in_the_order_of_its_requests() {
    for seeding in [true, false] {
        let mut world = World::new(100, 4);
        let channel = world.open(1, 1, seeding);
        let order: Vec<u32> = (0..100).rev().collect();
        order.iter().for_each(|&index| world.request(channel, index));
        let mut got = Vec::new();
        while got.len() < 100 {
            let served = world.served();
            assert!(!served.is_empty());
            for (_, index) in served {
                got.push(index);
                world.sent(channel, index);
            }
        }
        assert_eq!(got, order);
        assert!(world.policy.is_idle());
    }
}

#[test]
fn a_slow_requester_is_kept_ahead_by_little_and_a_fast_one_by_more() {
    let mut world = World::new(200, 4);
    let channel = world.open(1, 1, true);
    (0..200).for_each(|index| world.request(channel, index));
    let mut ahead = world.served();
    assert_eq!(ahead.len() as u64 * 65_536, MIN_AHEAD);
    for _ in 0..100 {
        let (_, index) = ahead.remove(0);
        world.now += Duration::from_micros(100);
        world.sent(channel, index);
        ahead.extend(world.served());
    }
    assert!(ahead.len() > 20, "{}", ahead.len());
}

#[test]
fn slots_bound_the_peers_served_and_turns_go_round() {
    let mut world = World::new(60, 2);
    let channels: Vec<ChannelId> = (0..6).map(|n| world.open(n, u8::try_from(n).unwrap(), false)).collect();
    for (n, &channel) in channels.iter().enumerate() {
        (0..10).for_each(|k| world.request(channel, u32::try_from(n * 10 + k).unwrap()));
    }
    let mut count = [0usize; 6];
    let mut under_way = Vec::new();
    for _ in 0..60 {
        under_way.extend(world.served());
        let peers: HashSet<u64> = under_way.iter().map(|&(channel, _)| channel).collect();
        assert!(peers.len() <= 2);
        let (channel, index) = under_way.remove(0);
        count[usize::try_from(channel).unwrap()] += 1;
        world.sent(ChannelId(channel), index);
        let (least, most) = (count.iter().min().unwrap(), count.iter().max().unwrap());
        assert!(most - least <= 3, "{count:?}");
    }
    assert_eq!(count, [10; 6]);
}

#[test]
fn a_leecher_serves_four_peers_at_a_time() {
    let mut world = World::new(20, 100);
    for n in 0..6 {
        let channel = world.open(n, u8::try_from(n).unwrap(), false);
        world.request(channel, 0);
    }
    assert_eq!(world.served().len(), LEECHER_SLOTS);
}

#[test]
fn a_leecher_with_a_long_queue_sends_newcomers_elsewhere_unless_they_go_hungry() {
    let mut world = World::new(40, 100);
    let enough = u64::try_from(LEECHER_SLOTS + LEECHER_QUEUE).unwrap();
    let channels: Vec<ChannelId> =
        (0..=enough).map(|n| world.open(n, u8::try_from(n).unwrap(), false)).collect();
    let (&late, early) = channels.split_last().unwrap();
    let mut served = 0;
    for (&channel, index) in early.iter().zip(0..) {
        world.request(channel, index);
        served += world.served().len();
    }
    assert_eq!(served, LEECHER_SLOTS);
    world.request(late, 30);
    let busy = Action::Busy { channel: late, piece: world.piece(30), after: ELSEWHERE };
    assert_eq!(world.actions(), [busy]);
    world.now += Duration::from_millis(990);
    world.request(late, 30);
    assert_eq!(world.actions(), [busy]);
    world.now += Duration::from_millis(10);
    world.request(late, 30);
    assert_eq!(world.actions(), [], "it waits now");
}

#[test]
fn a_peer_that_others_feed_leaves_the_first_place_to_rarer_pieces() {
    for fed in [true, false] {
        let mut world = World::new(20, 1);
        let channels = [1, 2, 3].map(|n| world.open(n, u8::try_from(n).unwrap(), false));
        let [a, b, c] = channels;
        world.request(a, 0);
        assert_eq!(world.served(), [(1, 0)]);
        world.request(b, 0);
        world.request(c, 1);
        world.now += Duration::from_secs(1);
        let pieces = vec![world.piece(5)];
        for channel in [b, c].into_iter().filter(|_| fed) {
            world.handle(Event::Have { channel, pieces: pieces.clone() });
        }
        world.sent(a, 0);
        assert_eq!(world.served(), [if fed { (3, 1) } else { (2, 0) }]);
    }
}

#[test]
fn a_piece_that_another_got_meanwhile_is_exchanged() {
    let mut world = World::new(3, 1);
    let (a, b, c) = (world.open(1, 1, true), world.open(2, 2, true), world.open(3, 3, true));
    world.request(a, 0);
    assert_eq!(world.served(), [(1, 0)]);
    world.request(b, 1);
    // The promise to b has lapsed by now, but not its request.
    world.now += Duration::from_secs(2);
    world.request(c, 1);
    world.sent(a, 0);
    assert_eq!(world.served(), [(2, 1)]);
    world.sent(b, 1);
    let (piece, actions) = (world.piece(1), world.actions());
    assert!(
        matches!(actions[..], [Action::NotNow { channel, piece: refused, instead: Some(better), .. }]
            if channel == c && refused == piece && better != piece),
        "{actions:?}"
    );
}

#[test]
fn a_peer_that_waits_too_long_for_a_slot_is_answered_busy_and_keeps_its_place() {
    let mut world = World::new(20, 1);
    let (a, b, c) = (world.open(1, 1, false), world.open(2, 2, false), world.open(3, 3, false));
    world.request(a, 0);
    assert_eq!(world.served(), [(1, 0)]);
    world.request(b, 1);
    assert_eq!(world.served(), []);
    world.now += LONGEST_WAIT;
    world.handle(Event::Tick);
    let piece = world.piece(1);
    assert_eq!(world.actions(), [Action::Busy { channel: b, piece, after: BUSY }]);
    world.now += BUSY;
    world.request(c, 2);
    world.request(b, 1);
    world.sent(a, 0);
    assert_eq!(world.served(), [(2, 1)]);
}

#[test]
fn requests_taken_back_end_once() {
    let mut world = World::new(20, 1);
    let (a, b) = (world.open(1, 1, true), world.open(2, 2, true));
    world.request(a, 0);
    world.request(b, 1);
    assert_eq!(world.served(), [(1, 0)]);
    let (first, second) = (world.piece(0), world.piece(1));
    world.handle(Event::Cancel { channel: b, piece: second });
    let after = Duration::ZERO;
    assert_eq!(world.actions(), [Action::NotNow { channel: b, piece: second, after, instead: None }]);
    world.handle(Event::Cancel { channel: a, piece: first });
    assert_eq!(world.actions(), [Action::Stop { channel: a, piece: first }]);
    world.handle(Event::Aborted { channel: a, piece: first });
    world.request(b, 0);
    assert_eq!(world.served(), [(2, 0)], "what was not delivered is given to the next");
}

#[test]
fn a_closed_channel_frees_its_slot_and_its_pieces() {
    let mut world = World::new(2, 1);
    let (a, b) = (world.open(1, 1, true), world.open(2, 2, true));
    world.request(a, 0);
    world.request(a, 1);
    assert_eq!(world.served(), [(1, 0), (1, 1)]);
    world.request(b, 0);
    assert!(matches!(world.actions()[..], [Action::NotNow { instead: None, .. }]));
    world.handle(Event::Closed { channel: a });
    world.request(b, 0);
    assert_eq!(world.served(), [(2, 0)]);
}

/// One seeder and `leechers` of which the first `stopped` never announce anything, and take only every piece once.
/// Leechers trade nothing, but see each other's pieces through a perfect swarm: what one announced, all others may
/// fetch from it for nothing. Gives the number of pieces that the seeder sent until all others had everything.
fn flood(leechers: u8, stopped: u8, pieces: u32, slots: usize, seed: u64) -> usize {
    let mut world = World::new(pieces, slots);
    let mut rng = fastrand::Rng::with_seed(seed);
    let channels: Vec<ChannelId> = (0..leechers).map(|n| world.open(u64::from(n), n, true)).collect();
    let mut lacks: Vec<Vec<u32>> = channels.iter().map(|_| (0..pieces).collect()).collect();
    let mut waits: Vec<Option<(u32, Instant)>> = vec![None; channels.len()];
    let mut asked: Vec<Option<u32>> = vec![None; channels.len()];
    let (mut sent, mut steps) = (0, 0);
    while lacks.iter().skip(stopped.into()).any(|lacks| !lacks.is_empty()) {
        steps += 1;
        assert!(steps < 200_000, "seed {seed}: the swarm stands still");
        for (n, &channel) in channels.iter().enumerate() {
            let ready = waits[n].is_none_or(|(_, at)| at <= world.now);
            if asked[n].is_some() || lacks[n].is_empty() || !ready {
                continue;
            }
            let wish = waits[n].take().map(|(piece, _)| piece).filter(|piece| lacks[n].contains(piece));
            let index = wish.unwrap_or_else(|| lacks[n][rng.usize(..lacks[n].len())]);
            asked[n] = Some(index);
            world.request(channel, index);
        }
        for action in world.actions() {
            let n = usize::try_from(action.channel().0).unwrap();
            match action {
                Action::Serve { piece, .. } => {
                    sent += 1;
                    world.now += Duration::from_millis(10);
                    world.sent(channels[n], piece.get());
                    lacks[n].retain(|&lacking| lacking != piece.get());
                    asked[n] = None;
                    if n < usize::from(stopped) {
                        continue;
                    }
                    for (other, &channel) in channels.iter().enumerate().skip(stopped.into()) {
                        lacks[other]
                            .retain(|&lacking| lacking != piece.get() || asked[other] == Some(lacking));
                        if asked[other] != Some(piece.get()) {
                            world.handle(Event::Have { channel, pieces: vec![piece] });
                        }
                    }
                }
                Action::NotNow { piece, after, instead, .. } => {
                    asked[n] = None;
                    waits[n] = match instead {
                        Some(better) => Some((better.get(), world.now)),
                        None => Some((piece.get(), world.now + after)),
                    };
                }
                Action::Busy { piece, after, .. } => {
                    asked[n] = None;
                    waits[n] = Some((piece.get(), world.now + after));
                }
                Action::Stop { .. } => panic!("nothing was taken back"),
            }
        }
        world.now += Duration::from_millis(5);
        world.handle(Event::Tick);
    }
    sent
}

#[test]
fn a_seeder_sends_hardly_more_than_one_copy() {
    for seed in 0..5 {
        let sent = flood(10, 0, 200, 4, seed);
        assert!(sent <= 230, "seed {seed}: {sent} pieces sent for 200");
    }
}

#[test]
fn stopped_leechers_hold_nothing_up() {
    for seed in 0..5 {
        let sent = flood(10, 3, 200, 4, seed);
        assert!(sent <= 200 + 3 * 200, "seed {seed}: {sent}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8, bool),
    Close(usize),
    Request(usize, u32),
    Cancel(usize, u32),
    Have(usize, u32),
    Finish(usize, bool),
    Complete,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u8..5, any::<bool>()).prop_map(|(peer, seeding)| Step::Open(peer, seeding)),
        1 => any::<usize>().prop_map(Step::Close),
        20 => (any::<usize>(), 0u32..12).prop_map(|(n, p)| Step::Request(n, p)),
        3 => (any::<usize>(), 0u32..12).prop_map(|(n, p)| Step::Cancel(n, p)),
        3 => (any::<usize>(), 0u32..12).prop_map(|(n, p)| Step::Have(n, p)),
        15 => (any::<usize>(), any::<bool>()).prop_map(|(n, whole)| Step::Finish(n, whole)),
        1 => Just(Step::Complete),
        4 => (0u64..2_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_request_ends_once_in_random_worlds(
        slots in 1usize..4,
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut world = World::new(12, slots);
        let mut open: Vec<ChannelId> = Vec::new();
        let mut waiting: HashSet<(ChannelId, u32)> = HashSet::new();
        let mut active: Vec<(ChannelId, u32)> = Vec::new();
        let mut peers: HashMap<ChannelId, u8> = HashMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let some = |n: usize| open.get(n % open.len().max(1)).copied();
            match step {
                Step::Open(peer, seeding) => {
                    let channel = world.open(number as u64, peer, seeding);
                    peers.insert(channel, peer);
                    open.push(channel);
                }
                Step::Close(n) => if let Some(channel) = some(n) {
                    world.handle(Event::Closed { channel });
                    open.retain(|&id| id != channel);
                    waiting.retain(|&(id, _)| id != channel);
                    active.retain(|&(id, _)| id != channel);
                },
                Step::Request(n, p) => if let Some(channel) = some(n)
                    && !active.contains(&(channel, p))
                    && waiting.insert((channel, p))
                {
                    world.request(channel, p);
                },
                Step::Cancel(n, p) => if let Some(channel) = some(n) {
                    let piece = world.piece(p);
                    world.handle(Event::Cancel { channel, piece });
                },
                Step::Have(n, p) => if let Some(channel) = some(n) {
                    let pieces = vec![world.piece(p)];
                    world.handle(Event::Have { channel, pieces });
                },
                Step::Finish(n, whole) => if !active.is_empty() {
                    let (channel, p) = active.remove(n % active.len());
                    let piece = world.piece(p);
                    world.handle(if whole { Event::Sent { channel, piece } } else { Event::Aborted { channel, piece } });
                },
                Step::Complete => world.handle(Event::Completed { key: KEY }),
                Step::Wait(ms) => {
                    world.now += Duration::from_millis(ms);
                    world.handle(Event::Tick);
                }
            }
            for action in world.actions() {
                match action {
                    Action::Serve { channel, piece } => {
                        prop_assert!(waiting.remove(&(channel, piece.get())));
                        active.push((channel, piece.get()));
                    }
                    Action::NotNow { channel, piece, .. } | Action::Busy { channel, piece, .. } => {
                        prop_assert!(waiting.remove(&(channel, piece.get())));
                    }
                    Action::Stop { channel, piece } => prop_assert!(active.contains(&(channel, piece.get()))),
                }
            }
            let served: HashSet<u8> = active.iter().map(|(channel, _)| peers[channel]).collect();
            prop_assert!(served.len() <= slots);
            prop_assert_eq!(served.len(), world.policy.active_peers);
        }
        // Whatever is under way ends; then every request must end too.
        for _ in 0..200 {
            for (channel, p) in std::mem::take(&mut active) {
                world.sent(channel, p);
            }
            world.now += Duration::from_millis(100);
            world.handle(Event::Tick);
            for action in world.actions() {
                let id = action.channel();
                match action {
                    Action::Serve { piece, .. } => {
                        prop_assert!(waiting.remove(&(id, piece.get())));
                        active.push((id, piece.get()));
                    }
                    Action::NotNow { piece, .. } | Action::Busy { piece, .. } => {
                        prop_assert!(waiting.remove(&(id, piece.get())));
                    }
                    Action::Stop { .. } => {}
                }
            }
        }
        prop_assert!(waiting.is_empty() && world.policy.is_idle());
    }
}
