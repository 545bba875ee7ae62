//! The core by itself, in made-up time.

mod random;

use super::*;
use crate::source::Run;

const PIECE: u32 = 65_536;

fn layout(pieces: u32) -> Layout {
    Layout::new(u64::from(pieces) * u64::from(PIECE), PIECE).unwrap()
}

fn limits() -> Limits {
    Limits { max_in_flight: 64, min_in_flight: 1, max_in_flight_bytes: u64::MAX, run: Run::Single }
}

fn bits(layout: &Layout, pieces: impl IntoIterator<Item = u32>) -> Have {
    let mut bits = Bitfield::none(layout);
    for piece in pieces.into_iter().filter_map(|index| layout.piece(index)) {
        bits.insert(piece);
    }
    Have::Bits(std::sync::Arc::new(bits))
}

/// A core, its clock and the commands that it gave.
struct Table {
    core: DownloadCore,
    layout: Layout,
    now: Instant,
}

impl Table {
    fn new(pieces: u32) -> Self {
        let layout = layout(pieces);
        let core = DownloadCore::new(layout.clone(), &Bitfield::none(&layout), 24 << 20, Rng::with_seed(1));
        Self { core, layout, now: Instant::now() }
    }

    fn add(&mut self, id: u64, have: Have) -> Vec<Command> {
        self.handle(Event::SourceAdded { source: SourceId(id), limits: limits(), have })
    }

    fn handle(&mut self, event: Event) -> Vec<Command> {
        self.core.handle(event, self.now);
        self.core.assert_consistent();
        std::iter::from_fn(|| self.core.poll_command()).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<Command> {
        self.now += time;
        self.handle(Event::Tick)
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.layout.piece(index).unwrap()
    }

    fn fail(&mut self, request: RequestId, error: SourceError) -> Vec<Command> {
        self.handle(Event::Finished { request, result: Err(error) })
    }

    /// The piece comes whole and is right.
    fn deliver(&mut self, request: RequestId, index: u32) -> Vec<Command> {
        let piece = self.piece(index);
        let mut commands = self.handle(Event::Arrived { request, piece, first_byte: Some(self.now) });
        commands.extend(self.handle(Event::Verified(piece)));
        commands.extend(self.handle(Event::Written(piece)));
        commands
    }
}

/// The fetches among the commands: (request, source, first piece).
fn fetches(commands: &[Command]) -> Vec<(RequestId, u64, u32)> {
    let fetch = |command: &Command| match command {
        Command::Fetch { request, source, run } => Some((*request, source.0, run.first().get())),
        _ => None,
    };
    commands.iter().filter_map(fetch).collect()
}

#[test]
fn pieces_come_in_file_order_while_no_other_peer_downloads() {
    let mut table = Table::new(100);
    let mut next = fetches(&table.add(0, Have::All));
    for expected in 0..100 {
        let (request, _, piece) = next.remove(0);
        assert_eq!(piece, expected);
        table.now += Duration::from_millis(10);
        next.extend(fetches(&table.deliver(request, piece)));
    }
    assert!(table.core.is_complete() && next.is_empty() && !table.core.is_busy());
}

#[test]
fn with_another_downloader_the_rarest_come_first_from_a_random_start() {
    let starts: BTreeSet<u32> = (0..20)
        .map(|seed| {
            let mut table = Table::new(1_000);
            table.core.rng = Rng::with_seed(seed);
            table.handle(Event::OthersDownloading(true));
            fetches(&table.add(0, Have::All))[0].2
        })
        .collect();
    assert!(starts.len() > 15, "{starts:?}");

    let mut table = Table::new(100);
    let most = bits(&table.layout, (0..100).filter(|index| index % 10 != 7));
    assert_eq!(fetches(&table.add(1, most.clone())).len(), 1);
    assert_eq!(fetches(&table.add(2, most)).len(), 1);
    let picks = fetches(&table.add(0, Have::All));
    assert!(picks.iter().all(|(_, _, piece)| piece % 10 == 7), "{picks:?}");
}

#[test]
fn a_long_request_ends_where_pieces_are_less_rare() {
    let mut table = Table::new(64);
    let layout = table.layout.clone();
    table.add(2, bits(&layout, 20..64));
    let limits = Limits { max_in_flight: 1, run: Run::UpTo(64), ..limits() };
    let have = bits(&layout, 0..40);
    let mut commands = table.handle(Event::SourceAdded { source: SourceId(1), limits, have });
    let (mut rare, mut longest) = (0, 0);
    while rare < 20 {
        let asked = commands.iter().find_map(|command| match command {
            Command::Fetch { request, source: SourceId(1), run } => Some((*request, run.clone())),
            _ => None,
        });
        let (request, run) = asked.unwrap();
        assert!(run.pieces().all(|piece| piece.get() < 20), "{run:?} with {rare} of the rare ones there");
        (rare, longest) = (rare + run.count(), longest.max(run.count()));
        commands.clear();
        for piece in run.pieces() {
            table.now += Duration::from_millis(1);
            commands.extend(table.deliver(request, piece.get()));
        }
    }
    assert!(longest > 1);
}

#[test]
fn a_refusal_is_followed_by_what_the_source_prefers() {
    let mut table = Table::new(100);
    let asked = fetches(&table.add(0, Have::All));
    let (request, _, piece) = asked[0];
    let (refused, better) = (table.piece(piece), table.piece(50));
    let after = Duration::from_millis(500);
    let commands = table.fail(request, SourceError::NotNow { piece: refused, after, instead: Some(better) });
    assert_eq!(fetches(&commands)[0].2, 50);
    // The refused piece is asked for again when its time has come.
    let (request, _, _) = fetches(&commands)[0];
    assert_ne!(fetches(&table.deliver(request, 50))[0].2, piece);
    table.pass(after);
    let mut next = fetches(&table.pass(Duration::from_millis(10)));
    next.extend(asked[1..].iter().flat_map(|&(request, _, piece)| fetches(&table.deliver(request, piece))));
    assert!(next.iter().any(|&(_, _, asked)| asked == piece), "{next:?}");
}

#[test]
fn two_pieces_that_name_each_other_are_no_loop() {
    let mut table = Table::new(2);
    let mut asked = fetches(&table.add(0, bits(&layout(2), 0..2)));
    let mut requests = 0;
    while let Some((request, _, piece)) = asked.pop() {
        requests += 1;
        let (refused, instead) = (table.piece(piece), Some(table.piece(1 - piece)));
        let refusal = SourceError::NotNow { piece: refused, after: Duration::from_secs(1), instead };
        asked.extend(fetches(&table.fail(request, refusal)));
        assert!(requests < 10);
    }
}

#[test]
fn a_busy_source_is_left_alone() {
    let mut table = Table::new(10);
    let asked = fetches(&table.add(0, Have::All));
    for (request, _, _) in asked {
        assert!(fetches(&table.fail(request, SourceError::Busy(Duration::from_secs(2)))).is_empty());
    }
    assert!(fetches(&table.pass(Duration::from_millis(1_900))).is_empty());
    assert!(!fetches(&table.pass(Duration::from_millis(200))).is_empty());
}

#[test]
fn a_silent_source_loses_its_requests_and_gets_another_chance() {
    let mut table = Table::new(4);
    let lost: Vec<_> = fetches(&table.add(0, bits(&layout(4), [1]))).iter().map(|fetch| fetch.0).collect();
    assert!(table.pass(SILENCE).is_empty());
    let commands = table.pass(Duration::from_millis(25));
    assert_eq!(commands, lost.iter().map(|&request| Command::Cancel { request }).collect::<Vec<_>>());
    assert!(fetches(&table.pass(Duration::from_millis(1_900))).is_empty());
    assert_eq!(fetches(&table.pass(Duration::from_millis(200))).len(), 1);
}

#[test]
fn who_is_held_up_by_us_is_not_silent() {
    let mut table = Table::new(4);
    let (request, _, _) = fetches(&table.add(0, Have::All))[0];
    for _ in 0..10 {
        table.now += SILENCE / 2;
        let held_up = Event::Progress { request, received: 0, first_byte: None, held_up: true };
        assert!(table.handle(held_up).is_empty() && table.handle(Event::Tick).is_empty());
    }
}

#[test]
fn a_bad_piece_bans_its_source_for_good() {
    let mut table = Table::new(4);
    let (request, _, piece) = fetches(&table.add(0, Have::All))[0];
    let bad = table.piece(piece);
    table.handle(Event::Arrived { request, piece: bad, first_byte: None });
    let commands = table.handle(Event::Rejected(bad));
    let dropped = |command: &Command| matches!(command, Command::Drop { reason: DropReason::Banned(_), .. });
    assert!(commands.iter().any(dropped), "{commands:?}");
    let again = table.add(0, Have::All);
    assert!(again.iter().all(dropped) && again.len() == 1, "{again:?}");
    assert!(fetches(&table.add(1, Have::All)).iter().any(|fetch| fetch.2 == piece));
}

#[test]
fn a_gone_source_may_come_back() {
    let mut table = Table::new(4);
    let (request, _, _) = fetches(&table.add(0, Have::All))[0];
    table.fail(request, SourceError::Gone("closed".into()));
    assert_eq!(table.core.sources(), 0);
    assert!(!fetches(&table.add(0, Have::All)).is_empty());
}

#[test]
fn the_endgame_asks_twice_for_what_is_overdue_and_cancels_the_later_one() {
    let mut table = Table::new(2);
    let slow = fetches(&table.add(0, Have::All));
    assert_eq!(slow.len(), 2);
    assert!(fetches(&table.add(1, Have::All)).is_empty(), "nothing is overdue yet");
    let twice = fetches(&table.pass(Duration::from_millis(1_100)));
    assert_eq!(twice.iter().map(|fetch| (fetch.1, fetch.2)).collect::<Vec<_>>(), [(1, 0)]);
    assert!(fetches(&table.add(2, Have::All)).iter().all(|fetch| fetch.2 == 1), "two copies at most");
    let commands = table.deliver(twice[0].0, 0);
    assert!(commands.contains(&Command::Cancel { request: slow[0].0 }), "{commands:?}");
    // The late bytes of the other are not checked again.
    let late = Event::Arrived { request: slow[0].0, piece: table.piece(0), first_byte: None };
    assert!(!table.handle(late).contains(&Command::Check { piece: table.layout.piece(0).unwrap() }));
}

#[test]
fn a_lost_twin_leaves_the_piece_to_the_other() {
    let mut table = Table::new(1);
    let first = fetches(&table.add(0, Have::All))[0].0;
    table.add(1, Have::All);
    let second = fetches(&table.pass(Duration::from_millis(1_100)))[0].0;
    assert!(fetches(&table.fail(first, SourceError::Gone("died".into()))).is_empty());
    table.deliver(second, 0);
    assert!(table.core.is_complete());
}

#[test]
fn a_fast_source_takes_over_what_two_slow_ones_crawl_with() {
    let mut table = Table::new(1);
    let first = fetches(&table.add(1, Have::All))[0].0;
    table.add(2, Have::All);
    let second = fetches(&table.pass(Duration::from_millis(1_100)))[0].0;
    // Both deliver, a tenth in more than a second.
    table.now += Duration::from_millis(1_500);
    for (request, received) in [(first, 6_500), (second, 5_000)] {
        table.handle(Event::Progress { request, received, first_byte: Some(table.now), held_up: false });
    }
    assert!(fetches(&table.add(0, Have::All)).is_empty(), "nothing is known of it");
    let window = &mut table.core.sources.get_mut(&SourceId(0)).unwrap().window;
    window.asked(1 << 20);
    window.delivered(1 << 20, Instant::now());
    window.measured(0, Duration::from_secs(1));
    let commands = table.pass(SILENCE / 50);
    let request = fetches(&commands)[0].0;
    assert_eq!((commands.len(), fetches(&commands)[0].1), (2, 0));
    assert!(commands.contains(&Command::Cancel { request: first }), "the slower one gives way");
    assert!(table.deliver(request, 0).contains(&Command::Cancel { request: second }));
    assert!(table.core.is_complete());
}

#[test]
fn what_slow_sources_hold_is_not_taken_from_the_fast_ones_depth() {
    let layout = Layout::new(1_000 << 20, 1 << 20).unwrap();
    let core = DownloadCore::new(layout.clone(), &Bitfield::none(&layout), 8 << 20, Rng::with_seed(1));
    let mut table = Table { core, layout, now: Instant::now() };
    // A hundred sources hold a mebibyte each, and bring nothing.
    for source in 1..=100 {
        assert_eq!(fetches(&table.add(source, Have::All)).len(), 1);
    }
    let mut asked: VecDeque<_> = fetches(&table.add(0, Have::All)).into();
    for _ in 0..100 {
        let (request, source, piece) = asked.pop_front().unwrap();
        assert_eq!(source, 0);
        table.now += Duration::from_millis(1);
        asked.extend(fetches(&table.deliver(request, piece)));
    }
    assert!(asked.len() >= 8, "{} pieces in flight at the fast one", asked.len());
}

#[test]
fn under_a_rate_limit_slow_sources_do_not_keep_the_fast_one_out() {
    let mut table = Table::new(1_000);
    let limit = 20 * u64::from(PIECE);
    table.handle(Event::RateLimit(Some(limit)));
    // Slow ones take all that may be in flight, but after a piece each it is known what they bring.
    let mut asked: VecDeque<_> = (1..=40).flat_map(|source| fetches(&table.add(source, Have::All))).collect();
    for _ in 0..20 {
        let (request, _, piece) = asked.pop_front().unwrap();
        table.now += Duration::from_millis(500);
        asked.extend(fetches(&table.deliver(request, piece)));
    }
    let fast = fetches(&table.add(0, Have::All));
    let fast: Vec<_> = fast.iter().chain(&asked).filter(|(_, source, _)| *source == 0).collect();
    assert!(!fast.is_empty(), "the fast one is asked for nothing");
}

#[test]
fn a_rate_limit_keeps_little_in_flight() {
    let mut table = Table::new(100);
    table.handle(Event::RateLimit(Some(100_000)));
    let mut asked = fetches(&table.add(0, Have::All));
    asked.extend(fetches(&table.add(1, Have::All)));
    assert_eq!(asked.len(), 1, "one piece is more than half a second's worth");
    table.handle(Event::RateLimit(None));
    assert_eq!(fetches(&table.handle(Event::Tick)).len(), 3);
}

#[test]
fn a_piece_that_was_lost_on_the_disk_is_fetched_again() {
    let mut table = Table::new(1);
    let request = fetches(&table.add(0, Have::All))[0].0;
    table.deliver(request, 0);
    assert!(table.core.is_complete());
    assert_eq!(fetches(&table.handle(Event::Lost(table.piece(0)))).len(), 1);
    assert!(!table.core.is_complete());
}

#[test]
fn a_hundred_thousand_pieces_and_a_thousand_sources_are_quick() {
    let layout = layout(100_000);
    let mut core = DownloadCore::new(layout.clone(), &Bitfield::none(&layout), 24 << 20, Rng::with_seed(1));
    let now = Instant::now();
    let mut rng = Rng::with_seed(2);
    let started = Instant::now();
    for id in 0..1_000 {
        let mut held = Bitfield::none(&layout);
        for _ in 0..1_000 {
            held.insert(layout.piece(rng.u32(..100_000)).unwrap());
        }
        let have = Have::Bits(std::sync::Arc::new(held));
        core.handle(Event::SourceAdded { source: SourceId(id), limits: limits(), have }, now);
    }
    let mut asked: VecDeque<Command> = std::iter::from_fn(|| core.poll_command()).collect();
    let mut delivered = 0;
    while delivered < 20_000
        && let Some(command) = asked.pop_front()
    {
        if let Command::Fetch { request, run, .. } = command {
            core.handle(Event::Arrived { request, piece: run.first(), first_byte: Some(now) }, now);
            core.handle(Event::Verified(run.first()), now);
            core.handle(Event::Written(run.first()), now);
            delivered += 1;
        }
        asked.extend(std::iter::from_fn(|| core.poll_command()));
    }
    assert_eq!(delivered, 20_000);
    // It takes a second unoptimised; a linear search a piece would take minutes.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

impl DownloadCore {
    /// Every piece is in one state, and all that is counted is what it counts.
    pub(super) fn assert_consistent(&self) {
        let mut askers: BTreeMap<PieceIndex, Vec<RequestId>> = BTreeMap::new();
        for (&id, request) in &self.requests {
            assert!(self.sources[&request.source].requests.contains(&id));
            assert!(request.arrived < request.run.count());
            for piece in request.pending().filter(|&piece| self.waits_for(piece, id)) {
                askers.entry(piece).or_default().push(id);
            }
        }
        for piece in self.layout.iter() {
            let asking = askers.remove(&piece).unwrap_or_default();
            let state = self.pieces[piece.as_usize()];
            let wanted = state == Piece::Missing && self.is_chosen(piece);
            assert_eq!(self.selector.wants(piece.get()), wanted, "{piece:?} {state:?}");
            let expected = match state {
                Piece::Requested { by, second } => std::iter::once(by).chain(second).collect(),
                _ => Vec::new(),
            };
            assert_eq!(asking, expected, "{piece:?}");
        }
        let is_left =
            |piece: &PieceIndex| self.pieces[piece.as_usize()] != Piece::Written && self.is_chosen(*piece);
        assert_eq!(self.left as usize, self.layout.iter().filter(is_left).count());
        assert_eq!(self.in_flight, self.requests.values().map(Request::remaining).sum::<u64>());
        let exempt = self.sources.values().map(|source| source.window.exempt(self.layout.piece_length()));
        assert_eq!(self.exempt, exempt.sum::<u64>());
        assert_eq!(self.partial, self.sources.values().filter(|source| source.is_partial()).count());
        assert_eq!(
            self.requests.len(),
            self.sources.values().map(|source| source.requests.len()).sum::<usize>()
        );
    }
}
