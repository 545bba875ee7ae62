//! The pulling side of an anti-entropy sync. One sync runs at a time. **The vector moves only at its END**,
//! and only once every blob that its rows name is held.

use super::peer_link::PeerLink;
use super::serve::encode_sums;
use super::{Deferred, DeferredItem, Replica};
use crate::election::place_of;
use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Frame, Pull};
use crate::limits::{
    BUSY_RETRY_MS, FULL_SYNC_IDLE_MS, MAX_HELD_ROWS, MAX_WRITERS, SYNC_BASE_MS, SYNC_CREDIT, SYNC_IDLE_MS,
    SYNC_MIN_RATE, SYNC_STALL_MS,
};
use crate::row::{Row, TrackerNo, key_digest};
use crate::rows::Rows;
use crate::state::{Trust, pending_key};
use crate::vector::VersionVector;

/// The sync that is being pulled.
#[derive(Debug)]
pub(crate) struct RunningSync {
    pub(crate) peer: TrackerNo,
    id: u64,
    kind: SyncKind,
    /// Frames that were stored and not yet returned as credit.
    owed: u32,
    /// When the next rows must have arrived.
    deadline_ms: u64,
    progress: Progress,
}

/// How much a sync has brought. Only rows, each counted once, and blobs are progress.
#[derive(Debug)]
struct Progress {
    started_ms: u64,
    stored_ms: u64,
    bytes: u64,
    /// The last number seen of each writer.
    seen: VersionVector,
}

impl Progress {
    /// Counts rows that arrived.
    fn note(&mut self, rows: &[Row]) {
        for row in rows {
            if self.seen.len() < MAX_WRITERS && self.seen.raise(row.writer, row.seq) {
                self.bytes = self.bytes.saturating_add(row.weight() as u64);
            }
        }
    }

    /// When the sync has to be complete, by what it has brought so far.
    fn deadline_ms(&self, kind: &SyncKind) -> u64 {
        let earned = self.bytes.saturating_mul(1_000) / SYNC_MIN_RATE;
        let by_rate = self.started_ms.saturating_add(SYNC_BASE_MS).saturating_add(earned);
        let idle_ms = if matches!(kind, SyncKind::Delta) { SYNC_IDLE_MS } else { FULL_SYNC_IDLE_MS };
        by_rate.min(self.stored_ms.saturating_add(idle_ms))
    }
}

/// The purpose of a sync.
#[derive(Debug)]
pub(crate) enum SyncKind {
    /// Pulls the rows above the local vector.
    Delta,
    /// Pulls all rows and collects digests of their keys. What the peer covers and did not send was deleted
    /// there.
    Full(Vec<u128>),
    /// Pulls the buckets that differ.
    Repair,
    /// Pulls all rows to see whether the peer holds what a full sync with another peer left out. No row is
    /// taken.
    Ask,
}

impl Replica {
    /// Whether some connected peer has dropped tombstones that were never seen here. Until a full sync with
    /// it is complete, no sync is served and no other one is merged.
    pub(crate) fn is_full_sync_pending(&self) -> bool {
        self.links.keys().any(|&peer| self.is_full_sync_due(peer))
    }

    /// Starts a sync if one is due and none is running.
    pub(crate) fn start_sync<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        if self.sync.is_some() || self.votes_due {
            return Ok(());
        }
        self.links.values_mut().for_each(|link| link.catch_up(&self.state.vector));
        let ask = self.next_to_ask();
        if self.removal.is_some() && ask.is_none() {
            return Ok(());
        }
        // Peers take turns, so that one that always has something new cannot keep the others from being
        // synced.
        let due = self.links.keys().copied().filter(|&peer| self.is_sync_due(peer, now));
        let turn = |peer: &TrackerNo| self.reputations.get(peer).map_or(0, |peer| peer.last_sync_ms);
        let Some(peer) = ask.or_else(|| due.min_by_key(turn)) else {
            return Ok(());
        };
        self.reputation(peer).last_sync_ms = now.mono_ms + 1;
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        link.refused.clear();
        let (kind, sums) = if ask.is_some() {
            (SyncKind::Ask, None)
        } else if link.needs_full_sync {
            (SyncKind::Full(Vec::new()), None)
        } else if link.repair {
            (SyncKind::Repair, Some(encode_sums(&rows.bucket_sums()?)))
        } else {
            (SyncKind::Delta, None)
        };
        let full = matches!(kind, SyncKind::Ask | SyncKind::Full(_));
        let warn = matches!(kind, SyncKind::Full(_));
        self.next_sync += 1;
        let sync_id = self.next_sync;
        self.announce_vector(peer);
        self.send(peer, Frame::Pull(Pull { sync_id, credit: SYNC_CREDIT, full, sums }));
        let (started_ms, stored_ms) = (now.mono_ms, now.mono_ms);
        let progress = Progress { started_ms, stored_ms, bytes: 0, seen: VersionVector::default() };
        let deadline_ms = now.mono_ms + SYNC_STALL_MS;
        self.sync = Some(RunningSync { peer, id: sync_id, kind, owed: 0, deadline_ms, progress });
        if warn && !self.state.vector.is_empty() {
            self.warn(Warning::FullSync { peer });
        }
        Ok(())
    }

    /// Whether there is anything to pull from this peer and a sync may start now.
    pub(crate) fn is_sync_due(&self, peer: TrackerNo, now: Now) -> bool {
        let is_backing_off = self.reputations.get(&peer).is_some_and(|peer| peer.is_backing_off(now.mono_ms));
        let retries = self.links.get(&peer).is_some_and(|link| now.mono_ms >= link.retry_ms);
        !is_backing_off && retries && self.wants_sync(peer)
    }

    /// When postponed syncs may start.
    pub(crate) fn retries(&self) -> impl Iterator<Item = u64> + '_ {
        let of_link = |(peer, link): (&TrackerNo, &PeerLink)| {
            let is_backing_off = self.reputations.get(peer).map_or(0, |peer| peer.sync_after_ms);
            Some(link.retry_ms.max(is_backing_off)).filter(|&due| due > 0 && self.wants_sync(*peer))
        };
        self.links.iter().filter_map(of_link)
    }

    /// Whether there is anything to pull from this peer.
    pub(crate) fn wants_sync(&self, peer: TrackerNo) -> bool {
        let Some(link) = self.links.get(&peer).filter(|link| link.is_ready()) else {
            return false;
        };
        if (link.needs_full_sync || self.is_full_sync_pending()) && !self.is_full_sync_due(peer) {
            return false;
        }
        // A gap that only waits for blobs closes by itself.
        let held = link.writer().map_or(0, |writer| self.state.vector.at(writer));
        let explains = |wait: &Deferred| match wait.what {
            DeferredItem::End { .. } => true,
            DeferredItem::Row { .. } => false,
            DeferredItem::Live(ref live) => live.from <= held,
        };
        if self.deferred.iter().any(|wait| wait.peer == peer && explains(wait)) {
            return false;
        }
        // What a connected tracker has just written arrives from that tracker itself, sooner than by a sync
        // with another one.
        let speaks_for = |writer| link.writer() == Some(writer) || !self.is_connected_writer(writer);
        !link.synced
            || link.needs_full_sync
            || link.repair
            || link.ahead_of(&self.state.vector).any(speaks_for)
    }

    /// Rows of the sync.
    pub(crate) fn on_rows<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        sync_id: u64,
        received: Vec<Row>,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(trust) = self.current_sync(peer, sync_id).map(|sync| match sync.kind {
            SyncKind::Delta => Trust::Vector,
            SyncKind::Full(_) | SyncKind::Repair | SyncKind::Ask => Trust::Sender,
        }) else {
            return Ok(());
        };
        // No honest tracker sends an empty frame. Answered with credit, it would go back and forth for ever.
        if received.is_empty() {
            self.reputation(peer).sync_failed(now.mono_ms);
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        if let Some(sync) = &mut self.sync {
            if let SyncKind::Full(carried) = &mut sync.kind {
                carried.extend(received.iter().map(|row| key_digest(row.kind, &row.key)));
            }
            sync.owed += 1;
            sync.deadline_ms = now.mono_ms + SYNC_STALL_MS;
            sync.progress.note(&received);
            if sync.owed > SYNC_CREDIT + 1 {
                self.disconnect(peer, Reason::Malformed);
                return Ok(());
            }
            if matches!(sync.kind, SyncKind::Ask) {
                if self.on_asked_rows(&received) {
                    self.give_credit(now);
                }
                return Ok(());
            }
        }
        for row in received {
            let trust = self.trust_in(peer, row.writer, trust);
            let lacking = self.state.lacks(rows, &row, trust)?;
            if !lacking.is_empty() {
                self.defer(peer, lacking.into_iter().collect(), DeferredItem::Row { row, trust });
            } else if !self.take_in_sync(rows, peer, &row, trust, now)? {
                return Ok(());
            }
        }
        self.give_credit(now);
        Ok(())
    }

    /// Takes a row of a sync. A name that it concerns is examined after END, because a half-received sync
    /// never counts. Returns whether the link is still up.
    pub(crate) fn take_in_sync<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        row: &Row,
        trust: Trust,
        now: Now,
    ) -> Result<bool, R::Error> {
        let Some(stored) = self.take(rows, peer, row, trust, now)? else {
            return Ok(false);
        };
        if stored {
            self.note_progress(peer, 0, now);
        }
        if stored && let Some((space, place)) = place_of(rows, row) {
            rows.put_meta(&pending_key(space, &place), &[])?;
        }
        Ok(true)
    }

    /// How many rows of syncs wait for their blobs.
    fn held_rows(&self) -> usize {
        self.deferred.iter().filter(|wait| matches!(wait.what, DeferredItem::Row { .. })).count()
    }

    /// Returns credit, unless too many rows wait for their blobs.
    pub(crate) fn give_credit(&mut self, now: Now) {
        if self.held_rows() >= MAX_HELD_ROWS {
            return;
        }
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.owed > 0) else {
            return;
        };
        let (peer, sync_id, frames) = (sync.peer, sync.id, std::mem::take(&mut sync.owed));
        sync.deadline_ms = now.mono_ms + SYNC_STALL_MS;
        self.send(peer, Frame::More { sync_id, frames });
    }

    /// The peer whose sync makes no progress, if its deadline has passed.
    pub(crate) fn is_stalled(&self, now: Now) -> Option<TrackerNo> {
        let deadline_ms = self.stall_deadline()?;
        self.sync.as_ref().filter(|_| now.mono_ms >= deadline_ms).map(|sync| sync.peer)
    }

    /// When the sync must have made progress.
    pub(crate) fn stall_deadline(&self) -> Option<u64> {
        let paused = self.held_rows() >= MAX_HELD_ROWS;
        self.sync.as_ref().map(|sync| {
            let deadline_ms = sync.progress.deadline_ms(&sync.kind);
            if paused {
                // Its rows wait for blobs, which may come from any peer.
                deadline_ms.max(sync.progress.stored_ms.saturating_add(SYNC_BASE_MS))
            } else {
                deadline_ms.min(sync.deadline_ms)
            }
        })
    }

    /// A row of the sync was stored, or a part of a blob arrived that its rows may wait for.
    pub(crate) fn note_progress(&mut self, peer: TrackerNo, bytes: u64, now: Now) {
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.peer == peer) {
            sync.progress.bytes = sync.progress.bytes.saturating_add(bytes);
            sync.progress.stored_ms = now.mono_ms;
        }
    }

    /// The sync is complete. Its vector counts once all blobs are held.
    pub(crate) fn on_end(&mut self, peer: TrackerNo, sync_id: u64) {
        if self.current_sync(peer, sync_id).is_none() {
            return;
        }
        let vector = self.links.get(&peer).map(|link| link.vector.clone()).unwrap_or_default();
        if let Some(sync) = self.sync.take() {
            let own = self
                .deferred
                .iter()
                .filter(|wait| wait.peer == peer && matches!(wait.what, DeferredItem::Row { .. }));
            let hashes = own.flat_map(|wait| wait.hashes.iter().copied()).collect();
            self.defer(peer, hashes, DeferredItem::End { vector, kind: sync.kind });
        }
    }

    /// The peer cannot serve the sync now.
    pub(crate) fn on_busy(&mut self, peer: TrackerNo, sync_id: u64, now: Now) {
        if self.current_sync(peer, sync_id).is_none() {
            return;
        }
        let asked = self.sync.take().is_some_and(|sync| matches!(sync.kind, SyncKind::Ask));
        if asked {
            self.cannot_be_asked(peer);
        } else if let Some(link) = self.links.get_mut(&peer) {
            link.retry_ms = now.mono_ms + BUSY_RETRY_MS;
        }
    }

    /// The sync is complete and all its blobs are held: it counts now.
    pub(crate) fn finish_sync<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        vector: &VersionVector,
        kind: SyncKind,
        now: Now,
    ) -> Result<(), R::Error> {
        match kind {
            SyncKind::Repair => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.repair = false;
                }
                self.repair_ended(peer, now);
                self.votes_due = self.may_vote();
                Ok(())
            }
            SyncKind::Ask => {
                self.agreed(peer, vector);
                Ok(())
            }
            SyncKind::Delta if self.is_full_sync_pending() => Ok(()),
            SyncKind::Delta => self.count_sync(rows, peer, vector, now),
            SyncKind::Full(mut carried) => {
                carried.sort_unstable();
                self.mark(rows, peer, vector.clone(), &carried, now)
            }
        }
    }

    /// Merges the vector of END: everything that it covers is held or superseded now.
    pub(crate) fn count_sync<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        vector: &VersionVector,
        now: Now,
    ) -> Result<(), R::Error> {
        let mut vector = self.believed(peer, vector);
        for (writer, _) in vector.clone().iter() {
            self.admits_writer(peer, writer, now);
        }
        let refused = self.links.get(&peer).map(|link| link.refused.clone()).unwrap_or_default();
        refused.iter().for_each(|&writer| vector.forget(writer));
        if !self.state.has_room_for(&vector) {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyWriters));
            self.disconnect(peer, Reason::TooManyWriters);
            return Ok(());
        }
        if refused.is_empty() {
            self.reputation(peer).sync_succeeded();
        } else {
            self.reputation(peer).sync_failed(now.mono_ms);
        }
        self.state.merge(rows, &vector)?;
        self.synced_peers.insert(peer);
        let ready: Vec<_> = self.ready_peers();
        for peer in ready {
            self.inherit_gc_watermark(rows, peer)?;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.synced = true;
        }
        self.close_gaps(rows)?;
        self.votes_due = self.may_vote();
        if self.votes_due {
            self.state.was_blank = false;
            self.state.seal_beginning(rows, now)?;
        }
        Ok(())
    }

    fn current_sync(&self, peer: TrackerNo, sync_id: u64) -> Option<&RunningSync> {
        self.sync.as_ref().filter(|sync| sync.peer == peer && sync.id == sync_id)
    }
}
