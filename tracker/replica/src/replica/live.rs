//! Writes, their replication to every connected tracker, and their acknowledgement.

use std::collections::BTreeSet;

use super::peer_link::PeerLink;
use super::{DeferredItem, Replica, is_held_elsewhere};
use crate::election::{examine, place_of};
use crate::event::{Now, Output, Reason, Refusal, Write, WriteError, WriteId};
use crate::frame::{Frame, Live};
use crate::limits::{
    LIVE_WINDOW_FRAMES, MAX_BLOB_BYTES, MAX_BLOBS_PER_ROW, MAX_KEY_BYTES, MAX_PENDING_WRITES,
    MAX_ROWS_PER_WRITE, MAX_VALUE_BYTES, MAX_WRITE_BYTES, NAMES_PER_STEP,
};
use crate::names::{NameSpace, parse_claim_key};
use crate::row::{BlobHash, Kind, Row, Rule, TrackerNo, WriterId};
use crate::rows::Rows;
use crate::state::Trust;

/// A write whose acknowledgement is outstanding.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    /// Connected trackers that have not acknowledged it.
    waiting: BTreeSet<TrackerNo>,
    copies: usize,
}

impl Replica {
    /// Writes rows, all in the caller's transaction. The rows get their stamps and numbers, a claim gets this
    /// tracker's vote, and all of them are sent to every connected tracker. [`Output::Acked`] names the
    /// returned id once each of these has acknowledged it or was disconnected, or at once if none is
    /// connected.
    ///
    /// # Errors
    /// `Refused` if the rows are invalid or too much is in progress; nothing has changed then. `Store` if the
    /// storage failed: roll back the transaction and drop this replica.
    pub fn write<R: Rows>(
        &mut self,
        rows: &mut R,
        writes: Vec<Write>,
        now: Now,
    ) -> Result<WriteId, WriteError<R::Error>> {
        self.state.look_at_clock(now);
        self.check(rows, &writes)?;
        self.next_write += 1;
        let id = WriteId(self.next_write);
        self.write_checked(rows, writes, id, now).map_err(WriteError::Store)?;
        Ok(id)
    }

    fn check<R: Rows>(&self, rows: &R, writes: &[Write]) -> Result<(), WriteError<R::Error>> {
        let bytes: usize = writes.iter().map(|write| write.key.len() + write.value.len() + 80).sum();
        if writes.is_empty() || writes.len() > MAX_ROWS_PER_WRITE || bytes > MAX_WRITE_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        let full = self.links.values().any(|link| link.is_ready() && !link.has_room(2 * MAX_WRITE_BYTES));
        if full || self.writes.len() >= MAX_PENDING_WRITES {
            return Err(Refusal::Busy.into());
        }
        for write in writes {
            check_row(write)?;
            for (hash, content) in &write.blobs {
                let held = || rows.blob_len(*hash).map(|length| length.is_some()).map_err(WriteError::Store);
                let given = BlobHash::of(content) == *hash;
                let known = given || (content.is_empty() && held()?);
                if !known {
                    return Err(Refusal::Blob.into());
                }
            }
        }
        Ok(())
    }

    fn write_checked<R: Rows>(
        &mut self,
        rows: &mut R,
        writes: Vec<Write>,
        id: WriteId,
        now: Now,
    ) -> Result<(), R::Error> {
        let from = self.state.seq();
        let mut batch = Vec::new();
        let mut names = BTreeSet::new();
        for write in writes {
            for (hash, content) in &write.blobs {
                if rows.blob_len(*hash)?.is_none() {
                    rows.put_blob(*hash, content)?;
                    self.blobs.arrived(*hash);
                }
            }
            let held = match write.kind.rule() {
                Rule::FirstStays => rows.get(write.kind, &write.key)?,
                Rule::LastWins => None,
            };
            // A retry of a row that is held already is sent again, so that its acknowledgement means the
            // same.
            let row = match held {
                Some(row) => row,
                None => self.state.write(rows, write, now)?,
            };
            names.extend(place_of(rows, &row));
            batch.push(row);
        }
        self.examine_all(rows, &names, now, &mut batch)?;
        let waiting = self.publish(from, batch, Some(id), now);
        if waiting.is_empty() {
            self.outputs.push_back(Output::Acked { write: id, copies: 1 });
        } else {
            self.writes.insert(id, PendingWrite { waiting, copies: 1 });
        }
        Ok(())
    }

    /// Sends newly written rows to every connected tracker that has room for them. Returns the trackers whose
    /// acknowledgement is waited for. The others find the gap in their vector and close it by a sync.
    pub(crate) fn publish(
        &mut self,
        from: u64,
        batch: Vec<Row>,
        write: Option<WriteId>,
        now: Now,
    ) -> BTreeSet<TrackerNo> {
        let to = self.state.seq();
        self.publish_range((from, to), batch, write, now)
    }

    /// As `publish`, for the rows numbered above `from` up to `to`.
    pub(crate) fn publish_range(
        &mut self,
        (from, to): (u64, u64),
        batch: Vec<Row>,
        write: Option<WriteId>,
        now: Now,
    ) -> BTreeSet<TrackerNo> {
        let bytes = batch.iter().map(Row::weight).sum();
        let mut sent = BTreeSet::new();
        if batch.is_empty() {
            return sent;
        }
        for (&peer, link) in &mut self.links {
            if link.is_ready() && link.has_room(bytes) {
                // A peer that failed to acknowledge lately is sent the rows but not waited for.
                let waited = self.reputations.get(&peer).is_none_or(|peer| peer.is_waited_for(now.mono_ms));
                let id = link.await_ack(bytes, write.filter(|_| waited), now.mono_ms);
                let frame = Frame::Live(Live { id, from, to, rows: batch.clone() });
                self.outputs.push_back(Output::Send { to: peer, frame });
                if waited {
                    sent.insert(peer);
                }
            }
        }
        sent
    }

    /// A transaction of a peer. It is always stored, and acknowledged once all its blobs are held.
    pub(crate) fn on_live<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        live: Live,
        now: Now,
    ) -> Result<(), R::Error> {
        if let Some(row) = live.rows.iter().find(|row| self.state.times.is_impossible(row)) {
            // The peer's own new writes. They are not stored, so they are not acknowledged either.
            self.note_refusal(peer, row, now);
            self.disconnect(peer, Reason::BadTime);
            return Ok(());
        }
        let writers: BTreeSet<WriterId> = live.rows.iter().map(|row| row.writer).collect();
        if !writers.into_iter().all(|writer| self.admits_writer(peer, writer, now)) {
            self.disconnect(peer, Reason::TooManyWriters);
            return Ok(());
        }
        let mut hashes = BTreeSet::new();
        for row in &live.rows {
            let trust = self.trust_in(peer, row.writer, Trust::Vector);
            hashes.extend(self.state.lacks(rows, row, trust)?);
        }
        if let Some(link) = self.links.get_mut(&peer)
            && let Some(writer) = link.writer()
        {
            link.holds(writer, live.to);
        }
        if hashes.is_empty() {
            return self.finish_live(rows, peer, &live, now);
        }
        let bytes: usize = live.rows.iter().map(Row::weight).sum();
        let room = self.links.get_mut(&peer).is_some_and(|link| link.holds_back(bytes));
        if self.deferred.len() > 2 * LIVE_WINDOW_FRAMES || !room {
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        self.defer(peer, hashes, DeferredItem::Live(live));
        Ok(())
    }

    /// Stores a peer's transaction whose blobs are all held. The vector moves if the transaction is
    /// contiguous. The ACK is sent in any case.
    pub(crate) fn finish_live<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        live: &Live,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(writer) = self.links.get(&peer).and_then(PeerLink::writer) else {
            return Ok(());
        };
        let contiguous = live.from <= self.state.vector.at(writer);
        let trust = if contiguous { Trust::Next(writer) } else { Trust::Vector };
        let mut names = BTreeSet::new();
        for row in &live.rows {
            let Some(stored) = self.take(rows, peer, row, trust, now)? else {
                return Ok(());
            };
            if stored {
                names.extend(place_of(rows, row));
            }
        }
        let from = self.state.seq();
        let mut batch = Vec::new();
        self.examine_all(rows, &names, now, &mut batch)?;
        // Before the ACK on the same link, so that its receiver already knows the votes.
        self.publish(from, batch, None, now);
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        // Not more than the peer wrote, whatever other peers say of it.
        let covered = self.state.vector.at(writer).min(link.vector.at(writer));
        let held = link.stored(live.from, live.to, covered);
        link.announced.raise(writer, held);
        self.state.cover(rows, writer, held)?;
        self.send(peer, Frame::Ack { ids: vec![live.id], held });
        Ok(())
    }

    /// Counts transactions beyond a gap that a sync has closed.
    pub(crate) fn close_gaps<R: Rows>(&mut self, rows: &mut R) -> Result<(), R::Error> {
        for link in self.links.values_mut() {
            if let Some(writer) = link.writer() {
                let held = link.contiguous(self.state.vector.at(writer));
                self.state.cover(rows, writer, held)?;
            }
        }
        Ok(())
    }

    /// A peer holds transactions of this tracker durably.
    pub(crate) fn on_ack(&mut self, peer: TrackerNo, ids: &[u64], held: u64, now: Now) {
        let writer = self.state.writer;
        let held = if self.is_false_attribution(peer, writer, held, now) { 0 } else { held };
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        if held > 0 {
            link.holds(writer, held);
        }
        self.decision_due = true;
        let before = link.live.len();
        let writes: Vec<WriteId> = ids.iter().filter_map(|&id| link.acked(id)).collect();
        if link.live.len() < before {
            link.worked_ms = now.mono_ms;
            self.reputation(peer).acknowledged(now.mono_ms);
        }
        for id in writes {
            if let Some(pending) = self.writes.get_mut(&id) {
                pending.copies += 1;
                self.stop_waiting(id, peer);
            }
        }
    }

    /// A peer is gone: no write waits for it any more.
    pub(crate) fn stop_waiting_for(&mut self, peer: TrackerNo) {
        let waiting: Vec<WriteId> = self.writes.keys().copied().collect();
        for id in waiting {
            self.stop_waiting(id, peer);
        }
    }

    fn stop_waiting(&mut self, id: WriteId, peer: TrackerNo) {
        let Some(pending) = self.writes.get_mut(&id) else {
            return;
        };
        pending.waiting.remove(&peer);
        if pending.waiting.is_empty() {
            let copies = pending.copies;
            self.writes.remove(&id);
            self.outputs.push_back(Output::Acked { write: id, copies });
        }
    }

    fn examine_all<R: Rows>(
        &mut self,
        rows: &mut R,
        names: &BTreeSet<(NameSpace, Vec<u8>)>,
        now: Now,
        batch: &mut Vec<Row>,
    ) -> Result<(), R::Error> {
        let may_vote = self.may_vote();
        let (links, last_vectors) = (&self.links, &self.last_vectors);
        let held = |writer, seq| is_held_elsewhere(links, last_vectors, writer, seq);
        for (space, name) in names {
            examine(&mut self.state, rows, (*space, name), (may_vote, &held), now, batch)?;
        }
        Ok(())
    }

    /// Records the decision on names whose votes are held by another tracker by now.
    pub(crate) fn record_decisions<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let (links, last_vectors) = (&self.links, &self.last_vectors);
        let held = |writer, seq| is_held_elsewhere(links, last_vectors, writer, seq);
        let names: BTreeSet<_> = self.state.take_undecided(rows, held, NAMES_PER_STEP)?.into_iter().collect();
        self.decision_due = names.len() == NAMES_PER_STEP;
        if !names.is_empty() {
            let from = self.state.seq();
            let mut batch = Vec::new();
            self.examine_all(rows, &names, now, &mut batch)?;
            self.publish(from, batch, None, now);
        }
        Ok(())
    }
}

fn check_row(write: &Write) -> Result<(), Refusal> {
    let blobs_fit = write.blobs.len() <= MAX_BLOBS_PER_ROW
        && write.blobs.iter().all(|(_, content)| content.len() <= MAX_BLOB_BYTES);
    if write.key.len() > MAX_KEY_BYTES || write.value.len() > MAX_VALUE_BYTES || !blobs_fit {
        return Err(Refusal::TooLarge);
    }
    let kind = match write.kind {
        Kind::USER_CLAIM | Kind::GROUP_CLAIM => parse_claim_key(&write.key).is_some(),
        kind => kind >= Kind::FIRST_STAYS,
    };
    let deletion = !write.tombstone
        || (write.kind.rule() == Rule::LastWins && write.value.is_empty() && write.blobs.is_empty());
    if kind && deletion { Ok(()) } else { Err(Refusal::Invalid) }
}
