//! What is known about one connected tracker, and what was announced to it.

use std::collections::{BTreeMap, BTreeSet};

use super::serve::Serving;
use crate::event::WriteId;
use crate::frame::{Entry, Frame};
use crate::limits::{
    ACK_IDLE_MS, ACK_MS, ACK_SLOW_MS, DEAD_MS, INTRO_MS, LIVE_WINDOW_BYTES, LIVE_WINDOW_FRAMES,
    MAX_STORED_AHEAD, PING_MS, SILENT_MS, VECTOR_ENTRIES_PER_FRAME,
};
use crate::row::{Stamp, WriterId};
use crate::vector::VersionVector;

/// How far the peer's handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkStage {
    /// Nothing has arrived.
    Silent,
    /// It sent its Hello. Its vector and GC watermark follow.
    Greeted(WriterId),
    /// The handshake is complete.
    Ready(WriterId),
}

/// One link to one peer.
#[derive(Debug)]
pub(crate) struct PeerLink {
    pub(crate) stage: LinkStage,
    /// The peer's vector, as announced by it.
    pub(crate) vector: VersionVector,
    /// Writers for which the peer's vector was ahead of the local one when it was announced.
    unseen: BTreeSet<WriterId>,
    /// Tombstones up to this vector may be missing at the peer.
    pub(crate) gc_watermark: VersionVector,
    /// No tombstone that is missing there has a later stamp.
    pub(crate) dropped: Stamp,
    /// The local vector, as announced to the peer.
    pub(crate) announced: VersionVector,
    pub(crate) heard_ms: u64,
    /// When it last acknowledged something, or asked for a blob that an acknowledgement needs.
    pub(crate) worked_ms: u64,
    /// Bytes of the peer's transactions that wait for their blobs.
    held_back: usize,
    up_ms: u64,
    pub(crate) next_ping_ms: u64,
    /// LIVE transactions without an ACK, by id.
    pub(crate) live: BTreeMap<u64, Unacked>,
    live_bytes: usize,
    next_live: u64,
    /// The peer's transactions that are held here beyond a gap: first number (exclusive) to last number.
    stored: BTreeMap<u64, u64>,
    /// The sync that the peer pulls.
    pub(crate) serving: Option<Serving>,
    /// A sync with the peer was completed since the link came up.
    pub(crate) synced: bool,
    /// The local vector does not cover the peer's GC watermark: only a full sync helps.
    pub(crate) needs_full_sync: bool,
    /// Same vector, different rows: the buckets have to be compared.
    pub(crate) repair: bool,
    /// No sync with the peer starts before this.
    pub(crate) retry_ms: u64,
    /// PINGs in a row during which more of the peer's rows were covered here than it wrote.
    pub(crate) doubts: u32,
    /// Writers whose rows were refused in the last sync with this peer.
    pub(crate) refused: BTreeSet<WriterId>,
}

/// A LIVE transaction without an ACK.
#[derive(Debug)]
pub(crate) struct Unacked {
    bytes: usize,
    since_ms: u64,
    pub(crate) write: Option<WriteId>,
}

/// Which timeout of a link has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    Hello,
    Sign,
    Ack,
}

impl PeerLink {
    pub(crate) fn new(announced: VersionVector, now_ms: u64) -> Self {
        Self {
            stage: LinkStage::Silent,
            vector: VersionVector::default(),
            unseen: BTreeSet::new(),
            gc_watermark: VersionVector::default(),
            dropped: Stamp::default(),
            announced,
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
            synced: false,
            needs_full_sync: false,
            repair: false,
            retry_ms: 0,
            doubts: 0,
            refused: BTreeSet::new(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, LinkStage::Ready(_))
    }

    /// The peer's writer id, once the handshake is complete.
    pub(crate) fn writer(&self) -> Option<WriterId> {
        match self.stage {
            LinkStage::Ready(writer) => Some(writer),
            LinkStage::Silent | LinkStage::Greeted(_) => None,
        }
    }

    /// The peer holds all rows of `writer` up to `seq`.
    pub(crate) fn holds(&mut self, writer: WriterId, seq: u64) {
        if self.vector.raise(writer, seq) {
            self.unseen.insert(writer);
        }
    }

    /// Drops the writers for which the local vector has caught up with the peer's.
    pub(crate) fn catch_up(&mut self, own: &VersionVector) {
        let theirs = &self.vector;
        self.unseen.retain(|&writer| !own.covers(writer, theirs.at(writer)));
    }

    /// The writers of which the peer holds more than `own` covers. Looks only at what it announced lately.
    pub(crate) fn ahead_of<'a>(&'a self, own: &'a VersionVector) -> impl Iterator<Item = WriterId> + 'a {
        self.unseen.iter().copied().filter(|&writer| !own.covers(writer, self.vector.at(writer)))
    }

    /// Whether a LIVE transaction of this size fits the window.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.live.len() < LIVE_WINDOW_FRAMES && self.live_bytes + bytes <= LIVE_WINDOW_BYTES
    }

    /// Records a LIVE transaction; returns its id.
    pub(crate) fn await_ack(&mut self, bytes: usize, write: Option<WriteId>, now_ms: u64) -> u64 {
        let id = self.next_live;
        self.next_live += 1;
        self.live_bytes += bytes;
        self.live.insert(id, Unacked { bytes, since_ms: now_ms, write });
        id
    }

    /// Records an ACK; returns the write that it acknowledges.
    pub(crate) fn acked(&mut self, id: u64) -> Option<WriteId> {
        let unacked = self.live.remove(&id)?;
        self.live_bytes -= unacked.bytes;
        unacked.write
    }

    /// A transaction of the peer waits for its blobs. False if an honest peer would not have that much in
    /// flight.
    pub(crate) fn holds_back(&mut self, bytes: usize) -> bool {
        self.held_back = self.held_back.saturating_add(bytes);
        self.held_back <= 2 * LIVE_WINDOW_BYTES
    }

    /// A transaction of the peer that waited is stored.
    pub(crate) fn holds_back_no_more(&mut self, bytes: usize) {
        self.held_back = self.held_back.saturating_sub(bytes);
    }

    /// The peer's rows above `from` up to `to` are held. Returns the number up to which all are held, given
    /// that all up to `covered` are.
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

    /// The number up to which all of the peer's rows are held, given that all up to `covered` are.
    pub(crate) fn contiguous(&mut self, mut covered: u64) -> u64 {
        while let Some(entry) = self.stored.first_entry() {
            if *entry.key() > covered {
                break;
            }
            covered = covered.max(entry.remove());
        }
        covered
    }

    /// The frames that announce to the peer how far the vector has risen.
    pub(crate) fn announce(&mut self, vector: &VersionVector) -> Vec<Frame> {
        let risen: Vec<Entry> =
            entries(vector).filter(|entry| entry.seq > self.announced.at(entry.writer)).collect();
        for entry in &risen {
            self.announced.raise(entry.writer, entry.seq);
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

    /// When the next timeout of this link expires.
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

    /// Since when a client has waited for this peer, and since when any ACK is outstanding.
    fn waited_since(&self) -> (Option<u64>, Option<u64>) {
        let waited =
            self.live.values().find(|unacked| unacked.write.is_some()).map(|unacked| unacked.since_ms);
        let unacked = self.live.values().next().map(|unacked| unacked.since_ms);
        (waited, unacked)
    }
}

/// The entries of a vector.
pub(crate) fn entries(vector: &VersionVector) -> impl Iterator<Item = Entry> + '_ {
    vector.iter().map(|(writer, seq)| Entry { writer, seq })
}

/// Entries as frames of bounded length.
pub(crate) fn in_parts(entries: &[Entry], frame: impl Fn(Vec<Entry>) -> Frame) -> Vec<Frame> {
    entries.chunks(VECTOR_ENTRIES_PER_FRAME).map(|part| frame(part.to_vec())).collect()
}
