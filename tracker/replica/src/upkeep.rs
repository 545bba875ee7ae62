//! What happens by the clock: PING, DIGEST, dropping of tombstones and unnamed blobs, and the adoption of rows whose
//! origin can never cover them any more.

use crate::election::examine_pending;
use crate::event::{Alarm, Now, Output, Reason};
use crate::frame::Frame;
use crate::ledger::{idle_key, number};
use crate::limits::{
    DIGEST_MS, MAX_ORPHANS_ALONE, MAX_WRITE_BYTES, ORPHAN_MS, PING_MS, READ_ROWS, SWEEP_MS, SWEEP_ROWS,
    TOMBSTONE_MS,
};
use crate::link::Overdue;
use crate::replica::{Replica, is_held_elsewhere};
use crate::row::{BlobHash, Origin, Row, Stamp, TrackerNo};
use crate::rows::Rows;

/// When what is due, and how far the sweep has come.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) digest_ms: u64,
    pub(crate) sweep_ms: u64,
    pub(crate) orphans_ms: u64,
    tombstones_from: Stamp,
    /// Others have dropped tombstones: all are looked through, not only the old ones.
    pub(crate) sweep_all: bool,
    blobs_after: Option<BlobHash>,
    orphaned_since: Option<u64>,
}

impl Upkeep {
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
    /// Does what the clock demands.
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
            self.conduct(peer).pulled_in_vain(now.mono_ms);
            self.disconnect(peer, Reason::Stalled);
        }
        self.restamp_some(rows, now)?;
        self.look_after_held(now);
        for link in self.links.values_mut() {
            link.retry_ms = if now.mono_ms >= link.retry_ms { 0 } else { link.retry_ms };
        }
        for peer in self.conduct.values_mut() {
            peer.pull_after_ms = if now.mono_ms >= peer.pull_after_ms { 0 } else { peer.pull_after_ms };
        }
        self.ping(now);
        if now.mono_ms >= self.upkeep.digest_ms {
            self.upkeep.digest_ms = now.mono_ms + DIGEST_MS;
            self.send_digests(rows)?;
        }
        if now.mono_ms >= self.upkeep.sweep_ms {
            self.upkeep.sweep_ms = now.mono_ms + SWEEP_MS;
            self.sweep_tombstones(rows, now)?;
            self.sweep_blobs(rows, now)?;
        }
        if now.mono_ms >= self.upkeep.orphans_ms {
            self.upkeep.orphans_ms = now.mono_ms + PING_MS;
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
            self.tell(peer);
            self.send(peer, Frame::Ping);
        }
    }

    /// Votes on some of the names that came while it could not be voted on them. No round begins until all are done, so
    /// that what is half received never counts.
    pub(crate) fn vote_on_pending<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let from = self.ledger.seq();
        let mut batch = Vec::new();
        let (links, known) = (&self.links, &self.known);
        let held = |origin, seq| is_held_elsewhere(links, known, origin, seq);
        self.votes_due = examine_pending(&mut self.ledger, rows, &held, now, &mut batch)?;
        self.publish(from, batch, None, now);
        Ok(())
    }

    fn send_digests<R: Rows>(&mut self, rows: &R) -> Result<(), R::Error> {
        if !self.ledger.is_clean() || self.needs_fresh_round() {
            return Ok(());
        }
        let root = root(rows)?;
        let peers: Vec<_> =
            self.links.iter().filter(|(_, link)| link.is_ready()).map(|(&peer, _)| peer).collect();
        for peer in peers {
            self.tell(peer);
            self.send(peer, Frame::Digest { root });
        }
        Ok(())
    }

    /// A peer says what it holds. With equal vectors and nothing held beyond them it must be the same.
    pub(crate) fn on_digest<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        theirs: [u8; 16],
        now: Now,
    ) -> Result<(), R::Error> {
        let comparable = self.ledger.is_clean() && !self.needs_fresh_round();
        let Some(link) = self.links.get(&peer) else {
            return Ok(());
        };
        if !comparable || link.repair || link.fresh || !self.is_level_with(rows, peer)? {
            return Ok(());
        }
        let difference = u128::from_le_bytes(theirs).wrapping_sub(u128::from_le_bytes(root(rows)?));
        if difference == 0 {
            self.conduct(peer).is_level();
        } else if self.needs_repair(peer, difference, now) && self.conduct(peer).may_repair(now.mono_ms) {
            if let Some(link) = self.links.get_mut(&peer) {
                link.repair = true;
            }
            self.outputs.push_back(Output::Alarm(Alarm::Diverged { peer }));
        }
        Ok(())
    }

    /// Drops old tombstones that every configured tracker is known to hold or to have superseded, and what others dropped.
    fn sweep_tombstones<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if self.needs_fresh_round() {
            return Ok(());
        }
        let old = Stamp::at_ms(now.wall_ms.saturating_sub(TOMBSTONE_MS));
        let before = if self.upkeep.sweep_all { Stamp::MAX } else { old };
        let page = rows.tombstones(self.upkeep.tombstones_from, before, SWEEP_ROWS)?;
        self.upkeep.tombstones_from = match page.last() {
            Some(last) if page.len() == SWEEP_ROWS => {
                self.upkeep.sweep_ms = now.mono_ms + PING_MS;
                Stamp::from_u64(last.stamp.as_u64() + 1)
            }
            _ => {
                self.upkeep.sweep_all = false;
                Stamp::default()
            }
        };
        let is_due =
            |row: &Row| self.ledger.is_dropped(row) || (row.stamp < old && self.is_covered_everywhere(row));
        let due: Vec<Row> = page.into_iter().filter(is_due).collect();
        let mut risen = false;
        for row in &due {
            risen |= self.ledger.drop_tombstone(rows, row)?;
        }
        if risen {
            self.upkeep.sweep_all = true;
            self.tell_floors();
        }
        Ok(())
    }

    fn is_covered_everywhere(&self, row: &Row) -> bool {
        self.ledger.configured.iter().all(|&tracker| {
            let vector = match self.links.get(&tracker).filter(|link| link.is_ready()) {
                _ if tracker == self.ledger.me => Some(&self.ledger.vector),
                Some(link) => Some(&link.vector),
                None => self.known.get(&tracker),
            };
            vector.is_some_and(|vector| vector.covers(row.origin, row.seq))
        })
    }

    /// Drops blobs that no row has named for as long as tombstones are kept.
    fn sweep_blobs<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let page = rows.unnamed_blobs(self.upkeep.blobs_after, SWEEP_ROWS)?;
        self.upkeep.blobs_after = page.last().copied().filter(|_| page.len() == SWEEP_ROWS);
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

    /// A LIVE row or a cut round may leave rows beyond the vector whose tracker has lost its disk since: nobody will ever
    /// cover them. Once there is nothing left to pull, they get numbers of this tracker, and reach everybody like any
    /// other of its rows. Done while their tracker is merely away, it costs numbers and harms nothing.
    fn adopt_orphans<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let ready: Vec<TrackerNo> =
            self.links.iter().filter(|(_, link)| link.is_ready()).map(|(&peer, _)| peer).collect();
        let at_rest = !ready.is_empty()
            && self.pull.is_none()
            && self.waits.is_empty()
            && !self.votes_due
            && self.blobs.is_complete()
            && !self.needs_fresh_round()
            // A peer whose rounds come to nothing holds nobody up.
            && !ready.iter().any(|&peer| self.is_due(peer, now));
        // Nor are the rows of a connected tracker ever covered whose rounds come to nothing.
        let expected = |origin: Origin| {
            let rests = |peer: &TrackerNo| self.conduct.get(peer).is_some_and(|peer| peer.rests(now.mono_ms));
            self.links.iter().any(|(peer, link)| link.origin() == Some(origin) && !rests(peer))
        };
        let orphaned = |origin: &Origin| *origin != self.ledger.origin && !expected(*origin);
        let Some(origin) = self.ledger.ahead().into_iter().find(orphaned).filter(|_| at_rest) else {
            self.upkeep.orphaned_since = None;
            return Ok(());
        };
        let since = *self.upkeep.orphaned_since.get_or_insert(now.mono_ms);
        if now.mono_ms < since + ORPHAN_MS {
            return Ok(());
        }
        let all_here = ready.len() + 1 == self.ledger.configured.len();
        let page = rows.above(origin, self.ledger.vector.at(origin), MAX_ORPHANS_ALONE + 1)?;
        if page.is_empty() {
            return self.ledger.close_gap(rows, origin);
        }
        if page.len() > MAX_ORPHANS_ALONE && !all_here {
            return Ok(());
        }
        self.adopt(rows, page, now)
    }

    fn adopt<R: Rows>(&mut self, rows: &mut R, page: Vec<Row>, now: Now) -> Result<(), R::Error> {
        let from = self.ledger.seq();
        let mut bytes = 0;
        let mut batch = Vec::new();
        for row in page.into_iter().take(READ_ROWS) {
            bytes += row.weight();
            if bytes > MAX_WRITE_BYTES {
                break;
            }
            batch.extend(self.ledger.adopt(rows, row)?);
        }
        if !batch.is_empty() {
            self.upkeep.orphans_ms = now.mono_ms;
        }
        self.publish(from, batch, None, now);
        Ok(())
    }
}

/// The sum over all rows: a sum of random-looking 128-bit numbers tells sets apart as well as a hash of all of them.
fn root<R: Rows>(rows: &R) -> Result<[u8; 16], R::Error> {
    Ok(rows.bucket_sums()?.iter().fold(0, |root: u128, sum| root.wrapping_add(*sum)).to_le_bytes())
}
