//! The rows that a full sync left out. They are removed here only with the agreement of other trackers. The
//! synced peer alone may remove a small part. More than that goes only if every other connected tracker that
//! can know of the rows lacks them, or if an operator allows it. Until then the link with that peer is not
//! synced, and all others continue.

use std::collections::{BTreeMap, BTreeSet};

use super::Replica;
use crate::event::{Alarm, Now};
use crate::limits::{
    BUCKETS, FULL_SYNC_WAIT_MS, HELD_RETRY_MS, MAX_HELD_RETRY_MS, MAX_REMOVALS, READ_ROWS, SMALL_PART,
};
use crate::row::{Kind, Row, TrackerNo, WriterId, key_digest};
use crate::rows::Rows;
use crate::vector::VersionVector;

/// A completed full sync, and what other trackers say about the rows that it left out.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) peer: TrackerNo,
    vector: VersionVector,
    marked: BTreeMap<u128, Marked>,
    /// The sync left out more rows than can be marked at once.
    more: bool,
    /// Live rows held here.
    total: u64,
    /// Peers still to be asked.
    to_ask: BTreeSet<TrackerNo>,
    asked: BTreeSet<TrackerNo>,
}

/// A row that the full sync left out.
#[derive(Debug)]
struct Marked {
    kind: Kind,
    key: Vec<u8>,
    number: (WriterId, u64),
    /// Removing it loses nothing: it is a tombstone, or another peer agreed.
    agreed: bool,
}

/// A removal that was not made.
#[derive(Debug, Default)]
pub(crate) struct HeldRemoval {
    pub(crate) rows: u64,
    /// When it is tried again.
    retry_ms: u64,
    tries: u32,
    asked: BTreeSet<TrackerNo>,
    /// An operator allowed it.
    allowed: bool,
}

impl Replica {
    /// Allows the next full sync with this tracker to remove all rows that it leaves out. Returns whether a
    /// removal was held.
    pub fn allow_removal(&mut self, peer: TrackerNo) -> bool {
        let Some(held) = self.held_removals.get_mut(&peer) else { return false };
        held.allowed = true;
        self.full_sync_since.remove(&peer);
        true
    }

    /// How many rows a sync with this peer would remove, while they are held.
    pub(crate) fn held_rows_of(&self, peer: TrackerNo) -> Option<u64> {
        let demanded = self.links.get(&peer).is_some_and(|link| link.is_ready() && link.needs_full_sync);
        self.held_removals.get(&peer).filter(|held| demanded && held.rows > 0).map(|held| held.rows)
    }

    /// Whether syncs with this peer are suspended because of what they would remove.
    pub(crate) fn is_held(&self, peer: TrackerNo) -> bool {
        self.held_removals.get(&peer).is_some_and(|held| !held.allowed)
    }

    /// Whether an operator allowed what a sync with this peer would remove.
    fn is_allowed(&self, peer: TrackerNo) -> bool {
        self.held_removals.get(&peer).is_some_and(|held| held.allowed)
    }

    /// A full sync is complete: marks the rows that it left out and begins to ask the other peers.
    pub(crate) fn mark<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        vector: VersionVector,
        carried: &[u128],
        now: Now,
    ) -> Result<(), R::Error> {
        let mut removal = Removal {
            peer,
            vector,
            marked: BTreeMap::new(),
            more: false,
            total: 0,
            to_ask: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        let mut marked = 0;
        for_each_row(rows, |row| {
            removal.total += u64::from(!row.tombstone);
            let digest = key_digest(row.kind, &row.key);
            // Rows written in this process were never deleted unseen: this tracker would know of the
            // deletion.
            let own = row.writer == self.state.writer;
            let left_out = carried.binary_search(&digest).is_err();
            if left_out && !own && removal.vector.covers(row.writer, row.seq) {
                marked += 1;
                if removal.marked.len() < MAX_REMOVALS {
                    let Row { kind, key, tombstone: agreed, writer, seq, .. } = row;
                    removal.marked.insert(digest, Marked { kind, key, number: (writer, seq), agreed });
                }
            }
        })?;
        removal.more = marked > removal.marked.len();
        if removal.more && !self.is_allowed(peer) {
            self.hold(peer, marked as u64, BTreeSet::new(), now);
            return Ok(());
        }
        let others = self.links.iter().filter(|(no, link)| **no != peer && link.is_ready());
        removal.to_ask = others.map(|(&no, _)| no).filter(|&no| !self.is_held(no)).collect();
        self.removal = Some(removal);
        Ok(())
    }

    /// The next peer to pull all rows from.
    pub(crate) fn next_to_ask(&self) -> Option<TrackerNo> {
        let removal = self.removal.as_ref()?;
        if removal.disputable() == 0 || self.is_allowed(removal.peer) {
            return None;
        }
        removal.to_ask.first().copied()
    }

    /// Rows from a peer that was asked. If it holds a marked row, no further peer need be asked, because no
    /// more than a small part may go. Returns whether the question is still open.
    pub(crate) fn on_asked_rows(&mut self, received: &[Row]) -> bool {
        let Some(removal) = &mut self.removal else { return false };
        let disputes = |row: &&Row| {
            let marked = removal.marked.get(&key_digest(row.kind, &row.key));
            !row.tombstone && marked.is_some_and(|it| !it.agreed && it.number == (row.writer, row.seq))
        };
        if !received.iter().any(|row| disputes(&row)) {
            return true;
        }
        removal.asked.append(&mut removal.to_ask);
        self.sync = None;
        false
    }

    /// A peer that was asked has sent everything up to `vector`, and no marked row. It agrees as far as it
    /// can know of the rows.
    pub(crate) fn agreed(&mut self, by: TrackerNo, vector: &VersionVector) {
        let Some(removal) = &mut self.removal else { return };
        removal.to_ask.remove(&by);
        removal.asked.insert(by);
        for marked in removal.marked.values_mut() {
            let (writer, seq) = marked.number;
            marked.agreed |= vector.covers(writer, seq);
        }
    }

    /// A peer cannot be asked.
    pub(crate) fn cannot_be_asked(&mut self, peer: TrackerNo) {
        if let Some(removal) = &mut self.removal {
            removal.to_ask.remove(&peer);
        }
        self.removal.take_if(|removal| removal.peer == peer);
    }

    /// Once all peers were asked, makes the removal if it is allowed, or holds it.
    pub(crate) fn decide_removal<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if self.sync.is_some() || self.next_to_ask().is_some() {
            return Ok(());
        }
        let Some(removal) = self.removal.take() else { return Ok(()) };
        let disputable = removal.disputable();
        let allowed = self.is_allowed(removal.peer);
        let small = (removal.total / SMALL_PART).max(self.bounds.small_rows);
        if !allowed && disputable > 0 && !self.state.may_remove(rows, disputable, small, now)? {
            self.hold(removal.peer, disputable, removal.asked, now);
            return Ok(());
        }
        for marked in removal.marked.values() {
            let held = rows.get(marked.kind, &marked.key)?;
            if held.is_some_and(|row| (row.writer, row.seq) == marked.number) {
                rows.remove(marked.kind, &marked.key)?;
            }
        }
        if removal.more {
            // The next full sync marks the rest.
            return Ok(());
        }
        self.held_removals.remove(&removal.peer);
        self.retrying.remove(&removal.peer);
        self.full_sync_since.remove(&removal.peer);
        self.count_sync(rows, removal.peer, &removal.vector, now)?;
        // Its GC watermark lies beyond its own vector: no sync can ever cover that.
        if self.links.get(&removal.peer).is_some_and(|link| link.needs_full_sync) {
            self.hold_removal_of(removal.peer, 0, BTreeSet::new(), now);
            self.alarm_of(removal.peer, Alarm::NoFullSync { peer: removal.peer }, now.mono_ms);
        }
        Ok(())
    }

    /// Removes nothing, suspends syncs with the peer and raises an alarm.
    fn hold(&mut self, peer: TrackerNo, rows: u64, asked: BTreeSet<TrackerNo>, now: Now) {
        self.removal = None;
        self.sync = None;
        self.hold_removal_of(peer, rows, asked, now);
        self.alarm_of(peer, Alarm::RemovalHeld { peer, rows }, now.mono_ms);
    }

    fn hold_removal_of(&mut self, peer: TrackerNo, rows: u64, asked: BTreeSet<TrackerNo>, now: Now) {
        let held = self.held_removals.entry(peer).or_default();
        let pause = (HELD_RETRY_MS << held.tries.min(20)).min(MAX_HELD_RETRY_MS);
        *held = HeldRemoval {
            rows,
            retry_ms: now.mono_ms + pause,
            tries: held.tries.saturating_add(1),
            asked,
            allowed: false,
        };
        self.full_sync_since.remove(&peer);
        self.retrying.remove(&peer);
    }

    /// Retries held removals when their time has come or a peer is connected that was not asked. Suspends
    /// peers that require a full sync and do not serve it.
    pub(crate) fn retry_held_removals(&mut self, now: Now) {
        let ready: BTreeSet<TrackerNo> = self.ready_peers().into_iter().collect();
        for (peer, held) in &mut self.held_removals {
            let unasked = held.rows > 0 && ready.iter().any(|no| no != peer && !held.asked.contains(no));
            let first = unasked && held.tries <= 3;
            if !held.allowed && (now.mono_ms >= held.retry_ms || first) && ready.contains(peer) {
                self.retrying.insert(*peer);
            }
        }
        let demanding: Vec<TrackerNo> = ready
            .iter()
            .copied()
            .filter(|no| self.links.get(no).is_some_and(|link| link.needs_full_sync))
            .collect();
        self.full_sync_since.retain(|peer, _| demanding.contains(peer) || !ready.contains(peer));
        for peer in demanding {
            if self.is_held(peer) && !self.retrying.contains(&peer) {
                continue;
            }
            let since = *self.full_sync_since.entry(peer).or_insert(now.mono_ms);
            let busy = self.removal.is_some() || self.sync.as_ref().is_some_and(|sync| sync.peer == peer);
            if !busy && now.mono_ms >= since + FULL_SYNC_WAIT_MS {
                self.retrying.remove(&peer);
                self.hold_removal_of(peer, 0, BTreeSet::new(), now);
                self.alarm_of(peer, Alarm::NoFullSync { peer }, now.mono_ms);
            }
        }
    }

    /// Whether a full sync with a peer is required and may be done now.
    pub(crate) fn is_full_sync_due(&self, peer: TrackerNo) -> bool {
        let demanded = self.links.get(&peer).is_some_and(|link| link.is_ready() && link.needs_full_sync);
        demanded && (!self.is_held(peer) || self.retrying.contains(&peer))
    }
}

impl Removal {
    /// Live rows whose removal no other peer has agreed to yet.
    fn disputable(&self) -> u64 {
        self.marked.values().filter(|marked| !marked.agreed).count() as u64
    }
}

/// Calls `look` with every row.
fn for_each_row<R: Rows>(rows: &R, mut look: impl FnMut(Row)) -> Result<(), R::Error> {
    for bucket in (0..).take(BUCKETS) {
        let mut after: Option<(Kind, Vec<u8>)> = None;
        loop {
            let start = after.as_ref().map(|(kind, key)| (*kind, key.as_slice()));
            let page = rows.bucket_rows(bucket, start, READ_ROWS)?;
            let complete = page.len() < READ_ROWS;
            after = page.last().map(|row| (row.kind, row.key.clone()));
            page.into_iter().for_each(&mut look);
            if complete {
                break;
            }
        }
    }
    Ok(())
}
