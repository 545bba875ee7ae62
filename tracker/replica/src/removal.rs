//! What a round of everything left out is removed here only if others agree. The round's sender alone may remove a small
//! part; beyond that every other connected tracker that can know of the rows has to be without them, or an operator allows
//! it. Until then the link with that sender rests, and all others go on.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Alarm, Now};
use crate::limits::{
    BUCKETS, FRESH_WAIT_MS, HELD_RETRY_MS, MAX_HELD_RETRY_MS, MAX_REMOVALS, READ_ROWS, SMALL_PART,
};
use crate::replica::Replica;
use crate::row::{Kind, Origin, Row, TrackerNo, key_digest};
use crate::rows::Rows;
use crate::vector::VersionVector;

/// A round of everything that is complete, and what others have to say on what it left out.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) peer: TrackerNo,
    vector: VersionVector,
    marked: BTreeMap<u128, Marked>,
    /// There are more than may be marked at once.
    more: bool,
    /// Live rows held here.
    total: u64,
    /// Who has still to be asked.
    to_ask: BTreeSet<TrackerNo>,
    asked: BTreeSet<TrackerNo>,
}

/// A row that the round left out.
#[derive(Debug)]
struct Marked {
    kind: Kind,
    key: Vec<u8>,
    number: (Origin, u64),
    /// Nothing is lost with it: a tombstone, or somebody else agreed.
    agreed: bool,
}

/// A removal that was not made.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) rows: u64,
    /// Tried again then.
    retry_ms: u64,
    tries: u32,
    asked: BTreeSet<TrackerNo>,
    /// An operator allowed it.
    allowed: bool,
}

impl Replica {
    /// Lets the next round of everything from this tracker remove whatever it leaves out. Says whether any was held back.
    pub fn allow_removal(&mut self, peer: TrackerNo) -> bool {
        let Some(held) = self.held.get_mut(&peer) else { return false };
        held.allowed = true;
        self.fresh_since.remove(&peer);
        true
    }

    /// How many rows this peer's word would remove, while they are held.
    pub(crate) fn held_rows_of(&self, peer: TrackerNo) -> Option<u64> {
        let fresh = self.links.get(&peer).is_some_and(|link| link.is_ready() && link.fresh);
        self.held.get(&peer).filter(|held| fresh && held.rows > 0).map(|held| held.rows)
    }

    /// Whether the link with this peer rests because of what it would remove.
    pub(crate) fn is_held(&self, peer: TrackerNo) -> bool {
        self.held.get(&peer).is_some_and(|held| !held.allowed)
    }

    /// Whether an operator allowed what this peer's word would remove.
    fn is_allowed(&self, peer: TrackerNo) -> bool {
        self.held.get(&peer).is_some_and(|held| held.allowed)
    }

    /// A round of everything is complete: marks what it left out, and begins to ask the others.
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
        each_row(rows, |row| {
            removal.total += u64::from(!row.tombstone);
            let digest = key_digest(row.kind, &row.key);
            // What was written in this process was never deleted unseen: this tracker would know of the deletion.
            let own = row.origin == self.ledger.origin;
            let left_out = carried.binary_search(&digest).is_err();
            if left_out && !own && removal.vector.covers(row.origin, row.seq) {
                marked += 1;
                if removal.marked.len() < MAX_REMOVALS {
                    let Row { kind, key, tombstone: agreed, origin, seq, .. } = row;
                    removal.marked.insert(digest, Marked { kind, key, number: (origin, seq), agreed });
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

    /// Whom to ask next for everything it holds.
    pub(crate) fn next_to_ask(&self) -> Option<TrackerNo> {
        let removal = self.removal.as_ref()?;
        if removal.disputable() == 0 || self.is_allowed(removal.peer) {
            return None;
        }
        removal.to_ask.first().copied()
    }

    /// Rows of somebody who was asked. One that was marked is held there: then nobody else need be asked, for no more than a small
    /// part may go. Says whether the question still stands.
    pub(crate) fn on_asked_rows(&mut self, received: &[Row]) -> bool {
        let Some(removal) = &mut self.removal else { return false };
        let disputes = |row: &&Row| {
            let marked = removal.marked.get(&key_digest(row.kind, &row.key));
            !row.tombstone && marked.is_some_and(|it| !it.agreed && it.number == (row.origin, row.seq))
        };
        if !received.iter().any(|row| disputes(&row)) {
            return true;
        }
        removal.asked.append(&mut removal.to_ask);
        self.pull = None;
        false
    }

    /// Somebody who was asked has sent everything up to `vector`, without any row that is marked. What it cannot know of, it
    /// has no opinion on.
    pub(crate) fn agreed(&mut self, by: TrackerNo, vector: &VersionVector) {
        let Some(removal) = &mut self.removal else { return };
        removal.to_ask.remove(&by);
        removal.asked.insert(by);
        for marked in removal.marked.values_mut() {
            let (origin, seq) = marked.number;
            marked.agreed |= vector.covers(origin, seq);
        }
    }

    /// Somebody cannot be asked.
    pub(crate) fn has_no_opinion(&mut self, peer: TrackerNo) {
        if let Some(removal) = &mut self.removal {
            removal.to_ask.remove(&peer);
        }
        self.removal.take_if(|removal| removal.peer == peer);
    }

    /// Makes the removal if everybody was asked and it may be made, or holds it back.
    pub(crate) fn decide_removal<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if self.pull.is_some() || self.next_to_ask().is_some() {
            return Ok(());
        }
        let Some(removal) = self.removal.take() else { return Ok(()) };
        let disputable = removal.disputable();
        let allowed = self.is_allowed(removal.peer);
        let small = (removal.total / SMALL_PART).max(self.bounds.small_rows);
        if !allowed && disputable > 0 && !self.ledger.may_remove(rows, disputable, small, now)? {
            self.hold(removal.peer, disputable, removal.asked, now);
            return Ok(());
        }
        for marked in removal.marked.values() {
            let held = rows.get(marked.kind, &marked.key)?;
            if held.is_some_and(|row| (row.origin, row.seq) == marked.number) {
                rows.remove(marked.kind, &marked.key)?;
            }
        }
        if removal.more {
            // The next round of everything marks the rest.
            return Ok(());
        }
        self.held.remove(&removal.peer);
        self.retrying.remove(&removal.peer);
        self.fresh_since.remove(&removal.peer);
        self.count_round(rows, removal.peer, &removal.vector, now)?;
        // It speaks of dropped tombstones that not even its own vector covers: nothing ever helps against that.
        if self.links.get(&removal.peer).is_some_and(|link| link.fresh) {
            self.put_aside(removal.peer, 0, BTreeSet::new(), now);
            self.alarm_of(removal.peer, Alarm::NoFreshRound { peer: removal.peer }, now.mono_ms);
        }
        Ok(())
    }

    /// Nothing is removed; the link rests, and an operator is told.
    fn hold(&mut self, peer: TrackerNo, rows: u64, asked: BTreeSet<TrackerNo>, now: Now) {
        self.removal = None;
        self.pull = None;
        self.put_aside(peer, rows, asked, now);
        self.alarm_of(peer, Alarm::RemovalHeld { peer, rows }, now.mono_ms);
    }

    fn put_aside(&mut self, peer: TrackerNo, rows: u64, asked: BTreeSet<TrackerNo>, now: Now) {
        let held = self.held.entry(peer).or_default();
        let pause = (HELD_RETRY_MS << held.tries.min(20)).min(MAX_HELD_RETRY_MS);
        *held = Held {
            rows,
            retry_ms: now.mono_ms + pause,
            tries: held.tries.saturating_add(1),
            asked,
            allowed: false,
        };
        self.fresh_since.remove(&peer);
        self.retrying.remove(&peer);
    }

    /// Lets what was held back be tried again when its time has come, or when somebody is there who was not asked; and holds
    /// back those who demand a round of everything and do not serve it.
    pub(crate) fn look_after_held(&mut self, now: Now) {
        let ready: BTreeSet<TrackerNo> =
            self.links.iter().filter(|(_, link)| link.is_ready()).map(|(&no, _)| no).collect();
        for (peer, held) in &mut self.held {
            let news = held.rows > 0 && ready.iter().any(|no| no != peer && !held.asked.contains(no));
            let first = news && held.tries <= 3;
            if !held.allowed && (now.mono_ms >= held.retry_ms || first) && ready.contains(peer) {
                self.retrying.insert(*peer);
            }
        }
        let fresh: Vec<TrackerNo> =
            ready.iter().copied().filter(|no| self.links.get(no).is_some_and(|link| link.fresh)).collect();
        self.fresh_since.retain(|peer, _| fresh.contains(peer) || !ready.contains(peer));
        for peer in fresh {
            if self.is_held(peer) && !self.retrying.contains(&peer) {
                continue;
            }
            let since = *self.fresh_since.entry(peer).or_insert(now.mono_ms);
            let busy = self.removal.is_some() || self.pull.as_ref().is_some_and(|pull| pull.peer == peer);
            if !busy && now.mono_ms >= since + FRESH_WAIT_MS {
                self.retrying.remove(&peer);
                self.put_aside(peer, 0, BTreeSet::new(), now);
                self.alarm_of(peer, Alarm::NoFreshRound { peer }, now.mono_ms);
            }
        }
    }

    /// Whether everything has to be compared with a peer, and that may be done now.
    pub(crate) fn is_fresh_due(&self, peer: TrackerNo) -> bool {
        let fresh = self.links.get(&peer).is_some_and(|link| link.is_ready() && link.fresh);
        fresh && (!self.is_held(peer) || self.retrying.contains(&peer))
    }
}

impl Removal {
    /// Live rows that nobody else has agreed to remove yet.
    fn disputable(&self) -> u64 {
        self.marked.values().filter(|marked| !marked.agreed).count() as u64
    }
}

/// Goes through all rows.
fn each_row<R: Rows>(rows: &R, mut look: impl FnMut(Row)) -> Result<(), R::Error> {
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
