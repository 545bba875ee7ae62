//! The storage nodes as one tracker knows them: which are up, what each reports to hold, and what it was ordered to do.
//!
//! Pure: the time is an argument, in milliseconds of a clock that only goes forward.

use std::collections::{HashMap, HashSet, VecDeque};

use shoal_common::tracker_api::storage::{MAX_NODE_CHUNKS, NodeEntry, NodeReport, OwnedChunk};
use shoal_common::{NodeName, PeerId};

/// A node that does not report for this long is not up.
pub(super) const SILENT_MS: u64 = 3_000;
/// How long an ordered copy may take; then it is ordered again, perhaps elsewhere.
const ORDER_LIFE_MS: u64 = 30_000;
/// How long a node is not given an order again that it could not carry out.
const PAUSE_MS: u64 = 5_000;
/// Copies under way at one node at most: 256 MiB of the longest chunks.
pub(super) const MAX_UNDER_WAY: usize = 64;
/// A deletion that was not carried out is ordered again after this long: the node waits for the other trackers' orders.
const DELETION_AGAIN_MS: u64 = 10_000;
/// Deletions ordered of one node at a time; a node remembers more.
const MAX_DELETING: usize = 1_000;

/// Index of a node; never reused while the tracker runs.
pub(super) type NodeIx = usize;

/// An order for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// Fetch a chunk from another node.
    Copy {
        /// Which.
        chunk: OwnedChunk,
        /// Length of its sealed bytes.
        sealed: u32,
        /// Who holds it.
        from: PeerId,
        /// Where that one is.
        address: String,
    },
    /// Delete a chunk.
    Delete {
        /// Which.
        chunk: OwnedChunk,
    },
}

/// A copy that was ordered.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    until_ms: u64,
    sealed: u32,
}

/// One node.
#[derive(Debug, Default)]
pub(super) struct TrackedNode {
    pub(super) peer: Option<PeerId>,
    pub(super) name: Option<NodeName>,
    pub(super) address: String,
    pub(super) successor: Option<PeerId>,
    session: Option<u64>,
    heard_ms: u64,
    /// Whether a whole snapshot came since this tracker started.
    pub(super) reported: bool,
    /// Whether it is connected, sent a whole snapshot, and is not silent.
    pub(super) up: bool,
    /// Whether its copies count as lost.
    pub(super) lost: bool,
    capacity: u64,
    free: u64,
    /// Whether a chunk did not fit since `free` last grew.
    pub(super) was_full: bool,
    pub(super) chunks: HashSet<OwnedChunk>,
    /// The pages so far of a snapshot that is not complete, and how many of its chunks no file names.
    snapshot: Option<HashSet<OwnedChunk>>,
    snapshot_unnamed: usize,
    /// Whether chunks that it reported were ignored, because no file names them and they are too many.
    pub(super) cut: bool,
    complete: bool,
    /// Chunks held that no file asks this node to hold, and since when.
    pub(super) unneeded: HashMap<OwnedChunk, u64>,
    copying: HashMap<OwnedChunk, UnderWay>,
    copying_bytes: u64,
    deleting: HashMap<OwnedChunk, u64>,
    paused: HashMap<OwnedChunk, u64>,
    queue: VecDeque<Planned>,
}

/// What a report changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Chunks whose copies are to be counted again.
    pub(super) chunks: Vec<OwnedChunk>,
    /// Whether everything that the node holds is to be counted again.
    pub(super) all: bool,
}

impl TrackedNode {
    /// A node of which only the key is known.
    pub(super) fn of(peer: PeerId) -> Self {
        Self { peer: Some(peer), ..Self::default() }
    }

    /// It has this record: name, address, successor. Where that is new, its silence begins now.
    pub(super) fn admit(&mut self, record: (NodeName, String, Option<PeerId>), now: u64) {
        if self.name.is_none() {
            self.heard_ms = now;
        }
        let (name, address, successor) = record;
        (self.name, self.address, self.successor) = (Some(name), address, successor);
    }

    /// A node registered. What it reported on earlier connections counts until its snapshot is complete.
    pub(super) fn begin(&mut self, session: u64, now: u64) {
        self.session = Some(session);
        self.heard_ms = now;
        self.complete = false;
        self.snapshot = None;
        self.snapshot_unnamed = 0;
        self.queue.clear();
        self.copying.clear();
        self.copying_bytes = 0;
        self.deleting.clear();
    }

    /// Its connection broke.
    pub(super) fn end(&mut self, session: u64) {
        if self.session == Some(session) {
            self.session = None;
        }
    }

    /// It was taken out: it has no record, and its reports no longer count.
    pub(super) fn shut_out(&mut self) {
        (self.name, self.successor, self.session) = (None, None, None);
    }

    /// Whether reports on that connection still count.
    pub(super) fn is_current(&self, session: u64) -> bool {
        self.session == Some(session)
    }

    /// Sets `up` and `lost` for the present time; whether either changed.
    pub(super) fn update_liveness(&mut self, now: u64, repair_after_ms: u64) -> bool {
        let before = (self.up, self.lost);
        let silent = now.saturating_sub(self.heard_ms);
        self.up = self.session.is_some() && self.complete && silent < SILENT_MS;
        self.lost = !self.up && silent >= repair_after_ms;
        before != (self.up, self.lost)
    }

    /// Applies a report. Of the chunks that no file names, `budget` are remembered at most.
    pub(super) fn report(
        &mut self,
        report: NodeReport,
        now: u64,
        budget: usize,
        is_named: &dyn Fn(&OwnedChunk) -> bool,
    ) -> Changed {
        let mut changed = Changed::default();
        self.heard_ms = now;
        if report.free > self.free && std::mem::take(&mut self.was_full) {
            changed.all = true;
        }
        (self.capacity, self.free) = (report.capacity, report.free.min(report.capacity));
        if report.reset || (!self.complete && self.snapshot.is_none()) {
            self.snapshot = Some(HashSet::new());
            (self.snapshot_unnamed, self.cut) = (0, false);
            self.complete = false;
        }
        let mut unnamed = if self.complete { self.unneeded.len() } else { self.snapshot_unnamed };
        for key in report.held {
            self.end_order(&key);
            if !is_named(&key) && !self.snapshot.as_ref().unwrap_or(&self.chunks).contains(&key) {
                if unnamed >= budget {
                    self.cut = true;
                    continue;
                }
                unnamed += 1;
            }
            // Stored again: the time for which it must be unneeded starts again.
            if let Some(since) = self.unneeded.get_mut(&key) {
                *since = now;
            }
            let into = self.snapshot.as_mut().unwrap_or(&mut self.chunks);
            if into.len() < MAX_NODE_CHUNKS && into.insert(key) && self.complete {
                changed.chunks.push(key);
            }
        }
        if !self.complete {
            self.snapshot_unnamed = unnamed;
        }
        for key in report.gone {
            self.end_order(&key);
            self.snapshot.as_mut().unwrap_or(&mut self.chunks).remove(&key);
            if self.complete {
                self.unneeded.remove(&key);
                changed.chunks.push(key);
            }
        }
        for key in report.failed {
            self.end_order(&key);
            self.paused.insert(key, now + PAUSE_MS);
            changed.chunks.push(key);
        }
        if !report.more && !self.complete {
            self.complete = true;
            self.reported = true;
            if let Some(snapshot) = self.snapshot.take() {
                self.chunks = snapshot;
            }
            self.snapshot_unnamed = 0;
            let chunks = &self.chunks;
            self.unneeded.retain(|key, _| chunks.contains(key));
            changed.all = true;
        }
        changed
    }

    fn end_order(&mut self, key: &OwnedChunk) {
        if let Some(copy) = self.copying.remove(key) {
            self.copying_bytes -= u64::from(copy.sealed);
        }
        self.deleting.remove(key);
        self.paused.remove(key);
    }

    /// Forgets orders that took too long and pauses that are over; returns their chunks, which are to be counted again.
    pub(super) fn expire(&mut self, now: u64) -> Vec<OwnedChunk> {
        let over = self.copying.iter().filter(|(_, copy)| copy.until_ms <= now).map(|(key, _)| *key);
        let mut expired: Vec<OwnedChunk> = over.collect();
        for key in &expired {
            self.end_order(key);
        }
        self.deleting.retain(|_, until| *until > now);
        expired.extend(self.paused.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key));
        self.paused.retain(|_, until| *until > now);
        expired
    }

    /// Whether it holds the chunk and can be asked for it now.
    pub(super) fn serves(&self, key: &OwnedChunk) -> bool {
        self.up && self.chunks.contains(key)
    }

    /// Whether a copy of the chunk is on its way to it.
    pub(super) fn is_copying(&self, key: &OwnedChunk) -> bool {
        self.copying.contains_key(key)
    }

    /// Whether a copy of the chunk could be put there, now or when orders under way are done.
    pub(super) fn could_take(&self, key: &OwnedChunk, sealed: u32) -> bool {
        self.up
            && !self.chunks.contains(key)
            && !self.copying.contains_key(key)
            && !self.paused.contains_key(key)
            && self.room() >= u64::from(sealed)
    }

    fn room(&self) -> u64 {
        self.free.saturating_sub(self.copying_bytes)
    }

    /// Remembered chunks that no file asks it to hold.
    pub(super) fn unnamed(&self) -> usize {
        self.unneeded.len() + self.snapshot_unnamed
    }

    /// Whether there is room for the chunks that were ignored.
    pub(super) fn has_room_again(&self, budget: usize) -> bool {
        self.cut && self.complete && self.unnamed() < budget / 2
    }

    /// Whether further copies may be ordered.
    pub(super) fn is_idle(&self) -> bool {
        self.up && self.copying.len() < MAX_UNDER_WAY
    }

    /// Whether further deletions may be ordered.
    pub(super) fn takes_deletions(&self) -> bool {
        self.up && self.deleting.len() < MAX_DELETING
    }

    /// Queues an order, which goes out with the answer to the next report.
    pub(super) fn order(&mut self, planned: Planned, now: u64) {
        match &planned {
            Planned::Copy { chunk, sealed, .. } => {
                let until_ms = now + ORDER_LIFE_MS;
                self.copying.insert(*chunk, UnderWay { until_ms, sealed: *sealed });
                self.copying_bytes += u64::from(*sealed);
            }
            Planned::Delete { chunk } => drop(self.deleting.insert(*chunk, now + DELETION_AGAIN_MS)),
        }
        self.queue.push_back(planned);
    }

    /// Orders that have not gone out, copies first.
    pub(super) fn take_orders(&mut self, limit: usize) -> Vec<Planned> {
        let queue = self.queue.drain(..);
        let (mut first, rest): (Vec<_>, Vec<_>) =
            queue.partition(|order| matches!(order, Planned::Copy { .. }));
        first.extend(rest);
        self.queue = first.split_off(limit.min(first.len())).into();
        first
    }

    /// Withdraws the copies that were ordered: another tracker orders them now.
    pub(super) fn drop_copies(&mut self) {
        self.queue.retain(|order| matches!(order, Planned::Delete { .. }));
        self.copying.clear();
        self.copying_bytes = 0;
    }

    /// Withdraws the deletions that have not gone out.
    pub(super) fn drop_deletions(&mut self) {
        self.queue.retain(|order| matches!(order, Planned::Copy { .. }));
        self.deleting.clear();
    }

    /// Whether a deletion may be ordered: none is under way, and none just failed.
    pub(super) fn may_delete(&self, key: &OwnedChunk) -> bool {
        !self.deleting.contains_key(key) && !self.paused.contains_key(key)
    }

    /// Copies under way.
    pub(super) fn under_way(&self) -> usize {
        self.copying.len()
    }

    /// The node for clients and operators; `None` for a key that only manifests name.
    pub(super) fn entry(&self, now: u64) -> Option<NodeEntry> {
        Some(NodeEntry {
            peer: self.peer?,
            name: self.name.clone()?,
            address: self.address.clone(),
            up: self.up,
            silent_ms: self.reported.then(|| now.saturating_sub(self.heard_ms)),
            capacity: self.capacity,
            free: self.free,
            chunks: self.chunks.len() as u64,
            successor: self.successor.filter(|_| !self.up),
        })
    }
}
