//! Periodic work: PING, DIGEST, dropping tombstones and unnamed blobs, and adopting rows that their own
//! writer can no longer cover.

use super::peer_link::Overdue;
use super::{Replica, is_held_elsewhere};
use crate::election::examine_pending;
use crate::event::{Alarm, Now, Output, Reason};
use crate::frame::Frame;
use crate::limits::{
    DIGEST_MS, MAX_ORPHANS_ALONE, MAX_WRITE_BYTES, ORPHAN_MS, PING_MS, READ_ROWS, SWEEP_MS, SWEEP_ROWS,
    TOMBSTONE_MS,
};
use crate::row::{BlobHash, Row, Stamp, TrackerNo, WriterId};
use crate::rows::Rows;
use crate::state::{idle_key, number};

/// When each task is due, and how far the sweep has come.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pub(crate) digest_ms: u64,
    pub(crate) sweep_ms: u64,
    pub(crate) orphans_ms: u64,
    tombstones_from: Stamp,
    /// Other trackers have dropped tombstones: the sweep reads all tombstones, not only the old ones.
    pub(crate) sweep_all: bool,
    blobs_after: Option<BlobHash>,
    orphaned_since: Option<u64>,
}

impl Maintenance {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            digest_ms: now.mono_ms + DIGEST_MS,
            sweep_ms: now.mono_ms + SWEEP_MS,
            orphans_ms: now.mono_ms + PING_MS,
            tombstones_from: Stamp::default(),
            sweep_all: false,
            blobs_after: None,
            orphaned_since: None,
        }
    }
}

impl Replica {
    /// Does everything that is due.
    pub(crate) fn tick<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let overdue: Vec<_> =
            self.links.iter().filter_map(|(&peer, link)| Some((peer, link.overdue(now.mono_ms)?))).collect();
        for (peer, what) in overdue {
            let reason = match what {
                Overdue::Hello => Reason::NoHello,
                Overdue::Sign => Reason::Silent,
                Overdue::Ack => Reason::NoAck,
            };
            self.disconnect(peer, reason);
        }
        if let Some(peer) = self.is_stalled(now) {
            self.reputation(peer).sync_failed(now.mono_ms);
            self.disconnect(peer, Reason::Stalled);
        }
        self.restamp_some(rows, now)?;
        self.retry_held_removals(now);
        for link in self.links.values_mut() {
            link.retry_ms = if now.mono_ms >= link.retry_ms { 0 } else { link.retry_ms };
        }
        for peer in self.reputations.values_mut() {
            peer.sync_after_ms = if now.mono_ms >= peer.sync_after_ms { 0 } else { peer.sync_after_ms };
        }
        self.ping(now);
        if now.mono_ms >= self.maintenance.digest_ms {
            self.maintenance.digest_ms = now.mono_ms + DIGEST_MS;
            self.send_digests(rows)?;
        }
        if now.mono_ms >= self.maintenance.sweep_ms {
            self.maintenance.sweep_ms = now.mono_ms + SWEEP_MS;
            self.sweep_tombstones(rows, now)?;
            self.sweep_blobs(rows, now)?;
        }
        if now.mono_ms >= self.maintenance.orphans_ms {
            self.maintenance.orphans_ms = now.mono_ms + PING_MS;
            self.adopt_orphans(rows, now)?;
        }
        Ok(())
    }

    fn ping(&mut self, now: Now) {
        let due: Vec<TrackerNo> = self
            .links
            .iter()
            .filter(|(_, link)| now.mono_ms >= link.next_ping_ms)
            .map(|(&peer, _)| peer)
            .collect();
        for peer in due {
            if let Some(link) = self.links.get_mut(&peer) {
                link.next_ping_ms = now.mono_ms + PING_MS;
            }
            self.announce_vector(peer);
            self.send(peer, Frame::Ping);
        }
    }

    /// Votes on some of the names that arrived while this tracker could not vote. No sync begins until all
    /// are done, because a half-received sync must not count.
    pub(crate) fn vote_on_pending<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let from = self.state.seq();
        let mut batch = Vec::new();
        let (links, last_vectors) = (&self.links, &self.last_vectors);
        let held = |writer, seq| is_held_elsewhere(links, last_vectors, writer, seq);
        self.votes_due = examine_pending(&mut self.state, rows, &held, now, &mut batch)?;
        self.publish(from, batch, None, now);
        Ok(())
    }

    fn send_digests<R: Rows>(&mut self, rows: &R) -> Result<(), R::Error> {
        if !self.state.is_clean() || self.is_full_sync_pending() {
            return Ok(());
        }
        let root = root(rows)?;
        let peers: Vec<_> = self.ready_peers();
        for peer in peers {
            self.announce_vector(peer);
            self.send(peer, Frame::Digest { root });
        }
        Ok(())
    }

    /// Compares a peer's digest with the local one. If the vectors are equal and nothing is held beyond them,
    /// the rows must be the same.
    pub(crate) fn on_digest<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        theirs: [u8; 16],
        now: Now,
    ) -> Result<(), R::Error> {
        let comparable = self.state.is_clean() && !self.is_full_sync_pending();
        let Some(link) = self.links.get(&peer) else {
            return Ok(());
        };
        if !comparable || link.repair || link.needs_full_sync || !self.is_level_with(rows, peer)? {
            return Ok(());
        }
        let difference = u128::from_le_bytes(theirs).wrapping_sub(u128::from_le_bytes(root(rows)?));
        if difference == 0 {
            self.reputation(peer).is_level();
        } else if self.needs_repair(peer, difference, now) && self.reputation(peer).may_repair(now.mono_ms) {
            if let Some(link) = self.links.get_mut(&peer) {
                link.repair = true;
            }
            self.outputs.push_back(Output::Alarm(Alarm::Diverged { peer }));
        }
        Ok(())
    }

    /// Drops old tombstones that every configured tracker is known to hold or to have superseded, and those
    /// that others dropped.
    fn sweep_tombstones<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if self.is_full_sync_pending() {
            return Ok(());
        }
        let old = Stamp::at_ms(now.wall_ms.saturating_sub(TOMBSTONE_MS));
        let before = if self.maintenance.sweep_all { Stamp::MAX } else { old };
        let page = rows.tombstones(self.maintenance.tombstones_from, before, SWEEP_ROWS)?;
        self.maintenance.tombstones_from = match page.last() {
            Some(last) if page.len() == SWEEP_ROWS => {
                self.maintenance.sweep_ms = now.mono_ms + PING_MS;
                Stamp::from_u64(last.stamp.as_u64() + 1)
            }
            _ => {
                self.maintenance.sweep_all = false;
                Stamp::default()
            }
        };
        let is_due =
            |row: &Row| self.state.is_dropped(row) || (row.stamp < old && self.is_covered_everywhere(row));
        let due: Vec<Row> = page.into_iter().filter(is_due).collect();
        let mut risen = false;
        for row in &due {
            risen |= self.state.drop_tombstone(rows, row)?;
        }
        if risen {
            self.maintenance.sweep_all = true;
            self.send_gc_watermarks();
        }
        Ok(())
    }

    fn is_covered_everywhere(&self, row: &Row) -> bool {
        self.state.configured.iter().all(|&tracker| {
            let vector = match self.links.get(&tracker).filter(|link| link.is_ready()) {
                _ if tracker == self.state.me => Some(&self.state.vector),
                Some(link) => Some(&link.vector),
                None => self.last_vectors.get(&tracker),
            };
            vector.is_some_and(|vector| vector.covers(row.writer, row.seq))
        })
    }

    /// Drops blobs that no row has named for as long as tombstones are kept.
    fn sweep_blobs<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let page = rows.unnamed_blobs(self.maintenance.blobs_after, SWEEP_ROWS)?;
        self.maintenance.blobs_after = page.last().copied().filter(|_| page.len() == SWEEP_ROWS);
        for hash in page {
            let key = idle_key(hash);
            match rows.meta(&key)?.as_deref().and_then(number) {
                Some(since) if now.wall_ms >= since.saturating_add(TOMBSTONE_MS) => {
                    rows.remove_blob(hash)?;
                    rows.remove_meta(&key)?;
                }
                Some(_) => {}
                None => rows.put_meta(&key, &now.wall_ms.to_be_bytes())?,
            }
        }
        Ok(())
    }

    /// Adopts rows beyond the vector that no vector will ever cover. A LIVE row or a cut sync can leave such
    /// rows if their tracker has lost its disk since. Once there is nothing left to pull, they get numbers of
    /// this tracker and reach all trackers like its other rows. If their tracker is merely away, adopting
    /// them costs numbers and does no harm.
    fn adopt_orphans<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let ready: Vec<TrackerNo> = self.ready_peers();
        let at_rest = !ready.is_empty()
            && self.sync.is_none()
            && self.deferred.is_empty()
            && !self.votes_due
            && self.blobs.is_complete()
            && !self.is_full_sync_pending()
            // A peer whose syncs fail does not hold this up.
            && !ready.iter().any(|&peer| self.is_sync_due(peer, now));
        // The rows of a connected tracker whose syncs fail are never covered either.
        let expected = |writer: WriterId| {
            let is_backing_off = |peer: &TrackerNo| {
                self.reputations.get(peer).is_some_and(|peer| peer.is_backing_off(now.mono_ms))
            };
            self.links.iter().any(|(peer, link)| link.writer() == Some(writer) && !is_backing_off(peer))
        };
        let orphaned = |writer: &WriterId| *writer != self.state.writer && !expected(*writer);
        let Some(writer) = self.state.ahead().into_iter().find(orphaned).filter(|_| at_rest) else {
            self.maintenance.orphaned_since = None;
            return Ok(());
        };
        let since = *self.maintenance.orphaned_since.get_or_insert(now.mono_ms);
        if now.mono_ms < since + ORPHAN_MS {
            return Ok(());
        }
        let all_here = ready.len() + 1 == self.state.configured.len();
        let page = rows.above(writer, self.state.vector.at(writer), MAX_ORPHANS_ALONE + 1)?;
        if page.is_empty() {
            return self.state.close_gap(rows, writer);
        }
        if page.len() > MAX_ORPHANS_ALONE && !all_here {
            return Ok(());
        }
        self.adopt(rows, page, now)
    }

    fn adopt<R: Rows>(&mut self, rows: &mut R, page: Vec<Row>, now: Now) -> Result<(), R::Error> {
        let from = self.state.seq();
        let mut bytes = 0;
        let mut batch = Vec::new();
        for row in page.into_iter().take(READ_ROWS) {
            bytes += row.weight();
            if bytes > MAX_WRITE_BYTES {
                break;
            }
            batch.extend(self.state.adopt(rows, row)?);
        }
        if !batch.is_empty() {
            self.maintenance.orphans_ms = now.mono_ms;
        }
        self.publish(from, batch, None, now);
        Ok(())
    }
}

/// The sum over all rows. A sum of random 128-bit numbers distinguishes sets as well as a hash of all of
/// them.
fn root<R: Rows>(rows: &R) -> Result<[u8; 16], R::Error> {
    Ok(rows.bucket_sums()?.iter().fold(0, |root: u128, sum| root.wrapping_add(*sum)).to_le_bytes())
}
