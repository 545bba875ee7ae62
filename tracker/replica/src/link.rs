//! What is known about one connected tracker, and what was told to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::WriteId;
use crate::frame::{Entry, Frame};
use crate::limits::{
    ACK_IDLE_MS, ACK_MS, ACK_SLOW_MS, DEAD_MS, INTRO_MS, LIVE_WINDOW_BYTES, LIVE_WINDOW_FRAMES,
    MAX_STORED_AHEAD, PING_MS, SILENT_MS, VECTOR_ENTRIES_PER_FRAME,
};
use crate::row::{Origin, Stamp};
use crate::serve::Serving;
use crate::vector::VersionVector;

/// How far the peer's introduction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing came yet.
    Silent,
    /// It said who it is; its vector and floor are coming.
    Greeted(Origin),
    /// It is a member in every respect.
    Ready(Origin),
}

/// One link to one peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stage: Stage,
    /// The peer's vector, as it said.
    pub(crate) vector: VersionVector,
    /// Where the peer's vector was ahead of the own one when it said so.
    unseen: BTreeSet<Origin>,
    /// The vector up to which tombstones may be missing at the peer.
    pub(crate) floor: VersionVector,
    /// No tombstone that is missing there has a later stamp.
    pub(crate) dropped: Stamp,
    /// The own vector, as told to the peer.
    pub(crate) told: VersionVector,
    pub(crate) heard_ms: u64,
    /// When it last acknowledged something, or asked for a blob that it needs for that.
    pub(crate) worked_ms: u64,
    /// Bytes of its transactions that wait for their blobs.
    held_back: usize,
    up_ms: u64,
    pub(crate) next_ping_ms: u64,
    /// LIVE transactions without an ACK, by id.
    pub(crate) live: BTreeMap<u64, Unacked>,
    live_bytes: usize,
    next_live: u64,
    /// The peer's transactions that are held here beyond a gap: from which number to which.
    stored: BTreeMap<u64, u64>,
    /// The round that the peer pulls.
    pub(crate) serving: Option<Serving>,
    /// A round was pulled from the peer since link-up.
    pub(crate) pulled: bool,
    /// The vector does not cover the peer's floor: only a round of everything helps.
    pub(crate) fresh: bool,
    /// Same vector, other rows: buckets have to be compared.
    pub(crate) repair: bool,
    /// Not to be pulled from before.
    pub(crate) retry_ms: u64,
    /// Signs of life in a row since more of the peer's rows are covered here than it wrote.
    pub(crate) doubts: u32,
    /// Writers of which nothing was taken in the last round from this peer.
    pub(crate) refused: BTreeSet<Origin>,
}

/// A LIVE transaction without an ACK.
#[derive(Debug)]
pub(crate) struct Unacked {
    bytes: usize,
    since_ms: u64,
    pub(crate) write: Option<WriteId>,
}

/// What time demands of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    Hello,
    Sign,
    Ack,
}

impl Link {
    pub(crate) fn new(told: VersionVector, now_ms: u64) -> Self {
        Self {
            stage: Stage::Silent,
            vector: VersionVector::default(),
            unseen: BTreeSet::new(),
            floor: VersionVector::default(),
            dropped: Stamp::default(),
            told,
            heard_ms: now_ms,
            worked_ms: now_ms,
            held_back: 0,
            up_ms: now_ms,
            next_ping_ms: now_ms + PING_MS,
            live: BTreeMap::new(),
            live_bytes: 0,
            next_live: 1,
            stored: BTreeMap::new(),
            serving: None,
            pulled: false,
            fresh: false,
            repair: false,
            retry_ms: 0,
            doubts: 0,
            refused: BTreeSet::new(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// The peer's origin, once it is a member.
    pub(crate) fn origin(&self) -> Option<Origin> {
        match self.stage {
            Stage::Ready(origin) => Some(origin),
            Stage::Silent | Stage::Greeted(_) => None,
        }
    }

    /// The peer holds everything of `origin` up to `seq`.
    pub(crate) fn holds(&mut self, origin: Origin, seq: u64) {
        if self.vector.raise(origin, seq) {
            self.unseen.insert(origin);
        }
    }

    /// Forgets where the own vector has caught up with the peer's.
    pub(crate) fn catch_up(&mut self, own: &VersionVector) {
        let theirs = &self.vector;
        self.unseen.retain(|&origin| !own.covers(origin, theirs.at(origin)));
    }

    /// The origins of which the peer holds more than `own` covers. Nothing has to be compared but what it said lately.
    pub(crate) fn ahead_of<'a>(&'a self, own: &'a VersionVector) -> impl Iterator<Item = Origin> + 'a {
        self.unseen.iter().copied().filter(|&origin| !own.covers(origin, self.vector.at(origin)))
    }

    /// Whether a LIVE transaction of so many bytes fits the window.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.live.len() < LIVE_WINDOW_FRAMES && self.live_bytes + bytes <= LIVE_WINDOW_BYTES
    }

    /// Enters a LIVE transaction; returns its id.
    pub(crate) fn await_ack(&mut self, bytes: usize, write: Option<WriteId>, now_ms: u64) -> u64 {
        let id = self.next_live;
        self.next_live += 1;
        self.live_bytes += bytes;
        self.live.insert(id, Unacked { bytes, since_ms: now_ms, write });
        id
    }

    /// Takes note of an ACK; returns the write that it is about.
    pub(crate) fn acked(&mut self, id: u64) -> Option<WriteId> {
        let unacked = self.live.remove(&id)?;
        self.live_bytes -= unacked.bytes;
        unacked.write
    }

    /// A transaction of the peer's waits for its blobs. False if that is more than an honest peer has on its way.
    pub(crate) fn holds_back(&mut self, bytes: usize) -> bool {
        self.held_back = self.held_back.saturating_add(bytes);
        self.held_back <= 2 * LIVE_WINDOW_BYTES
    }

    /// A transaction of the peer's that waited is stored.
    pub(crate) fn holds_back_no_more(&mut self, bytes: usize) {
        self.held_back = self.held_back.saturating_sub(bytes);
    }

    /// The peer's rows from above `from` to `to` are held. Returns up to which number all are, if `covered` all were.
    pub(crate) fn stored(&mut self, from: u64, to: u64, covered: u64) -> u64 {
        if from <= covered {
            return self.contiguous(covered.max(to));
        }
        if self.stored.len() < MAX_STORED_AHEAD {
            let known = self.stored.entry(from).or_insert(to);
            *known = to.max(*known);
        }
        self.contiguous(covered)
    }

    /// Up to which number all of the peer's rows are held, if `covered` all were.
    pub(crate) fn contiguous(&mut self, mut covered: u64) -> u64 {
        while let Some(entry) = self.stored.first_entry() {
            if *entry.key() > covered {
                break;
            }
            covered = covered.max(entry.remove());
        }
        covered
    }

    /// The frames that tell the peer how far the vector has come.
    pub(crate) fn tell(&mut self, vector: &VersionVector) -> Vec<Frame> {
        let risen: Vec<Entry> =
            entries(vector).filter(|entry| entry.seq > self.told.at(entry.origin)).collect();
        for entry in &risen {
            self.told.raise(entry.origin, entry.seq);
        }
        in_parts(&risen, Frame::Vector)
    }

    /// What is overdue by now.
    pub(crate) fn overdue(&self, now_ms: u64) -> Option<Overdue> {
        let (waited, unacked) = self.waited_since();
        if !self.is_ready() && now_ms >= self.up_ms + INTRO_MS {
            return Some(Overdue::Hello);
        }
        if now_ms >= self.heard_ms + DEAD_MS
            || waited.is_some_and(|since| now_ms >= since.max(self.heard_ms) + SILENT_MS)
        {
            return Some(Overdue::Sign);
        }
        let idle = waited.is_some_and(|since| now_ms >= since.max(self.worked_ms) + ACK_IDLE_MS);
        (idle || unacked.is_some_and(|since| now_ms >= since + ACK_MS)).then_some(Overdue::Ack)
    }

    /// Whether a client has waited for this peer for longer than an acknowledgement takes.
    pub(crate) fn is_late(&self, now_ms: u64) -> bool {
        self.waited_since().0.is_some_and(|since| now_ms >= since + ACK_SLOW_MS)
    }

    /// When to look at it next.
    pub(crate) fn next_timeout(&self) -> u64 {
        let (waited, unacked) = self.waited_since();
        let mut due = self.next_ping_ms.min(self.heard_ms + DEAD_MS);
        if !self.is_ready() {
            due = due.min(self.up_ms + INTRO_MS);
        }
        if let Some(since) = waited {
            due = due.min(since.max(self.heard_ms) + SILENT_MS);
            due = due.min(since.max(self.worked_ms) + ACK_IDLE_MS);
        }
        unacked.map_or(due, |since| due.min(since + ACK_MS))
    }

    /// Since when a client waits for this peer, and since when any ACK is outstanding.
    fn waited_since(&self) -> (Option<u64>, Option<u64>) {
        let waited =
            self.live.values().find(|unacked| unacked.write.is_some()).map(|unacked| unacked.since_ms);
        let unacked = self.live.values().next().map(|unacked| unacked.since_ms);
        (waited, unacked)
    }
}

/// A vector as entries.
pub(crate) fn entries(vector: &VersionVector) -> impl Iterator<Item = Entry> + '_ {
    vector.iter().map(|(origin, seq)| Entry { origin, seq })
}

/// Entries as frames of a bounded length each.
pub(crate) fn in_parts(entries: &[Entry], frame: impl Fn(Vec<Entry>) -> Frame) -> Vec<Frame> {
    entries.chunks(VECTOR_ENTRIES_PER_FRAME).map(|part| frame(part.to_vec())).collect()
}
