//! A life in which one tracker lies. It speaks through a replica like all others, so that it is let in, and besides sends
//! frames that no honest one does, keeps back those that it owes, and answers what it is asked with something else.
//!
//! What it may do as a tracker (write and delete records) it does under keys of its own; all else must stay without effect:
//! nothing acknowledged by an honest tracker is lost (A3), no time is poisoned (A5), honest trackers go on, answer and come into
//! step with each other, and what it has them store is bounded (A6).

use shoal_replica::limits::{MAX_AHEAD_MS, MAX_ORIGINS};
use shoal_replica::{Entry, Frame, Kind, Live, Origin, Row, Stamp, TrackerNo, settled_key, vote_key};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::life::Life;
use crate::world::{Fate, Input, START_WALL_MS, World, put};

/// Steps of a life with a liar.
const STEPS: u32 = 260;
/// Virtual time within which honest trackers must be in step once the liar is gone.
const HEALING_MS: u64 = 1_200_000;
/// What one tracker may have an honest one write in a day here.
const BYTES_PER_DAY: u64 = 1_000_000;
/// Writer ids that it may bring in a day here.
const ORIGINS_PER_DAY: u64 = 64;
/// Within that an honest tracker answers while the liar does not acknowledge, once it was found out.
const ANSWER_MS: u64 = 2_000;
/// What the keys that the liar writes begin with.
const ITS_KEYS: u8 = b'L';

/// Which tracker lies, and how it answers at present.
pub(crate) struct Liar {
    pub(crate) node: usize,
    manner: Manner,
    mute: bool,
    counter: u64,
}

/// What it answers when it is asked for a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Honest,
    /// At once that the round is complete.
    Nothing,
    /// Frames without rows, for ever.
    Empty,
    /// That it cannot serve it now.
    Busy,
    /// Nothing at all.
    Silence,
}

impl<D: Disk> World<D> {
    /// What the liar answers instead of what its replica would; `None` if that is to answer.
    pub(crate) fn answer_with_lies(&mut self, to: usize, frame: &Frame) -> Option<Vec<Frame>> {
        let liar = self.liar.as_ref()?;
        let (round, fresh) = match frame {
            Frame::Pull(pull) => (pull.round, pull.fresh),
            Frame::More { round, .. } => (*round, false),
            _ => return None,
        };
        let manner = liar.manner;
        if manner != Manner::Honest {
            self.note(|| format!("the liar answers tracker {} with {manner:?} (fresh: {fresh})", to + 1));
        }
        match manner {
            Manner::Honest => None,
            Manner::Nothing if matches!(frame, Frame::Pull(_)) => Some(vec![Frame::End { round }]),
            Manner::Empty => Some(vec![Frame::Rows { round, rows: Vec::new() }]),
            Manner::Busy => Some(vec![Frame::Busy { round }]),
            Manner::Nothing | Manner::Silence => Some(Vec::new()),
        }
    }

    /// Whether the liar keeps a frame back that it owes.
    pub(crate) fn is_kept_back(&self, node: usize, frame: &Frame) -> bool {
        let mute = self.liar.as_ref().is_some_and(|liar| liar.node == node && liar.mute);
        mute && matches!(frame, Frame::Ack { .. })
    }
}

impl<D: Disk> Life<'_, D> {
    /// The last tracker lies from now on.
    pub(crate) fn let_one_lie(&mut self) {
        let node = self.world.nodes.len() - 1;
        let bounds = &mut self.world.bounds;
        bounds.small_rows = 2;
        bounds.bytes_per_day = if self.world.broken == Broken::Bytes { u64::MAX / 64 } else { BYTES_PER_DAY };
        bounds.origins_per_day =
            if self.world.broken == Broken::Writers { u64::MAX / 64 } else { ORIGINS_PER_DAY };
        self.world.nodes.iter_mut().for_each(|node| node.skew_ms = node.skew_ms.clamp(-3_000, 3_000));
        self.world.liar = Some(Liar { node, manner: Manner::Honest, mute: false, counter: 0 });
    }

    /// Trackers that run and do not lie.
    pub(crate) fn honest_up(&self) -> Vec<usize> {
        let liar = self.world.liar.as_ref().map(|liar| liar.node);
        self.world.all_up().into_iter().filter(|node| Some(*node) != liar).collect()
    }

    /// Lives through a seed with a liar.
    pub(crate) fn live_with_a_liar(&mut self) -> Result<(), String> {
        self.begin_well()?;
        for _ in 0..STEPS {
            self.step += 1;
            if !self.script.without.contains(&self.step) {
                self.reseed(0);
                self.step_with_a_liar()?;
            }
        }
        self.reseed(1 << 40);
        self.answer_in_time()?;
        let liar = self.world.liar.as_ref().map_or(0, |liar| liar.node);
        self.world.kill(liar);
        let deadline = self.world.now_ms + HEALING_MS;
        while !self.are_honest_in_step() {
            if self.world.now_ms > deadline {
                return Err(format!("liar, A6: honest trackers are not in step: {}", self.describe()));
            }
            self.connect_honest();
            self.world.step()?;
        }
        self.check_honest()
    }

    /// All are connected and hold something, and none of them is blank any more.
    fn begin_well(&mut self) -> Result<(), String> {
        self.epoch = 1;
        for round in 0..60_u8 {
            self.world.start_all();
            self.world.connect_all();
            if round < 24 {
                let node = usize::from(round) % (self.world.nodes.len() - 1);
                let key = [b'k', round % 12];
                self.world.transact(node, vec![Input::Write(vec![put(&key, &[round])])], Fate::Commit)?;
            }
            self.world.step()?;
        }
        for node in self.honest_up() {
            self.world.kill(node);
            self.world.start(node);
        }
        for _ in 0..30 {
            self.world.connect_all();
            self.world.step()?;
        }
        Ok(())
    }

    fn step_with_a_liar(&mut self) -> Result<(), String> {
        self.world.now_ms += match self.world.rng.u8(..40) {
            0 => self.world.rng.u64(0..4_000),
            1..5 => self.world.rng.u64(0..800),
            _ => self.world.rng.u64(0..20),
        };
        self.world.tick_due()?;
        match self.world.rng.u8(..100) {
            0..55 => self.deliver_some()?,
            55..72 => self.client()?,
            72..90 => self.lie()?,
            90..96 => self.link(),
            96 => {
                let up = self.honest_up();
                if let Some(&node) = self.world.rng.choice(&up) {
                    self.world.kill(node);
                }
            }
            97 => self.world.start_all(),
            _ => self.world.connect_all(),
        }
        if self.world.broken == Broken::Removal {
            self.allow_removals();
        }
        self.honest_up().into_iter().try_for_each(|node| {
            self.world.check_waiting(node)?;
            if self.step.is_multiple_of(16) { self.check_times(node) } else { Ok(()) }
        })
    }

    /// One lie to one honest tracker.
    fn lie(&mut self) -> Result<(), String> {
        let up = self.honest_up();
        let Some(&to) = self.world.rng.choice(&up) else { return Ok(()) };
        let Some(liar) = &self.world.liar else { return Ok(()) };
        let from = liar.node;
        match self.world.rng.u8(..4) {
            0 => {
                let manners = [
                    Manner::Honest,
                    Manner::Nothing,
                    Manner::Nothing,
                    Manner::Empty,
                    Manner::Busy,
                    Manner::Silence,
                ];
                let manner = self.world.rng.choice(manners).unwrap_or(Manner::Nothing);
                let mute = self.world.rng.bool();
                if let Some(liar) = &mut self.world.liar {
                    (liar.manner, liar.mute) = (manner, mute);
                }
                return Ok(());
            }
            1 => {
                // Everything that it would take to have all removed.
                if let Some(liar) = &mut self.world.liar {
                    liar.manner = Manner::Nothing;
                }
                let entry = Entry { origin: self.origin(), seq: 5 };
                self.say(
                    from,
                    to,
                    Frame::Floor { entries: vec![entry], dropped: Stamp::at_ms(self.wall_ms()) },
                );
            }
            _ => {
                let frames = self.a_lie(to);
                frames.into_iter().for_each(|frame| self.say(from, to, frame));
            }
        }
        Ok(())
    }

    fn say(&mut self, from: usize, to: usize, frame: Frame) {
        self.world.note(|| format!("the liar tells tracker {}: {frame:?}", to + 1));
        self.world.network.send(from, to, frame);
    }

    fn wall_ms(&self) -> u64 {
        START_WALL_MS + self.world.now_ms
    }

    fn origin(&mut self) -> Origin {
        Origin(self.world.rng.u128(..).to_le_bytes())
    }

    fn own_origin(&self, node: usize) -> Origin {
        let vector = self.world.nodes[node].replica.as_ref().map(|replica| replica.origin());
        vector.unwrap_or(Origin([0; 16]))
    }

    fn a_lie(&mut self, to: usize) -> Vec<Frame> {
        let rng = &mut self.world.rng;
        match rng.u8(..10) {
            0 => vec![Frame::Vector(vec![Entry { origin: self.own_origin(to), seq: 1_000_000_000 }])],
            1 => {
                let other = self.honest_up().into_iter().find(|&node| node != to).unwrap_or(to);
                vec![Frame::Vector(vec![Entry { origin: self.own_origin(other), seq: 1_000_000_000 }])]
            }
            2 => {
                let many = (0..500).map(|_| Entry { origin: self.origin(), seq: 3 }).collect();
                vec![Frame::Vector(many)]
            }
            3 => {
                let key = self.key();
                vec![self.live(Kind::LAST_WINS, key, b"poison", Stamp::from_u64(Stamp::MAX.as_u64() - 99))]
            }
            4 => {
                let (space, name) = self.name();
                vec![self.live(space.settled_kind(), settled_key(&name), &[9; 16], Stamp::default())]
            }
            5 => {
                let (space, name) = self.name();
                let of = TrackerNo(u8::try_from(to).map_or(1, |to| to + 1));
                let now = Stamp::at_ms(self.wall_ms() - 3_600_000);
                vec![self.live(space.vote_kind(), vote_key(&name, of), &[9; 16], now)]
            }
            6 => vec![Frame::Floor { entries: Vec::new(), dropped: Stamp::MAX }],
            7 => {
                let flood = (0..60).map(|_| {
                    let now = Stamp::at_ms(self.wall_ms());
                    let number = self.world.rng.u64(..).to_be_bytes();
                    self.live(Kind::LAST_WINS, [&[ITS_KEYS][..], &number].concat(), &[7; 20_000], now)
                });
                flood.collect()
            }
            8 => vec![Frame::Digest { root: self.world.rng.u128(..).to_le_bytes() }],
            _ => vec![Frame::Ack { ids: vec![1, 2, 3], held: 1_000_000_000 }],
        }
    }

    /// A transaction of a writer that nobody knows, or of the liar's victim.
    fn live(&mut self, kind: Kind, key: Vec<u8>, value: &[u8], stamp: Stamp) -> Frame {
        let origin = Origin([self.world.rng.u8(..8) | 0x80; 16]);
        let seq = self.world.liar.as_mut().map_or(1, |liar| {
            liar.counter += 1;
            liar.counter
        });
        let (value, blobs) = (value.to_vec(), Vec::new());
        let row = Row { kind, key, stamp, origin, seq, born: stamp, tombstone: false, value, blobs };
        Frame::Live(Live { id: seq, from: 1 << 50, to: (1 << 50) + 1, rows: vec![row] })
    }

    /// The liar still lies; a client must get its answer soon nevertheless.
    fn answer_in_time(&mut self) -> Result<(), String> {
        self.world.start_all();
        if let Some(liar) = &mut self.world.liar {
            (liar.manner, liar.mute) = (Manner::Empty, true);
        }
        let mut late = 0;
        for number in 0..12_u8 {
            for _ in 0..4 {
                self.world.connect_all();
                self.world.step()?;
            }
            let write = put(&[b'k', number], &[b'!', number]);
            self.world.transact(0, vec![Input::Write(vec![write])], Fate::Commit)?;
            let since = self.world.now_ms;
            while !self.world.nodes[0].pending.is_empty() {
                self.world.connect_all();
                self.world.step()?;
                self.world.check_waiting(0)?;
            }
            late += u32::from(self.world.now_ms > since + ANSWER_MS);
        }
        if late > 4 { Err(format!("liar, A6: {late} of 12 writes waited for it")) } else { Ok(()) }
    }

    fn connect_honest(&mut self) {
        let liar = self.world.liar.as_ref().map_or(0, |liar| liar.node);
        for node in 0..liar {
            if !self.world.is_up(node) {
                self.world.start(node);
            }
            (0..node).for_each(|other| self.world.connect(other, node));
        }
    }

    fn are_honest_in_step(&self) -> bool {
        let honest = self.honest_up();
        let Some((&first, others)) = honest.split_first() else { return false };
        let sums = self.world.nodes[first].store.bucket_sums().unwrap();
        others.len() + 2 == self.world.nodes.len()
            && honest.iter().all(|&node| self.world.nodes[node].pending.is_empty())
            && others.iter().all(|&node| self.world.nodes[node].store.bucket_sums().unwrap() == sums)
    }

    /// No time is poisoned: invariant A5.
    fn check_times(&self, node: usize) -> Result<(), String> {
        let latest = Stamp::at_ms(self.wall_ms() + MAX_AHEAD_MS + 10_000);
        let rows = self.world.nodes[node].store.all();
        let poisoned = rows.iter().find(|row| row.stamp > latest || row.stamp == Stamp::default());
        poisoned.map_or(Ok(()), |row| Err(format!("liar, A5: tracker {} took {row:?}", node + 1)))
    }

    fn check_honest(&mut self) -> Result<(), String> {
        for node in self.honest_up() {
            self.check_times(node)?;
            let world = &mut self.world;
            world.history.check(&world.nodes[node].store).map_err(|what| format!("liar, A3: {what}"))?;
            let rows = world.nodes[node].store.all();
            let its = rows.iter().filter(|row| row.key.first() == Some(&ITS_KEYS));
            let bytes: usize = its.map(Row::weight).sum();
            // From the liar itself, and what each other honest tracker was made to take and passed on.
            let most = usize::try_from(BYTES_PER_DAY).unwrap() * (world.nodes.len() - 1) * 2 + 200_000;
            if bytes > most {
                return Err(format!("liar, A6: tracker {} stores {bytes} bytes of it", node + 1));
            }
            let origins = world.nodes[node].replica.as_ref().map_or(0, |replica| replica.vector().len());
            let most = usize::try_from(ORIGINS_PER_DAY).unwrap() * (world.nodes.len() - 1) * 2 + 200;
            if origins > most.min(MAX_ORIGINS) {
                return Err(format!("liar, A6: tracker {} knows {origins} writer ids", node + 1));
            }
        }
        let names: Vec<_> =
            self.world.history.names().map(|(space, name, uid)| (space, name.to_vec(), uid)).collect();
        for (space, name, uid) in names {
            for node in self.honest_up() {
                let holder = self.world.holder(node, space, &name);
                if holder.as_ref().is_none_or(|holder| holder.uid != uid) {
                    return Err(format!("liar, A5: {name:?} was given to {uid:?} and is held by {holder:?}"));
                }
            }
        }
        Ok(())
    }
}
