//! Runs a swarm, event by event, until all peers have the file or no event is left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use shoal_common::limits::MAX_PEER_REQUESTS;
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_engine_core::{Command, DownloadCore, Event, RequestId};
use shoal_engine_core::{Have, Limits, POOL_BYTES, Run, SourceError, SourceId};
use shoal_policy::{Action, ChannelId, Event as PolicyEvent};

use crate::event::{Queue, SimEvent};
use crate::peer::{Asked, Number, Peer, Sending, channel};
use crate::plain::Server;
use crate::{LATENCY, Manners, Outcome, Scenario};

/// How often a leecher's core gets the time and the bytes received, as from the driver.
const TICK: Duration = Duration::from_millis(25);
/// How often a policy gets the time.
const POLICY_TICK: Duration = Duration::from_millis(100);
/// How long new pieces are gathered after an announcement, as in a client.
const GATHER: Duration = Duration::from_millis(25);
/// Announcements within this time are handled together. A busy process is late by as much anyway, and a peer's state is
/// fetched into the processor's cache once for all of them.
const TOGETHER: Duration = Duration::from_millis(5);
/// Most peers connected to the seeder, as in a client.
const SEEDER_NEIGHBOURS: usize = 256;
/// A swarm that takes this many times the bound has failed.
const PATIENCE: u32 = 20;
/// What a peer asks of one source at most, in bytes.
const MAX_IN_FLIGHT: u64 = 16 << 20;

/// What a leecher holds by now, and what of it is new.
struct Announcement {
    at: Duration,
    from: Number,
    have: Arc<Bitfield>,
    pieces: Arc<[PieceIndex]>,
}

struct World<'a> {
    scenario: &'a Scenario,
    layout: Layout,
    epoch: Instant,
    now: Duration,
    queue: Queue,
    peers: Vec<Peer>,
    /// Announcements that each peer has not handled yet.
    inboxes: Vec<VecDeque<Announcement>>,
    /// Honest leechers that will stay and have not finished.
    awaited: usize,
}

/// Runs a swarm to its end.
///
/// # Panics
/// When the file or the piece length is none that a layout can have.
#[must_use]
pub fn run(scenario: &Scenario) -> Outcome {
    let layout = Layout::new(scenario.size, scenario.piece_length).expect("a layout that exists");
    let mut world = World::new(scenario, layout);
    let end = scenario.bound() * PATIENCE;
    while world.awaited > 0
        && let Some((at, what)) = world.queue.pop()
        && at <= end
    {
        world.now = at;
        world.handle(what);
    }
    world.outcome()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, layout: Layout) -> Self {
        let mut rng = Rng::with_seed(scenario.seed);
        let server = |rng: &mut Rng| Server::new(scenario.naive, rng.fork());
        let mut peers =
            vec![Peer::new(None, Bitfield::all(&layout), scenario.seeder, Manners::Honest, server(&mut rng))];
        for leecher in &scenario.leechers {
            let none = Bitfield::none(&layout);
            let core = DownloadCore::new(layout.clone(), &none, POOL_BYTES as u64, rng.fork());
            peers.push(Peer::new(Some(core), none, leecher.uplink, leecher.manners, server(&mut rng)));
        }
        let count = peers.len();
        for number in 1..count {
            // All peers if they are few, else some. Both ends know each other.
            let wanted = scenario.neighbours.div_ceil(2);
            let chosen: Vec<Number> = if count <= scenario.neighbours {
                (number + 1..count).collect()
            } else {
                (0..wanted).map(|_| rng.usize(1..count)).collect()
            };
            for other in chosen {
                if other != number && !peers[number].neighbours.contains(&other) {
                    peers[number].neighbours.push(other);
                    peers[other].neighbours.push(number);
                }
            }
        }
        let mut chosen: Vec<Number> = (1..count).collect();
        rng.shuffle(&mut chosen);
        for &number in chosen.iter().take(SEEDER_NEIGHBOURS) {
            peers[number].neighbours.push(0);
            peers[0].neighbours.push(number);
        }
        peers[0].here = true;
        let stays = |one: &&crate::Leecher| one.manners == Manners::Honest && one.vanishes.is_none();
        let awaited = scenario.leechers.iter().filter(stays).count();
        let mut world = Self {
            scenario,
            layout,
            epoch: Instant::now(),
            now: Duration::ZERO,
            queue: Queue::default(),
            inboxes: peers.iter().map(|_| VecDeque::new()).collect(),
            peers,
            awaited,
        };
        for (index, leecher) in scenario.leechers.iter().enumerate() {
            // No two peers join at the same moment.
            let jitter = Duration::from_micros(rng.u64(0..20_000));
            world.at(leecher.joins + jitter, SimEvent::Joins(index + 1));
            if let Some(at) = leecher.vanishes {
                world.at(at, SimEvent::Vanishes(index + 1));
            }
        }
        world.at(POLICY_TICK, SimEvent::PolicyTick(0));
        world
    }

    fn at(&mut self, at: Duration, what: SimEvent) {
        self.queue.push(at, what);
    }

    fn after(&mut self, delay: Duration, what: SimEvent) {
        self.at(self.now + delay, what);
    }

    fn time(&self) -> Instant {
        self.epoch + self.now
    }

    fn handle(&mut self, what: SimEvent) {
        match what {
            SimEvent::Joins(number) => self.join(number),
            SimEvent::Vanishes(number) => self.vanish(number),
            SimEvent::Requested { by, of, piece } => {
                if self.peers[of].manners != Manners::Silent {
                    self.tell_policy(of, PolicyEvent::Request { channel: channel(by), piece });
                }
            }
            SimEvent::Cancelled { by, of, piece } => {
                self.tell_policy(of, PolicyEvent::Cancel { channel: channel(by), piece });
            }
            SimEvent::BlockSent(number) => self.block_sent(number),
            SimEvent::Received { by, from, piece, bytes, whole } => {
                self.received(by, from, piece, bytes, whole)
            }
            SimEvent::Refused { by, from, piece, error } => self.refused(by, from, piece, error),
            SimEvent::Flush(number) => self.flush(number),
            SimEvent::Hears(number) => self.hear(number),
            SimEvent::Tick(number) => self.tick(number),
            SimEvent::PolicyTick(number) => {
                if self.peers[number].here {
                    self.tell_policy(number, PolicyEvent::Tick);
                    self.after(POLICY_TICK, SimEvent::PolicyTick(number));
                }
            }
        }
    }

    fn join(&mut self, number: Number) {
        self.peers[number].here = true;
        self.tell_core(number, Event::OthersDownloading(true));
        for other in self.peers[number].neighbours.clone() {
            if self.peers[other].here {
                self.connect(number, other);
                if other != 0 {
                    self.connect(other, number);
                }
            }
        }
        self.after(TICK, SimEvent::Tick(number));
        self.after(POLICY_TICK, SimEvent::PolicyTick(number));
    }

    /// `by` uses `of` as a source.
    fn connect(&mut self, by: Number, of: Number) {
        let (layout, now) = (self.layout.clone(), self.time());
        let account = by.checked_sub(1).and_then(|index| self.scenario.leechers[index].account);
        let user = account.map_or(by, |account| Number::MAX - account as usize);
        self.peers[of].opened(by, user, layout.clone(), now);
        let held: Vec<PieceIndex> = self.peers[by].have.iter(&layout).collect();
        if !held.is_empty() {
            self.tell_policy(of, PolicyEvent::Have { channel: channel(by), pieces: held });
        }
        let have = if of == 0 { Have::All } else { Have::Bits(self.peers[of].shared_have()) };
        let limits = Limits {
            max_in_flight: MAX_PEER_REQUESTS,
            min_in_flight: 1,
            max_in_flight_bytes: MAX_IN_FLIGHT,
            run: Run::Single,
        };
        self.tell_core(by, Event::SourceAdded { source: SourceId(of as u64), limits, have });
    }

    fn vanish(&mut self, number: Number) {
        self.peers[number].here = false;
        self.peers[number].sending.clear();
        for other in self.peers[number].neighbours.clone() {
            if self.peers[other].here {
                self.peers[other].sending.retain(|sending| sending.to != number);
                self.tell_policy(other, PolicyEvent::Closed { channel: channel(number) });
                let asked = self.peers[other].requests.extract_if(.., |&(of, _), _| of == number);
                let lost: Vec<RequestId> = asked.map(|(_, asked)| asked.request).collect();
                for request in lost {
                    let result = Err(SourceError::Gone("it vanished".to_owned()));
                    self.tell_core(other, Event::Finished { request, result });
                }
                self.tell_core(other, Event::SourceRemoved { source: SourceId(number as u64) });
            }
        }
    }

    /// Gives a leecher's core an event and carries its commands out.
    fn tell_core(&mut self, number: Number, event: Event) {
        let now = self.time();
        let Some(core) = self.peers[number].core.as_mut() else { return };
        core.handle(event, now);
        while let Some(command) = self.peers[number].core.as_mut().and_then(DownloadCore::poll_command) {
            match command {
                Command::Fetch { request, source, run } => {
                    #[expect(clippy::cast_possible_truncation, reason = "it was made from a number")]
                    let (of, piece) = (source.0 as Number, run.first());
                    let asked = Asked { request, received: 0, first_byte: None, reported: true };
                    self.peers[number].requests.insert((of, piece), asked);
                    self.after(LATENCY, SimEvent::Requested { by: number, of, piece });
                }
                Command::Cancel { request } => {
                    let mut requests =
                        self.peers[number].requests.extract_if(.., |_, asked| asked.request == request);
                    let cancelled = requests.next();
                    drop(requests);
                    if let Some(((of, piece), asked)) = cancelled {
                        self.peers[number].wasted_bytes += asked.received;
                        self.after(LATENCY, SimEvent::Cancelled { by: number, of, piece });
                    }
                }
                // Checked where it arrives.
                Command::Check { .. } | Command::Drop { .. } => {}
            }
        }
    }

    /// Gives a peer's policy an event and carries its actions out.
    fn tell_policy(&mut self, number: Number, event: PolicyEvent) {
        let now = self.time();
        self.peers[number].server.handle(event, now);
        while let Some(action) = self.peers[number].server.next(now) {
            match action {
                Action::Serve { channel, piece } => {
                    let (to, left) = (number_of(channel), u64::from(self.layout.length(piece)));
                    self.peers[number].sending.push_back(Sending { to, piece, left, block: 0 });
                }
                Action::Stop { channel, piece } => {
                    let to = number_of(channel);
                    // The block that is on the uplink cannot be taken back.
                    let busy = usize::from(self.peers[number].busy);
                    let sending = &mut self.peers[number].sending;
                    let at = sending.iter().skip(busy).position(|one| one.to == to && one.piece == piece);
                    if let Some(at) = at {
                        sending.remove(at + busy);
                        self.peers[number].server.handle(PolicyEvent::Aborted { channel, piece }, now);
                    }
                }
                Action::NotNow { channel, piece, after, instead } => {
                    let error = SourceError::NotNow { piece, after, instead };
                    self.refuse(number, channel, piece, error);
                }
                Action::Busy { channel, piece, after } => {
                    self.refuse(number, channel, piece, SourceError::Busy(after));
                }
            }
        }
        if !self.peers[number].busy
            && let Some(takes) = self.peers[number].next_block()
        {
            self.after(takes, SimEvent::BlockSent(number));
        }
    }

    fn refuse(&mut self, from: Number, channel: ChannelId, piece: PieceIndex, error: SourceError) {
        let by = number_of(channel);
        self.after(LATENCY, SimEvent::Refused { by, from, piece, error });
    }

    fn block_sent(&mut self, number: Number) {
        let Some(sent) = self.peers[number].sent_block() else { return };
        let Sending { to, piece, left, block } = sent;
        let received = SimEvent::Received { by: to, from: number, piece, bytes: block, whole: left == 0 };
        self.after(LATENCY, received);
        let event = if left == 0 {
            PolicyEvent::Sent { channel: channel(to), piece }
        } else if let Some(takes) = self.peers[number].next_block() {
            return self.after(takes, SimEvent::BlockSent(number));
        } else {
            return;
        };
        self.tell_policy(number, event);
    }

    fn received(&mut self, by: Number, from: Number, piece: PieceIndex, bytes: u64, whole: bool) {
        let now = self.time();
        let Some(asked) = self.peers[by].requests.get_mut(&(from, piece)) else {
            self.peers[by].wasted_bytes += bytes;
            return;
        };
        asked.received += bytes;
        asked.first_byte.get_or_insert(now);
        asked.reported = false;
        if !whole {
            return;
        }
        let Asked { request, first_byte, .. } = *asked;
        self.peers[by].requests.remove(&(from, piece));
        self.tell_core(by, Event::Arrived { request, piece, first_byte });
        if self.peers[from].manners == Manners::Lies {
            self.peers[by].wasted_bytes += u64::from(self.layout.length(piece));
            self.tell_core(by, Event::Rejected(piece));
        } else if self.peers[by].have.insert(piece) {
            self.tell_core(by, Event::Verified(piece));
            self.tell_core(by, Event::Written(piece));
            self.gained(by, piece);
        } else {
            self.peers[by].wasted_bytes += u64::from(self.layout.length(piece));
        }
        self.tell_core(by, Event::Finished { request, result: Ok(()) });
    }

    fn gained(&mut self, number: Number, piece: PieceIndex) {
        if self.peers[number].manners != Manners::Silent {
            if self.peers[number].unannounced.is_empty() {
                self.at(self.now.max(self.peers[number].announces_at), SimEvent::Flush(number));
            }
            self.peers[number].unannounced.push(piece);
        }
        if self.peers[number].have.is_all() {
            self.peers[number].finished = Some(self.now);
            let now = self.time();
            self.peers[number].completed(now);
            let leecher = &self.scenario.leechers[number - 1];
            if leecher.manners == Manners::Honest && leecher.vanishes.is_none() {
                self.awaited -= 1;
            }
        }
    }

    fn refused(&mut self, by: Number, from: Number, piece: PieceIndex, error: SourceError) {
        if let Some(asked) = self.peers[by].requests.remove(&(from, piece)) {
            self.tell_core(by, Event::Finished { request: asked.request, result: Err(error) });
        }
    }

    fn flush(&mut self, number: Number) {
        let pieces: Arc<[PieceIndex]> = std::mem::take(&mut self.peers[number].unannounced).into();
        let have = self.peers[number].shared_have();
        self.peers[number].announces_at = self.now + GATHER;
        if !self.peers[number].here {
            return;
        }
        let at = round_up(self.now + LATENCY);
        for index in 0..self.peers[number].neighbours.len() {
            let to = self.peers[number].neighbours[index];
            if self.inboxes[to].back().is_none_or(|last| last.at < at) {
                self.at(at, SimEvent::Hears(to));
            }
            let (have, pieces) = (have.clone(), pieces.clone());
            self.inboxes[to].push_back(Announcement { at, from: number, have, pieces });
        }
    }

    fn hear(&mut self, number: Number) {
        while let Some(announcement) = self.inboxes[number].pop_front_if(|next| next.at <= self.now) {
            let Announcement { from, have, pieces, .. } = announcement;
            if self.peers[number].here && self.peers[from].here {
                let source = SourceId(from as u64);
                self.tell_core(number, Event::HaveChanged { source, have: Have::Bits(have) });
                self.tell_policy(
                    number,
                    PolicyEvent::Have { channel: channel(from), pieces: pieces.to_vec() },
                );
            }
        }
    }

    fn tick(&mut self, number: Number) {
        if !self.peers[number].here || self.peers[number].finished.is_some() {
            return;
        }
        let unreported = self.peers[number].requests.iter_mut().filter(|(_, asked)| !asked.reported);
        let samples: Vec<(RequestId, u64, Option<Instant>)> = unreported
            .map(|(_, asked)| {
                asked.reported = true;
                (asked.request, asked.received, asked.first_byte)
            })
            .collect();
        for (request, received, first_byte) in samples {
            self.tell_core(number, Event::Progress { request, received, first_byte, held_up: false });
        }
        self.tell_core(number, Event::Tick);
        self.after(TICK, SimEvent::Tick(number));
    }

    fn outcome(&self) -> Outcome {
        let size = self.scenario.size as f64;
        let mut took = Some(Duration::ZERO);
        let (mut incomplete, mut wasted, mut needed) = (0, 0.0, 0.0);
        for (peer, leecher) in self.peers[1..].iter().zip(&self.scenario.leechers) {
            if leecher.manners == Manners::Honest && leecher.vanishes.is_none() {
                took = took.and_then(|took| Some(took.max(peer.finished?)));
                incomplete += usize::from(peer.finished.is_none());
                wasted += peer.wasted_bytes as f64;
                needed += size;
            }
        }
        Outcome {
            took,
            bound: self.scenario.bound(),
            seeder_copies: self.peers[0].sent_bytes as f64 / size,
            wasted: wasted / needed,
            incomplete,
        }
    }
}

/// The next time at which announcements are handled.
fn round_up(time: Duration) -> Duration {
    let slots = time.as_micros().div_ceil(TOGETHER.as_micros());
    TOGETHER * u32::try_from(slots).unwrap_or(u32::MAX)
}

fn number_of(channel: ChannelId) -> Number {
    #[expect(clippy::cast_possible_truncation, reason = "it was made from a number")]
    let number = channel.0 as Number;
    number
}
