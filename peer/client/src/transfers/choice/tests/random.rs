//! Holders that die, hang, leave, move and come back in every order, in made-up time, against the choice: a named holder
//! that answers is in use within 5 s.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use shoal_common::tracker_api::{Completeness, Holder};
use shoal_common::{PeerId, UserName};
use shoal_engine::{SourceId, SourceRow, SourceState};
use tokio::time::Instant;

use crate::transfers::choice::{Choice, MAX_SOURCES, Step};

const WORLDS: u64 = 400;
const STEPS: u32 = 1_200;
/// Replays one world: `SHOAL_SEED=n cargo test -p shoal-client --lib random_holders`.
const SEED: &str = "SHOAL_SEED";
/// How often the choice is asked: as often as the engine publishes.
const STEP: Duration = Duration::from_millis(250);
/// The rule.
const WITHIN: Duration = Duration::from_secs(5);
/// How long connecting to a silent holder takes.
const CONNECT: Duration = Duration::from_secs(5);
/// When TCP asks again while it connects (RFC 6298): an answer comes then at the latest.
const SYNS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];
/// After so much silence an open source that owes something is given up, and the trackers give up a client.
const SILENCE: Duration = Duration::from_secs(10);
const UNNAMED: Duration = Duration::from_secs(6);
/// How often the trackers are asked.
const POLL: Duration = Duration::from_secs(1);

/// A holder as it is.
#[derive(Debug, Clone)]
struct Real {
    /// Counts its starts: connections to an earlier one are dead.
    start: u32,
    alive: bool,
    /// It runs, or the network lets it through.
    answers: bool,
    shares: bool,
    port: u16,
    /// When it last answered.
    heard: Instant,
    /// Whether the trackers know of it, once they are asked.
    named: bool,
    lied: bool,
}

/// A source in use, as the swarm makes it.
#[derive(Debug, Clone)]
struct Source {
    number: u8,
    port: u16,
    begun: Instant,
    /// The start of the holder to which it is open, and when that last answered.
    open: Option<(u32, Instant)>,
}

struct World {
    choice: Choice,
    rng: Rng,
    real: Vec<Real>,
    /// What the trackers named last: numbers and ports.
    named: BTreeMap<u8, u16>,
    sources: BTreeMap<SourceId, Source>,
    /// Since when the rule's premise holds for each.
    due_since: BTreeMap<u8, Instant>,
    trackers: bool,
    polled: Instant,
    now: Instant,
    log: Vec<String>,
}

fn holder(number: u8, port: u16) -> Holder {
    let user = UserName::create("ann").unwrap();
    let address = format!("127.0.0.1:{port}");
    Holder {
        peer: PeerId([number; 32]),
        address,
        user,
        completeness: Completeness::Complete,
        unproven: None,
        lan: None,
        reached: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Instant::now();
        let count = if seed.is_multiple_of(8) { 60 } else { rng.u8(1..6) };
        let real = Real {
            start: 0,
            alive: true,
            answers: true,
            shares: true,
            port: 1,
            heard: now,
            named: true,
            lied: false,
        };
        Self {
            choice: Choice { rng: rng.fork(), ..Choice::default() },
            real: vec![real; usize::from(count)],
            rng,
            named: BTreeMap::new(),
            sources: BTreeMap::new(),
            due_since: BTreeMap::new(),
            trackers: true,
            polled: now - POLL,
            now,
            log: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.rng.u8(..6) == 0 {
            self.happen();
        }
        self.hear();
        self.carry();
        if self.trackers && self.polled + POLL <= self.now {
            self.poll();
        }
        self.next_steps();
        self.check();
    }

    fn happen(&mut self) {
        let number = self.rng.usize(..self.real.len());
        let real = &mut self.real[number];
        let what = match self.rng.u8(..20) {
            0..=3 => {
                // Killed, at once or after a while back, at the same address or another.
                real.alive = !real.alive;
                real.start += 1;
                real.answers = true;
                real.named = false;
                if real.alive && self.rng.bool() {
                    real.port += 1;
                }
                if real.alive { "starts" } else { "dies" }
            }
            4..=8 => {
                real.answers = !real.answers;
                if real.answers { "answers" } else { "hangs" }
            }
            9..=12 => {
                real.shares = !real.shares;
                if real.shares { "shares" } else { "stops sharing" }
            }
            13 => {
                real.named = !real.named;
                "is named otherwise"
            }
            14 if self.rng.u8(..20) == 0 => {
                let used = self.sources.iter().find(|(_, source)| usize::from(source.number) == number);
                let Some(id) = used.map(|(&id, _)| id) else { return };
                real.lied = true;
                let _ = self.choice.banned(id);
                self.sources.remove(&id);
                "lies"
            }
            15..=16 => {
                self.trackers = !self.trackers;
                if self.trackers { "trackers are back" } else { "trackers are away" }
            }
            17 => {
                self.choice.hurry();
                "this machine was asleep"
            }
            _ => return,
        };
        self.log.push(format!("{number} {what}"));
    }

    /// What the trackers hear of the holders.
    fn hear(&mut self) {
        for real in &mut self.real {
            if real.alive && real.answers {
                if real.heard + UNNAMED <= self.now || self.rng.u8(..4) == 0 {
                    real.named = true;
                }
                real.heard = self.now;
            } else if !real.alive || real.heard + UNNAMED <= self.now {
                real.named = false;
            }
        }
    }

    fn poll(&mut self) {
        self.polled = self.now;
        let named = self.real.iter().zip(0..).filter(|(real, _)| real.named && real.shares);
        let named: BTreeMap<u8, u16> = named.map(|(real, number)| (number, real.port)).collect();
        self.choice.offered(named.iter().map(|(&number, &port)| holder(number, port)).collect());
        self.named = named;
    }

    /// What becomes of the sources.
    fn carry(&mut self) {
        let mut gone = Vec::new();
        for (&id, source) in &mut self.sources {
            let real = &self.real[usize::from(source.number)];
            let there = real.port == source.port;
            match &mut source.open {
                None if !there || !real.alive => gone.push(id),
                None if !real.answers => {
                    if source.begun + CONNECT <= self.now {
                        gone.push(id);
                    }
                }
                None => {
                    let asked = SYNS.iter().any(|&syn| {
                        source.begun + syn <= self.now && self.now < source.begun + syn + 2 * STEP
                    });
                    match asked {
                        true if real.shares => {
                            source.open = Some((real.start, self.now));
                            self.choice.opened(id, self.now);
                        }
                        true => gone.push(id),
                        false if source.begun + CONNECT <= self.now => gone.push(id),
                        false => {}
                    }
                }
                Some((start, heard)) => {
                    if !real.answers {
                        if *heard + SILENCE <= self.now {
                            gone.push(id);
                        }
                    } else if *start != real.start || !real.shares {
                        gone.push(id);
                    } else {
                        *heard = self.now;
                    }
                }
            }
        }
        for id in gone {
            assert!(self.choice.gone(id, self.now));
            self.sources.remove(&id);
        }
    }

    fn next_steps(&mut self) {
        let row = |(&id, source): (&SourceId, &Source)| SourceRow {
            id,
            state: SourceState::Active,
            fetched_bytes: 0,
            // As with a rate over some seconds: it is not zero at once when nothing comes any more.
            rate: u64::from(
                source.open.is_some_and(|(_, heard)| heard + Duration::from_secs(3) > self.now)
                    && !source.number.is_multiple_of(2),
            ),
            requests: 1,
            holds: u32::from(source.open.is_some()),
            silent: false,
            patient: false,
        };
        let rows: Vec<SourceRow> = self.sources.iter().map(row).collect();
        for step in self.choice.next_steps(&rows, false, self.now) {
            let (id, holder) = match step {
                Step::Add(id, holder) => {
                    assert!(!self.sources.contains_key(&id), "{id:?} is in use");
                    (id, holder)
                }
                Step::Replace(id, holder) => {
                    assert!(self.sources.contains_key(&id), "{id:?} is not in use");
                    (id, holder)
                }
                Step::Remove(id) => {
                    assert!(self.sources.remove(&id).is_some());
                    continue;
                }
            };
            let (number, port) = (holder.peer.0[0], holder.address.rsplit(':').next().unwrap());
            let source = Source { number, port: port.parse().unwrap(), begun: self.now, open: None };
            self.sources.insert(id, source);
        }
        assert!(self.sources.len() <= MAX_SOURCES);
    }

    /// A named holder that answers is in use within 5 s, and a liar never again.
    fn check(&mut self) {
        for (real, number) in self.real.iter().zip(0u8..) {
            let premise =
                real.alive && real.answers && real.shares && self.named.get(&number) == Some(&real.port);
            let in_use = self.sources.values().find(|source| source.number == number);
            if real.lied {
                assert!(in_use.is_none(), "liar {number} is used");
                continue;
            }
            if !premise {
                self.due_since.remove(&number);
                continue;
            }
            let since = *self.due_since.entry(number).or_insert(self.now);
            let open = in_use.is_some_and(|source| source.open.is_some_and(|(start, _)| start == real.start));
            assert!(
                open || since + WITHIN > self.now,
                "{number} answers since {:?} and is not in use: {real:?} {in_use:?}\n{}",
                self.now - since,
                self.log.join("\n")
            );
        }
    }
}

/// Says how to replay a world that failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: {SEED}={} cargo test -p shoal-client --lib random_holders", self.0);
        }
    }
}

#[test]
fn random_holders_that_are_named_and_answer_are_in_use_within_five_seconds() {
    let replayed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seeds = replayed.map_or(0..WORLDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let _replay = Replay(seed);
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
    }
}
