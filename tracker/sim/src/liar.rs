//! A life in which one tracker lies. It speaks through a replica like all others, so that it is let in, and besides sends
//! frames that no honest one does, and answers what it is asked with something else.
//!
//! What it may do as a tracker (write and delete records) it does under keys of its own; all else must stay without effect:
//! nothing acknowledged by an honest tracker is lost (A3), no time is poisoned (A5), and honest trackers come into step with each
//! other.

use shoal_replica::limits::MAX_AHEAD_MS;
use shoal_replica::{Entry, Frame, Kind, Live, Origin, Row, Stamp, settled_key};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::life::Life;
use crate::world::{Fate, Input, START_WALL_MS, World, put};

/// Steps of a life with a liar.
const STEPS: u32 = 260;
/// Virtual time within which honest trackers must be in step once the liar is gone.
const HEALING_MS: u64 = 1_800_000;
/// Within that an honest tracker answers while the liar does not acknowledge, once it was found out.
const ANSWER_MS: u64 = 2_000;
/// Writer ids that it may bring in a day here.
const WRITERS_PER_DAY: u64 = 64;
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
        // Its word alone removes nothing here, so that nothing at all may be lost.
        self.world.bounds.small_rows = 0;
        let any = self.world.broken == Broken::Writers;
        self.world.bounds.writers_per_day = if any { u64::MAX / 64 } else { WRITERS_PER_DAY };
        self.world.history.is_lied_to = true;
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
        while let Err(problem) = self.check_honest() {
            if self.world.now_ms > deadline {
                return Err(problem);
            }
            for _ in 0..20 {
                self.connect_honest();
                self.world.step()?;
            }
        }
        Ok(())
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
        self.allow_removals();
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
                    liar.mute = mute;
                }
                self.answer_in(manner);
            }
            1 => {
                // Everything that it would take to have all removed.
                self.answer_in(Manner::Nothing);
                let entry = Entry { origin: self.origin(), seq: 5 };
                let all = self.vector_of(to);
                self.say(from, to, Frame::Vector(all));
                let dropped = Stamp::at_ms(self.wall_ms());
                self.say(from, to, Frame::Floor { entries: vec![entry], dropped });
            }
            _ => {
                let frames = self.a_lie(to);
                frames.into_iter().for_each(|frame| self.say(from, to, frame));
            }
        }
        Ok(())
    }

    fn answer_in(&mut self, manner: Manner) {
        if let Some(liar) = &mut self.world.liar {
            liar.manner = manner;
        }
    }

    /// What a tracker holds, as far as the liar may speak of it here.
    fn vector_of(&self, node: usize) -> Vec<Entry> {
        let vector = self.world.nodes[node].replica.as_ref().map(|replica| replica.vector());
        vector.into_iter().flat_map(|it| it.iter()).map(|(origin, seq)| Entry { origin, seq }).collect()
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

    fn a_lie(&mut self, to: usize) -> Vec<Frame> {
        let edge = Stamp::at_ms(self.wall_ms() + MAX_AHEAD_MS);
        match self.world.rng.u8(..14) {
            12 | 13 => {
                let flood = (0..20).map(|_| {
                    let (key, now) = (self.own_key(), Stamp::at_ms(self.wall_ms()));
                    self.live(Kind::LAST_WINS, key, &[7; 2_000], now)
                });
                flood.collect()
            }
            10 | 11 => {
                let many = (0..500).map(|_| Entry { origin: self.origin(), seq: 3 }).collect();
                vec![Frame::Vector(many)]
            }
            6 | 7 => {
                let of = if self.world.rng.bool() { to } else { self.other_than(to) };
                vec![Frame::Vector(vec![Entry { origin: self.origin_of(of), seq: 1_000_000_000 }])]
            }
            8 => {
                let seq = 1_000_000_000 + self.world.rng.u64(..9);
                let (key, origin) = (self.own_key(), self.origin_of(to));
                let Frame::Live(mut live) =
                    self.live(Kind::LAST_WINS, key, b"yours", Stamp::at_ms(self.wall_ms()))
                else {
                    return Vec::new();
                };
                live.rows.iter_mut().for_each(|row| (row.origin, row.seq) = (origin, seq));
                vec![Frame::Live(live)]
            }
            9 => vec![Frame::Ack { ids: vec![1, 2, 3], held: 1_000_000_000 }],
            0 => {
                let key = self.key();
                vec![self.live(Kind::LAST_WINS, key, b"poison", Stamp::from_u64(Stamp::MAX.as_u64() - 99))]
            }
            1 => {
                // About as far ahead as may be: some take it and some do not.
                let key = [ITS_KEYS, self.world.rng.u8(..4)].to_vec();
                let stamp = Stamp::at_ms((edge.ms() - 3_000) + self.world.rng.u64(..6_000));
                vec![self.live(Kind::LAST_WINS, key, b"edge", stamp)]
            }
            2 => {
                let (space, name) = self.name();
                vec![self.live(space.settled_kind(), settled_key(&name), &[9; 16], Stamp::default())]
            }
            3 => {
                let (space, name) = self.name();
                let early = Stamp::at_ms(START_WALL_MS - MAX_AHEAD_MS - 60_000);
                vec![self.live(space.settled_kind(), settled_key(&name), &[9; 16], early)]
            }
            4 => vec![Frame::Floor { entries: Vec::new(), dropped: Stamp::MAX }],
            _ => vec![Frame::Digest { root: self.world.rng.u128(..).to_le_bytes() }],
        }
    }

    fn origin_of(&self, node: usize) -> Origin {
        self.world.nodes[node].origin
    }

    /// An honest tracker besides that one, if there is another.
    fn other_than(&self, node: usize) -> usize {
        self.honest_up().into_iter().find(|&other| other != node).unwrap_or(node)
    }

    /// A key under which nobody but the liar writes.
    fn own_key(&mut self) -> Vec<u8> {
        [&[ITS_KEYS][..], &self.world.rng.u64(..).to_be_bytes()].concat()
    }

    /// A transaction of a writer that nobody knows.
    fn live(&mut self, kind: Kind, key: Vec<u8>, value: &[u8], stamp: Stamp) -> Frame {
        let origin = Origin([self.world.rng.u8(..8) | 0x80; 16]);
        let seq = self.world.liar.as_mut().map_or(1, |liar| {
            liar.counter += 1;
            liar.counter
        });
        let value = value.to_vec();
        let (tombstone, blobs) = (false, Vec::new());
        let row = Row { kind, key, stamp, origin, seq, born: stamp, tombstone, value, blobs };
        Frame::Live(Live { id: seq, from: 1 << 50, to: (1 << 50) + 1, rows: vec![row] })
    }

    /// The liar still lies; clients must get their answers soon nevertheless, and trackers hear each other.
    fn answer_in_time(&mut self) -> Result<(), String> {
        self.world.start_all();
        self.answer_in(Manner::Empty);
        if let Some(liar) = &mut self.world.liar {
            liar.mute = true;
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
        if late > 4 {
            return Err(format!("liar, A6: {late} of 12 writes waited for it"));
        }
        let deadline = self.world.now_ms + HEALING_MS;
        while !self.are_honest_in_step() {
            if self.world.now_ms > deadline {
                return Err(format!("liar, A6: it holds rounds up: {}", self.describe()));
            }
            self.world.connect_all();
            self.world.step()?;
        }
        Ok(())
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
        let first = Stamp::at_ms(START_WALL_MS - MAX_AHEAD_MS - 10_000);
        let rows = self.world.nodes[node].store.all();
        let poisoned = rows.iter().find(|row| row.stamp > latest || row.stamp < first);
        poisoned.map_or(Ok(()), |row| Err(format!("liar, A5: tracker {} took {row:?}", node + 1)))
    }

    fn check_honest(&mut self) -> Result<(), String> {
        if !self.are_honest_in_step() {
            return Err(format!("liar, in step: honest trackers differ: {}", self.describe()));
        }
        for node in self.honest_up() {
            self.check_times(node)?;
            let world = &mut self.world;
            let checked =
                world.history.check(&world.nodes[node].store).map_err(|what| format!("liar, A3: {what}"));
            if let Err(what) = checked {
                return Err(format!("{what} {}", self.describe()));
            }
            let world = &self.world;
            let writers = world.nodes[node].replica.as_ref().map_or(0, |replica| replica.vector().len());
            let most = usize::try_from(WRITERS_PER_DAY).unwrap() * world.nodes.len() * 2 + 200;
            if writers > most {
                return Err(format!("liar, A6: tracker {} knows {writers} writer ids", node + 1));
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
