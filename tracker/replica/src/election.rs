//! Who holds a name: claims, votes, and the names that a majority has settled.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Holder, Now, Write};
use crate::ledger::{Ledger, META_PENDING, parse_pending_key, pending_key};
use crate::limits::{NAMES_PER_STEP, READ_ROWS};
use crate::names::{NameSpace, chosen, name_prefix, parse_claim_key, parse_vote_key, settled_key, vote_key};
use crate::row::{Kind, Origin, Row, Stamp, TrackerNo, Uid};
use crate::rows::Rows;

/// Everything that is known about one name.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The claims, the earliest first.
    claims: BTreeMap<(Stamp, Uid), Row>,
    votes: BTreeMap<TrackerNo, Vote>,
    settled: Option<Uid>,
}

/// A tracker's vote, and under which number it is held.
#[derive(Debug, Clone, Copy)]
struct Vote {
    uid: Uid,
    number: (Origin, u64),
}

/// Says whether another tracker is known to hold a row durably.
pub(crate) type HeldElsewhere<'a> = &'a dyn Fn(Origin, u64) -> bool;

impl Tally {
    /// Reads what the store holds about a name.
    pub(crate) fn read<R: Rows>(rows: &R, space: NameSpace, name: &[u8]) -> Result<Self, R::Error> {
        let mut tally = Self { claims: BTreeMap::new(), votes: BTreeMap::new(), settled: None };
        for row in scan_all(rows, space.claim_kind(), name)? {
            if let Some((_, uid)) = parse_claim_key(&row.key) {
                tally.claims.insert((row.stamp.instant(), uid), row);
            }
        }
        for row in scan_all(rows, space.vote_kind(), name)? {
            if let (Some((_, tracker)), Some(uid)) = (parse_vote_key(&row.key), chosen(&row)) {
                tally.votes.insert(tracker, Vote { uid, number: (row.origin, row.seq) });
            }
        }
        tally.settled = rows.get(space.settled_kind(), &settled_key(name))?.as_ref().and_then(chosen);
        Ok(tally)
    }

    /// The uid that more than half of the configured trackers voted for.
    fn majority(&self, configured: &BTreeSet<TrackerNo>) -> Option<Uid> {
        self.majority_without(configured, None)
    }

    fn majority_without(&self, configured: &BTreeSet<TrackerNo>, without: Option<TrackerNo>) -> Option<Uid> {
        let mut counts: BTreeMap<Uid, usize> = BTreeMap::new();
        for (tracker, vote) in &self.votes {
            if configured.contains(tracker) && Some(*tracker) != without {
                *counts.entry(vote.uid).or_default() += 1;
            }
        }
        counts.into_iter().find(|&(_, count)| 2 * count > configured.len()).map(|(uid, _)| uid)
    }

    /// The number of this tracker's vote, if a majority rests on it and no other tracker is known to hold it: should this
    /// disk be lost, nobody would know of that majority, so that nobody may hear of it yet.
    fn risky_vote(&self, ledger: &Ledger, held: HeldElsewhere<'_>) -> Option<(Origin, u64)> {
        let (origin, seq) = self.votes.get(&ledger.me)?.number;
        let alone = ledger.configured.len() == 1;
        let needed = self.majority_without(&ledger.configured, Some(ledger.me)).is_none();
        (needed && !alone && !held(origin, seq)).then_some((origin, seq))
    }

    /// Settled, else voted for by a majority, else claimed first. Definite if no one disk's loss can change it.
    pub(crate) fn definite_holder(&self, ledger: &Ledger, held: HeldElsewhere<'_>) -> Option<Holder> {
        let mut holder = self.holder(&ledger.configured)?;
        holder.definite &= self.settled.is_some() || self.risky_vote(ledger, held).is_none();
        Some(holder)
    }

    /// Settled, else voted for by a majority, else claimed first.
    fn holder(&self, configured: &BTreeSet<TrackerNo>) -> Option<Holder> {
        let definite = self.settled.or_else(|| self.majority(configured));
        let uid = definite.or_else(|| self.claims.keys().next().map(|&(_, uid)| uid))?;
        let claim =
            self.claims.iter().find(|((_, claimant), _)| *claimant == uid).map(|(_, row)| row.clone());
        Some(Holder { uid, definite: definite.is_some(), claim })
    }

    /// The claims, the holder's first, the others by their stamps.
    pub(crate) fn into_claims(self, configured: &BTreeSet<TrackerNo>) -> Vec<Row> {
        let holder = self.holder(configured).map(|holder| holder.uid);
        let (mut first, others): (Vec<_>, Vec<_>) =
            self.claims.into_iter().partition(|((_, uid), _)| Some(*uid) == holder);
        first.extend(others);
        first.into_iter().map(|(_, row)| row).collect()
    }
}

/// Casts this tracker's vote for a name if it `may_vote` and has not, and records a majority where there is one that no one
/// disk's loss can undo. The new rows join `batch`.
pub(crate) fn examine<R: Rows>(
    ledger: &mut Ledger,
    rows: &mut R,
    (space, name): (NameSpace, &[u8]),
    (may_vote, held): (bool, HeldElsewhere<'_>),
    now: Now,
    batch: &mut Vec<Row>,
) -> Result<(), R::Error> {
    let mut tally = Tally::read(rows, space, name)?;
    let me = ledger.me;
    if tally.claims.is_empty() {
        return rows.remove_meta(&pending_key(space, name));
    }
    if may_vote
        && !tally.votes.contains_key(&me)
        && let Some(holder) = tally.holder(&ledger.configured)
    {
        let vote = choice(space.vote_kind(), vote_key(name, me), holder.uid);
        let row = ledger.write(rows, vote, now)?;
        tally.votes.insert(me, Vote { uid: holder.uid, number: (row.origin, row.seq) });
        batch.push(row);
    }
    if tally.settled.is_none()
        && let Some(uid) = tally.majority(&ledger.configured)
    {
        if let Some(number) = tally.risky_vote(ledger, held) {
            ledger.note_unsettled(rows, number, (space, name))?;
        } else {
            batch.push(ledger.write(rows, choice(space.settled_kind(), settled_key(name), uid), now)?);
        }
    }
    if tally.votes.contains_key(&me) {
        rows.remove_meta(&pending_key(space, name))
    } else {
        rows.put_meta(&pending_key(space, name), &[])
    }
}

/// Examines names that came while this tracker could not vote on them; says whether there are more.
pub(crate) fn examine_pending<R: Rows>(
    ledger: &mut Ledger,
    rows: &mut R,
    held: HeldElsewhere<'_>,
    now: Now,
    batch: &mut Vec<Row>,
) -> Result<bool, R::Error> {
    let pending = rows.scan_meta(META_PENDING, NAMES_PER_STEP)?;
    for (key, _) in &pending {
        match parse_pending_key(key) {
            Some(name) => examine(ledger, rows, name, (true, held), now, batch)?,
            None => rows.remove_meta(key)?,
        }
    }
    Ok(pending.len() == NAMES_PER_STEP)
}

fn choice(kind: Kind, key: Vec<u8>, uid: Uid) -> Write {
    Write { kind, key, value: uid.0.to_vec(), tombstone: false, blobs: Vec::new() }
}

fn scan_all<R: Rows>(rows: &R, kind: Kind, name: &[u8]) -> Result<Vec<Row>, R::Error> {
    let prefix = name_prefix(name);
    let mut found: Vec<Row> = Vec::new();
    loop {
        let page = rows.scan(kind, &prefix, found.last().map(|row| row.key.as_slice()), READ_ROWS)?;
        let complete = page.len() < READ_ROWS;
        found.extend(page);
        if complete {
            return Ok(found);
        }
    }
}
