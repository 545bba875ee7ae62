//! A run in which one tracker lies. It uses a replica as all others do, so that it is let in. In addition it
//! sends frames that no honest tracker sends and gives false answers.
//!
//! What a tracker may do (write and delete records) it does under keys of its own. Everything else must have
//! no effect: nothing acknowledged by an honest tracker is lost (A3), no time is poisoned (A5), and honest
//! trackers come into sync with each other.

use shoal_replica::limits::MAX_AHEAD_MS;
use shoal_replica::{Entry, Frame, Kind, Live, Row, Stamp, WriterId, decision_key};

use super::SimRun;
use crate::broken::Broken;
use crate::disk::Disk;
use crate::world::liar::{Liar, SyncReply};
use crate::world::{Input, START_WALL_MS, TxFate, put};

/// Steps of a run with a liar.
const STEPS: u32 = 260;
/// Virtual time within which honest trackers must be in sync once the liar is gone.
const HEALING_MS: u64 = 1_800_000;
/// An honest tracker answers within this time while the liar does not acknowledge, once that is known.
const ANSWER_MS: u64 = 2_000;
/// Writer ids that it may introduce per day here.
const WRITERS_PER_DAY: u64 = 64;
/// The first byte of the keys that the liar writes.
const ITS_KEYS: u8 = b'L';

impl<D: Disk> SimRun<'_, D> {
    /// The last tracker lies from now on.
    pub(crate) fn add_liar(&mut self) {
        let node = self.world.nodes.len() - 1;
        // Its word alone removes nothing here, so that no row at all may be lost.
        self.world.bounds.small_rows = 0;
        let any = self.world.broken == Broken::Writers;
        self.world.bounds.writers_per_day = if any { u64::MAX / 64 } else { WRITERS_PER_DAY };
        self.world.history.is_lied_to = true;
        self.world.nodes.iter_mut().for_each(|node| node.skew_ms = node.skew_ms.clamp(-3_000, 3_000));
        self.world.liar = Some(Liar { node, reply: SyncReply::Honest, mute: false, counter: 0 });
    }

    /// Trackers that run and do not lie.
    pub(crate) fn honest_up(&self) -> Vec<usize> {
        let liar = self.world.liar.as_ref().map(|liar| liar.node);
        self.world.all_up().into_iter().filter(|node| Some(*node) != liar).collect()
    }

    /// Executes a run with a liar.
    pub(crate) fn run_with_liar(&mut self) -> Result<(), String> {
        self.begin_well()?;
        for _ in 0..STEPS {
            self.step += 1;
            if !self.plan.without.contains(&self.step) {
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

    /// All trackers are connected and hold something, and none of them is blank any more.
    fn begin_well(&mut self) -> Result<(), String> {
        self.phase = 1;
        for turn in 0..60_u8 {
            self.world.start_all();
            self.world.connect_all();
            if turn < 24 {
                let node = usize::from(turn) % (self.world.nodes.len() - 1);
                let key = [b'k', turn % 12];
                self.world.transact(node, vec![Input::Write(vec![put(&key, &[turn])])], TxFate::Commit)?;
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

    /// Sends one lie to one honest tracker.
    fn lie(&mut self) -> Result<(), String> {
        let up = self.honest_up();
        let Some(&to) = self.world.rng.choice(&up) else { return Ok(()) };
        let Some(liar) = &self.world.liar else { return Ok(()) };
        let from = liar.node;
        match self.world.rng.u8(..4) {
            0 => {
                let manners = [
                    SyncReply::Honest,
                    SyncReply::Nothing,
                    SyncReply::Nothing,
                    SyncReply::Empty,
                    SyncReply::Busy,
                    SyncReply::Silence,
                ];
                let reply = self.world.rng.choice(manners).unwrap_or(SyncReply::Nothing);
                let mute = self.world.rng.bool();
                if let Some(liar) = &mut self.world.liar {
                    liar.mute = mute;
                }
                self.answer_in(reply);
            }
            1 => {
                // Everything needed to have all rows removed.
                self.answer_in(SyncReply::Nothing);
                let entry = Entry { writer: self.writer(), seq: 5 };
                let all = self.vector_of(to);
                self.say(from, to, Frame::Vector(all));
                let dropped = Stamp::at_ms(self.wall_ms());
                self.say(from, to, Frame::GcWatermark { entries: vec![entry], dropped });
            }
            _ => {
                let frames = self.a_lie(to);
                frames.into_iter().for_each(|frame| self.say(from, to, frame));
            }
        }
        Ok(())
    }

    fn answer_in(&mut self, reply: SyncReply) {
        if let Some(liar) = &mut self.world.liar {
            liar.reply = reply;
        }
    }

    /// What a tracker holds, as far as the liar may claim it here.
    fn vector_of(&self, node: usize) -> Vec<Entry> {
        let vector = self.world.nodes[node].replica.as_ref().map(|replica| replica.vector());
        vector.into_iter().flat_map(|it| it.iter()).map(|(writer, seq)| Entry { writer, seq }).collect()
    }

    fn say(&mut self, from: usize, to: usize, frame: Frame) {
        self.world.note(|| format!("the liar sends tracker {}: {frame:?}", to + 1));
        self.world.network.send(from, to, frame);
    }

    fn wall_ms(&self) -> u64 {
        START_WALL_MS + self.world.now_ms
    }

    fn writer(&mut self) -> WriterId {
        WriterId(self.world.rng.u128(..).to_le_bytes())
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
                let many = (0..500).map(|_| Entry { writer: self.writer(), seq: 3 }).collect();
                vec![Frame::Vector(many)]
            }
            6 | 7 => {
                let of = if self.world.rng.bool() { to } else { self.other_than(to) };
                vec![Frame::Vector(vec![Entry { writer: self.writer_of(of), seq: 1_000_000_000 }])]
            }
            8 => {
                let seq = 1_000_000_000 + self.world.rng.u64(..9);
                let (key, writer) = (self.own_key(), self.writer_of(to));
                let Frame::Live(mut live) =
                    self.live(Kind::LAST_WINS, key, b"yours", Stamp::at_ms(self.wall_ms()))
                else {
                    return Vec::new();
                };
                live.rows.iter_mut().for_each(|row| (row.writer, row.seq) = (writer, seq));
                vec![Frame::Live(live)]
            }
            9 => vec![Frame::Ack { ids: vec![1, 2, 3], held: 1_000_000_000 }],
            0 => {
                let key = self.key();
                vec![self.live(Kind::LAST_WINS, key, b"poison", Stamp::from_u64(Stamp::MAX.as_u64() - 99))]
            }
            1 => {
                // At the limit of what may be ahead: some trackers take it and some do not.
                let key = [ITS_KEYS, self.world.rng.u8(..4)].to_vec();
                let stamp = Stamp::at_ms((edge.ms() - 3_000) + self.world.rng.u64(..6_000));
                vec![self.live(Kind::LAST_WINS, key, b"edge", stamp)]
            }
            2 => {
                let (space, name) = self.name();
                vec![self.live(space.decision_kind(), decision_key(&name), &[9; 16], Stamp::default())]
            }
            3 => {
                let (space, name) = self.name();
                let early = Stamp::at_ms(START_WALL_MS - MAX_AHEAD_MS - 60_000);
                vec![self.live(space.decision_kind(), decision_key(&name), &[9; 16], early)]
            }
            4 => vec![Frame::GcWatermark { entries: Vec::new(), dropped: Stamp::MAX }],
            _ => vec![Frame::Digest { root: self.world.rng.u128(..).to_le_bytes() }],
        }
    }

    fn writer_of(&self, node: usize) -> WriterId {
        self.world.nodes[node].writer
    }

    /// Another honest tracker, if there is one.
    fn other_than(&self, node: usize) -> usize {
        self.honest_up().into_iter().find(|&other| other != node).unwrap_or(node)
    }

    /// A key under which only the liar writes.
    fn own_key(&mut self) -> Vec<u8> {
        [&[ITS_KEYS][..], &self.world.rng.u64(..).to_be_bytes()].concat()
    }

    /// A transaction of an unknown writer.
    fn live(&mut self, kind: Kind, key: Vec<u8>, value: &[u8], stamp: Stamp) -> Frame {
        let writer = WriterId([self.world.rng.u8(..8) | 0x80; 16]);
        let seq = self.world.liar.as_mut().map_or(1, |liar| {
            liar.counter += 1;
            liar.counter
        });
        let value = value.to_vec();
        let (tombstone, blobs) = (false, Vec::new());
        let row = Row { kind, key, stamp, writer, seq, born: stamp, tombstone, value, blobs };
        Frame::Live(Live { id: seq, from: 1 << 50, to: (1 << 50) + 1, rows: vec![row] })
    }

    /// The liar still lies. Clients must get their answers soon nevertheless, and trackers must sync with
    /// each other.
    fn answer_in_time(&mut self) -> Result<(), String> {
        self.world.start_all();
        self.answer_in(SyncReply::Empty);
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
            self.world.transact(0, vec![Input::Write(vec![write])], TxFate::Commit)?;
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
        while !self.are_honest_in_sync() {
            if self.world.now_ms > deadline {
                return Err(format!("liar, A6: it holds syncs up: {}", self.describe()));
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

    fn are_honest_in_sync(&self) -> bool {
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
        if !self.are_honest_in_sync() {
            return Err(format!("liar, in sync: honest trackers differ: {}", self.describe()));
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
