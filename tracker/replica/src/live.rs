//! Writes, their way to every connected tracker, and their acknowledgement.

use std::collections::BTreeSet;

use crate::election::examine;
use crate::event::{Now, Output, Reason, Refusal, Write, WriteError, WriteId};
use crate::frame::{Frame, Live};
use crate::ledger::Trust;
use crate::limits::{
    LIVE_WINDOW_FRAMES, MAX_BLOB_BYTES, MAX_BLOBS_PER_ROW, MAX_KEY_BYTES, MAX_PENDING_WRITES,
    MAX_ROWS_PER_WRITE, MAX_VALUE_BYTES, MAX_WRITE_BYTES, NAMES_PER_STEP,
};
use crate::link::Link;
use crate::names::{NameSpace, name_of, parse_claim_key};
use crate::replica::{Replica, Waiting, is_held_elsewhere};
use crate::row::{BlobHash, Kind, Origin, Row, Rule, TrackerNo};
use crate::rows::Rows;

/// A write whose acknowledgement is outstanding.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Who has not acknowledged it and is still connected.
    waiting: BTreeSet<TrackerNo>,
    copies: usize,
}

impl Replica {
    /// Writes rows, all in the caller's transaction: they get their stamps and numbers, a claim gets this tracker's vote,
    /// and all of it goes to every connected tracker. [`Output::Acked`] names the returned id once each of these has
    /// acknowledged it or was disconnected; at once when there is none.
    ///
    /// # Errors
    /// `Refused` when the rows are at fault or too much is under way: nothing has changed then. `Store` when the storage
    /// failed: the transaction must be rolled back and this replica thrown away.
    pub fn write<R: Rows>(
        &mut self,
        rows: &mut R,
        writes: Vec<Write>,
        now: Now,
    ) -> Result<WriteId, WriteError<R::Error>> {
        self.ledger.look_at_clock(now);
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
        let from = self.ledger.seq();
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
            // A retry of what is held already goes out again, so that its acknowledgement means the same.
            let row = match held {
                Some(row) => row,
                None => self.ledger.write(rows, write, now)?,
            };
            names.extend(name_of(&row).map(|(space, name)| (space, name.to_vec())));
            batch.push(row);
        }
        self.examine_all(rows, &names, now, &mut batch)?;
        let waiting = self.publish(from, batch, Some(id), now);
        if waiting.is_empty() {
            self.outputs.push_back(Output::Acked { write: id, copies: 1 });
        } else {
            self.writes.insert(id, Pending { waiting, copies: 1 });
        }
        Ok(())
    }

    /// Sends rows that were just written to every connected tracker that can take them; returns which of these are waited for. The
    /// others find the gap in their vector and close it by a round.
    pub(crate) fn publish(
        &mut self,
        from: u64,
        batch: Vec<Row>,
        write: Option<WriteId>,
        now: Now,
    ) -> BTreeSet<TrackerNo> {
        let to = self.ledger.seq();
        self.publish_range((from, to), batch, write, now)
    }

    /// The same for some of the rows that were just written: those numbered from above `from` to `to`.
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
                // A peer that failed to acknowledge lately is sent it and not waited for.
                let waited = self.conduct.get(&peer).is_none_or(|peer| peer.is_waited_for(now.mono_ms));
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

    /// A transaction of a peer: stored always, and acknowledged once all its blobs are held.
    pub(crate) fn on_live<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        live: Live,
        now: Now,
    ) -> Result<(), R::Error> {
        if let Some(row) = live.rows.iter().find(|row| self.ledger.times.is_impossible(row)) {
            // Its own writes, as they come: not stored, so not acknowledged either.
            self.note_refusal(peer, row, now);
            self.disconnect(peer, Reason::BadTime);
            return Ok(());
        }
        let writers: BTreeSet<Origin> = live.rows.iter().map(|row| row.origin).collect();
        if !writers.into_iter().all(|origin| self.admits_writer(peer, origin, now)) {
            self.disconnect(peer, Reason::TooManyOrigins);
            return Ok(());
        }
        let mut hashes = BTreeSet::new();
        for row in &live.rows {
            let trust = self.trust_in(peer, row.origin, Trust::Vector);
            hashes.extend(self.ledger.lacks(rows, row, trust)?);
        }
        if let Some(link) = self.links.get_mut(&peer)
            && let Some(origin) = link.origin()
        {
            link.holds(origin, live.to);
        }
        if hashes.is_empty() {
            return self.finish_live(rows, peer, &live, now);
        }
        let bytes: usize = live.rows.iter().map(Row::weight).sum();
        let room = self.links.get_mut(&peer).is_some_and(|link| link.holds_back(bytes));
        if self.waits.len() > 2 * LIVE_WINDOW_FRAMES || !room {
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        self.wait(peer, hashes, Waiting::Live(live));
        Ok(())
    }

    /// A peer's transaction can be stored, as all its blobs are held: the vector moves if it is contiguous, the ACK goes
    /// out in any case.
    pub(crate) fn finish_live<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        live: &Live,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(origin) = self.links.get(&peer).and_then(Link::origin) else {
            return Ok(());
        };
        let contiguous = live.from <= self.ledger.vector.at(origin);
        let trust = if contiguous { Trust::Next(origin) } else { Trust::Vector };
        let mut names = BTreeSet::new();
        for row in &live.rows {
            let Some(stored) = self.take(rows, peer, row, trust, now)? else {
                return Ok(());
            };
            if stored {
                names.extend(name_of(row).map(|(space, name)| (space, name.to_vec())));
            }
        }
        let from = self.ledger.seq();
        let mut batch = Vec::new();
        self.examine_all(rows, &names, now, &mut batch)?;
        // Before the ACK on the same link, so that whoever hears the ACK knows the votes.
        self.publish(from, batch, None, now);
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        // Not more than the peer wrote, whatever others said of it.
        let covered = self.ledger.vector.at(origin).min(link.vector.at(origin));
        let held = link.stored(live.from, live.to, covered);
        link.told.raise(origin, held);
        self.ledger.cover(rows, origin, held)?;
        self.send(peer, Frame::Ack { ids: vec![live.id], held });
        Ok(())
    }

    /// Transactions that were held beyond a gap count where a round has closed it.
    pub(crate) fn close_gaps<R: Rows>(&mut self, rows: &mut R) -> Result<(), R::Error> {
        for link in self.links.values_mut() {
            if let Some(origin) = link.origin() {
                let held = link.contiguous(self.ledger.vector.at(origin));
                self.ledger.cover(rows, origin, held)?;
            }
        }
        Ok(())
    }

    /// A peer holds transactions of this tracker durably.
    pub(crate) fn on_ack(&mut self, peer: TrackerNo, ids: &[u64], held: u64, now: Now) {
        let origin = self.ledger.origin;
        let held = if self.is_false_word(peer, origin, held, now) { 0 } else { held };
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        if held > 0 {
            link.holds(origin, held);
        }
        self.settle_due = true;
        let before = link.live.len();
        let writes: Vec<WriteId> = ids.iter().filter_map(|&id| link.acked(id)).collect();
        if link.live.len() < before {
            link.worked_ms = now.mono_ms;
            self.conduct(peer).acknowledged(now.mono_ms);
        }
        for id in writes {
            if let Some(pending) = self.writes.get_mut(&id) {
                pending.copies += 1;
                self.stop_waiting(id, peer);
            }
        }
    }

    /// A peer is gone: nothing waits for it any more.
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
        let (links, known) = (&self.links, &self.known);
        let held = |origin, seq| is_held_elsewhere(links, known, origin, seq);
        for (space, name) in names {
            examine(&mut self.ledger, rows, (*space, name), (may_vote, &held), now, batch)?;
        }
        Ok(())
    }

    /// Settles names whose votes another tracker holds by now.
    pub(crate) fn settle<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let (links, known) = (&self.links, &self.known);
        let held = |origin, seq| is_held_elsewhere(links, known, origin, seq);
        let names: BTreeSet<_> =
            self.ledger.take_unsettled(rows, held, NAMES_PER_STEP)?.into_iter().collect();
        self.settle_due = names.len() == NAMES_PER_STEP;
        if !names.is_empty() {
            let from = self.ledger.seq();
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
