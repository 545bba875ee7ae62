//! Random worlds: whatever sources do, each piece is in one state, nothing is asked for twice outside the endgame, bytes
//! in flight are bounded, and once the pieces stay available the download ends.

use super::{
    Bitfield, Command, DownloadCore, Duration, Event, Have, Instant, Layout, Limits, PieceIndex, RequestId,
    Rng, Run, SourceError, SourceId, bits,
};
use std::collections::{BTreeMap, BTreeSet};

/// Together with the steps a million.
const WORLDS: u64 = 500;
const STEPS: usize = 2_000;
/// Replays one world: `SHOAL_SEED=n cargo test -p shoal-engine-core random_worlds`.
const SEED: &str = "SHOAL_SEED";

struct World {
    core: DownloadCore,
    rng: Rng,
    layout: Layout,
    now: Instant,
    budget: u64,
    /// Sources that were not dropped, with what they hold and allow.
    sources: BTreeMap<SourceId, (Have, Limits)>,
    banned: BTreeSet<SourceId>,
    /// Requests under way: source, first piece, pieces, bytes that came.
    requests: BTreeMap<RequestId, Asked>,
    checking: Vec<PieceIndex>,
    done: BTreeSet<PieceIndex>,
    /// What is to be fetched.
    chosen: Bitfield,
    faults: bool,
}

struct Asked {
    source: SourceId,
    run: crate::PieceRun,
    received: u64,
    arrived: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let pieces = rng.u32(1..80);
        let size = u64::from(pieces) * 65_536 - rng.u64(0..65_536);
        let layout = Layout::new(size, 65_536).unwrap();
        let mut written = Bitfield::none(&layout);
        for piece in layout.iter().filter(|_| rng.u8(..4) == 0) {
            written.insert(piece);
        }
        let budget = rng.u64(65_536..2_000_000);
        let core = DownloadCore::new(layout.clone(), &written, budget, rng.fork());
        Self {
            core,
            rng,
            layout: layout.clone(),
            now: Instant::now(),
            budget,
            sources: BTreeMap::new(),
            banned: BTreeSet::new(),
            requests: BTreeMap::new(),
            checking: Vec::new(),
            done: written.iter(&layout).collect(),
            chosen: Bitfield::all(&layout),
            faults: true,
        }
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(event, self.now);
        while let Some(command) = self.core.poll_command() {
            self.obey(command);
        }
        self.core.assert_consistent();
        assert_eq!(self.core.requests(), self.requests.len());
        let in_flight: u64 = self.requests.values().map(|asked| asked.run.length() - asked.received).sum();
        let exempt = 65_536 * self.sources.len() as u64;
        assert!(in_flight <= self.budget + exempt, "{in_flight} in flight, budget {}", self.budget);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Fetch { request, source, run } => {
                let (have, limits) = &self.sources[&source];
                assert!(!self.banned.contains(&source));
                for piece in run.pieces() {
                    assert!(
                        !self.done.contains(&piece) && !self.checking.contains(&piece),
                        "{piece:?} is there"
                    );
                    assert!(holds(have, piece), "{piece:?} is not there");
                    assert!(self.chosen.has(piece), "{piece:?} is not wanted");
                    let others: Vec<_> =
                        self.requests.values().filter(|asked| asked.waits_for(piece)).collect();
                    assert!(others.len() < 2, "{piece:?} is asked for a third time");
                    if let [other] = others[..] {
                        assert!(other.source != source, "{piece:?} is asked twice of one source");
                        let missing = self.layout.iter().filter(|piece| {
                            let asked = self.requests.values().any(|asked| asked.waits_for(*piece));
                            !asked
                                && self.chosen.has(*piece)
                                && !self.done.contains(piece)
                                && !self.checking.contains(piece)
                        });
                        assert_eq!(missing.count(), 0, "{piece:?} is asked for twice outside the endgame");
                    }
                }
                let most = match limits.run {
                    Run::Single => 1,
                    Run::UpTo(most) => most.max(1),
                };
                assert!(run.count() <= most);
                let of_source = self.requests.values().filter(|asked| asked.source == source).count();
                assert!(of_source < limits.max_in_flight.max(1), "too many requests");
                self.requests.insert(request, Asked { source, run, received: 0, arrived: 0 });
            }
            Command::Cancel { request } => {
                self.requests.remove(&request).expect("only running requests are cancelled");
            }
            Command::Check { piece } => self.checking.push(piece),
            Command::Drop { source, reason } => {
                self.sources.remove(&source);
                assert!(self.requests.values().all(|asked| asked.source != source));
                if matches!(reason, super::DropReason::Banned(_)) {
                    self.banned.insert(source);
                }
            }
        }
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..5 => self.add_source(),
            5 if self.faults && self.rng.u8(..4) == 0 => self.choose(),
            5..7 if self.faults => {
                if let Some(source) = self.any_source() {
                    self.handle(Event::SourceRemoved { source });
                }
            }
            7..14 if self.faults => self.change_have(),
            14..18 if self.faults => self.fail(),
            18..20 => {
                let limit = self.faults && self.rng.bool();
                let rate = limit.then(|| self.rng.u64(1..500_000));
                self.handle(Event::RateLimit(rate));
            }
            20..30 => {
                let most = if self.rng.u8(..20) == 0 && self.faults { 7_000 } else { 60 };
                self.now += Duration::from_millis(self.rng.u64(..most));
                self.handle(Event::Tick);
            }
            30..50 => self.check(),
            _ => self.receive(),
        }
    }

    fn add_source(&mut self) {
        let source = SourceId(self.rng.u64(..12));
        let have = if self.rng.bool() { Have::All } else { self.some_pieces() };
        let run = if self.rng.bool() { Run::Single } else { Run::UpTo(self.rng.u32(..10)) };
        let limits = Limits {
            max_in_flight: self.rng.usize(..20),
            min_in_flight: self.rng.usize(..6),
            max_in_flight_bytes: self.rng.u64(..3_000_000),
            run,
        };
        self.sources.insert(source, (have.clone(), limits));
        self.handle(Event::SourceAdded { source, limits, have });
    }

    fn choose(&mut self) {
        self.chosen = Bitfield::none(&self.layout);
        let share = self.rng.u8(..);
        for piece in self.layout.iter().filter(|_| self.rng.u8(..) <= share) {
            self.chosen.insert(piece);
        }
        self.handle(Event::Chosen(std::sync::Arc::new(self.chosen.clone())));
    }

    fn some_pieces(&mut self) -> Have {
        let share = self.rng.u8(..);
        let held: Vec<u32> = (0..self.layout.pieces()).filter(|_| self.rng.u8(..) <= share).collect();
        bits(&self.layout, held)
    }

    fn change_have(&mut self) {
        let Some(source) = self.any_source() else { return };
        let have = if self.rng.u8(..5) == 0 { Have::All } else { self.some_pieces() };
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.0 = have.clone();
        }
        self.handle(Event::HaveChanged { source, have });
    }

    fn fail(&mut self) {
        let Some(request) = self.any_request() else { return };
        let asked = self.requests.remove(&request).unwrap();
        let result = match self.rng.u32(..20) {
            0 => Ok(()),
            1 => Err(SourceError::Gone("gone".into())),
            2 => Err(SourceError::Invalid("invalid".into())),
            3..10 => Err(SourceError::Busy(Duration::from_millis(self.rng.u64(..3_000)))),
            _ => {
                let piece = asked.run.at(self.rng.u32(..asked.run.count())).unwrap();
                let instead = self.layout.piece(self.rng.u32(..self.layout.pieces() + 1));
                let after = Duration::from_millis(self.rng.u64(..500));
                Err(SourceError::NotNow { piece, after, instead })
            }
        };
        self.handle(Event::Finished { request, result });
    }

    fn check(&mut self) {
        if self.checking.is_empty() {
            return;
        }
        let piece = self.checking.swap_remove(self.rng.usize(..self.checking.len()));
        if self.faults && self.rng.u8(..20) == 0 {
            self.handle(Event::Rejected(piece));
        } else {
            assert!(self.done.insert(piece), "{piece:?} came twice");
            self.handle(Event::Verified(piece));
            self.handle(Event::Written(piece));
            if self.faults && self.rng.u8(..100) == 0 {
                self.done.remove(&piece);
                self.handle(Event::Lost(piece));
            }
        }
    }

    /// Bytes of some request come.
    fn receive(&mut self) {
        let Some(request) = self.any_request() else { return };
        let Some(asked) = self.requests.get_mut(&request) else { return };
        asked.received = (asked.received + self.rng.u64(1..200_000)).min(asked.run.length());
        let (received, run) = (asked.received, asked.run.clone());
        let first_byte = Some(self.now);
        if self.rng.bool() {
            let held_up = self.rng.bool();
            self.handle(Event::Progress { request, received, first_byte, held_up });
        }
        while let Some(asked) = self.requests.get_mut(&request) {
            let Some(piece) = run.at(asked.arrived) else { break };
            let end = self.layout.offset(piece) + u64::from(self.layout.length(piece)) - run.offset();
            if end > received {
                break;
            }
            asked.arrived += 1;
            if asked.arrived == run.count() {
                self.requests.remove(&request);
            }
            self.handle(Event::Arrived { request, piece, first_byte });
        }
    }

    fn any_source(&mut self) -> Option<SourceId> {
        let ids: Vec<_> = self.sources.keys().copied().collect();
        self.rng.choice(ids)
    }

    fn any_request(&mut self) -> Option<RequestId> {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        self.rng.choice(ids)
    }

    /// From now on one source holds everything, and nothing goes wrong.
    fn heal(&mut self) {
        self.faults = false;
        let limits =
            Limits { max_in_flight: 4, min_in_flight: 1, max_in_flight_bytes: 1 << 20, run: Run::Single };
        self.sources.insert(SourceId(100), (Have::All, limits));
        self.handle(Event::SourceAdded { source: SourceId(100), limits, have: Have::All });
        self.handle(Event::RateLimit(None));
    }
}

impl Asked {
    fn waits_for(&self, piece: PieceIndex) -> bool {
        (self.arrived..self.run.count()).any(|position| self.run.at(position) == Some(piece))
    }
}

fn holds(have: &Have, piece: PieceIndex) -> bool {
    match have {
        Have::All => true,
        Have::Bits(bits) => bits.has(piece),
    }
}

/// Says how to replay a world that failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: {SEED}={} cargo test -p shoal-engine-core random_worlds", self.0);
        }
    }
}

#[test]
fn random_worlds_keep_every_rule_and_end() {
    let replayed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seeds = replayed.map_or(0..WORLDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let _replay = Replay(seed);
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        let mut steps = 0;
        while !world.core.is_complete() {
            world.step();
            steps += 1;
            assert!(steps < 100_000, "world {seed} does not end");
        }
        while !world.requests.is_empty() && steps < 200_000 {
            world.step();
            steps += 1;
        }
        assert!(world.chosen.iter(&world.layout).all(|piece| world.done.contains(&piece)));
    }
}
