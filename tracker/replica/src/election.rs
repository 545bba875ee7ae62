//! Who holds a name: claims, votes, and the names that a majority has decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Holder, Now, Write};
use crate::limits::NAMES_PER_STEP;
use crate::names::{NameSpace, chosen, decision_key, name_prefix, parse_claim_key, parse_vote_key, vote_key};
use crate::row::{Kind, Row, Stamp, TrackerNo, Uid, WriterId};
use crate::rows::{Rows, scan_all};
use crate::state::{META_PENDING, ReplicaState, parse_pending_key, pending_key};

/// All claims and votes for one name.
#[derive(Debug)]
pub(crate) struct VoteCount {
    /// The claims, earliest first.
    claims: BTreeMap<(Stamp, Uid), Row>,
    votes: BTreeMap<TrackerNo, Vote>,
    decided: Option<Uid>,
}

/// A tracker's vote, and the number under which it is held.
#[derive(Debug, Clone, Copy)]
struct Vote {
    uid: Uid,
    number: (WriterId, u64),
}

/// Whether another tracker is known to hold a row durably.
pub(crate) type HeldElsewhere<'a> = &'a dyn Fn(WriterId, u64) -> bool;

impl VoteCount {
    /// Reads what the store holds about a name.
    pub(crate) fn read<R: Rows>(rows: &R, space: NameSpace, name: &[u8]) -> Result<Self, R::Error> {
        let mut count = Self { claims: BTreeMap::new(), votes: BTreeMap::new(), decided: None };
        let prefix = name_prefix(name);
        scan_all(rows, space.claim_kind(), &prefix, |row| {
            if let Some((_, uid)) = parse_claim_key(&row.key) {
                count.claims.insert((row.stamp.instant(), uid), row);
            }
        })?;
        scan_all(rows, space.vote_kind(), &prefix, |row| {
            if let (Some((_, tracker)), Some(uid)) = (parse_vote_key(&row.key), chosen(&row)) {
                count.votes.insert(tracker, Vote { uid, number: (row.writer, row.seq) });
            }
        })?;
        count.decided = rows.get(space.decision_kind(), &decision_key(name))?.as_ref().and_then(chosen);
        Ok(count)
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

    /// The number of this tracker's vote, if a majority rests on it and no other tracker is known to hold it.
    /// If this disk were lost, no tracker would know of that majority, so it must not be reported yet.
    fn risky_vote(&self, state: &ReplicaState, held: HeldElsewhere<'_>) -> Option<(WriterId, u64)> {
        let (writer, seq) = self.votes.get(&state.me)?.number;
        let alone = state.configured.len() == 1;
        let needed = self.majority_without(&state.configured, Some(state.me)).is_none();
        (needed && !alone && !held(writer, seq)).then_some((writer, seq))
    }

    /// The decided holder, else the one that a majority voted for, else the first claimant. Definite if the
    /// loss of one disk cannot change it.
    pub(crate) fn definite_holder(&self, state: &ReplicaState, held: HeldElsewhere<'_>) -> Option<Holder> {
        let mut holder = self.holder(&state.configured)?;
        holder.definite &= self.decided.is_some() || self.risky_vote(state, held).is_none();
        Some(holder)
    }

    /// The decided holder, else the one that a majority voted for, else the first claimant.
    fn holder(&self, configured: &BTreeSet<TrackerNo>) -> Option<Holder> {
        let definite = self.decided.or_else(|| self.majority(configured));
        let uid = definite.or_else(|| self.claims.keys().next().map(|&(_, uid)| uid))?;
        let claim =
            self.claims.iter().find(|((_, claimant), _)| *claimant == uid).map(|(_, row)| row.clone());
        Some(Holder { uid, definite: definite.is_some(), claim })
    }

    /// The claims: the holder's first, the others by stamp.
    pub(crate) fn into_claims(self, configured: &BTreeSet<TrackerNo>) -> Vec<Row> {
        let holder = self.holder(configured).map(|holder| holder.uid);
        let (mut first, others): (Vec<_>, Vec<_>) =
            self.claims.into_iter().partition(|((_, uid), _)| Some(*uid) == holder);
        first.extend(others);
        first.into_iter().map(|(_, row)| row).collect()
    }
}

/// Casts this tracker's vote for a name if it `may_vote` and has not voted. Records a majority as the
/// decision if the loss of one disk cannot undo it. The new rows are added to `batch`.
pub(crate) fn examine<R: Rows>(
    state: &mut ReplicaState,
    rows: &mut R,
    (space, name): (NameSpace, &[u8]),
    (may_vote, held): (bool, HeldElsewhere<'_>),
    now: Now,
    batch: &mut Vec<Row>,
) -> Result<(), R::Error> {
    let mut count = VoteCount::read(rows, space, name)?;
    let me = state.me;
    if count.claims.is_empty() {
        return rows.remove_meta(&pending_key(space, name));
    }
    if may_vote
        && !count.votes.contains_key(&me)
        && let Some(holder) = count.holder(&state.configured)
    {
        let vote = choice(space.vote_kind(), vote_key(name, me), holder.uid);
        let row = state.write(rows, vote, now)?;
        count.votes.insert(me, Vote { uid: holder.uid, number: (row.writer, row.seq) });
        batch.push(row);
    }
    if count.decided.is_none()
        && let Some(uid) = count.majority(&state.configured)
    {
        if let Some(number) = count.risky_vote(state, held) {
            state.note_undecided(rows, number, (space, name))?;
        } else {
            batch.push(state.write(rows, choice(space.decision_kind(), decision_key(name), uid), now)?);
        }
    }
    if count.votes.contains_key(&me) {
        rows.remove_meta(&pending_key(space, name))
    } else {
        rows.put_meta(&pending_key(space, name), &[])
    }
}

/// Examines names that arrived while this tracker could not vote on them. Returns whether there are more.
pub(crate) fn examine_pending<R: Rows>(
    state: &mut ReplicaState,
    rows: &mut R,
    held: HeldElsewhere<'_>,
    now: Now,
    batch: &mut Vec<Row>,
) -> Result<bool, R::Error> {
    let pending = rows.scan_meta(META_PENDING, NAMES_PER_STEP)?;
    for (key, _) in &pending {
        match parse_pending_key(key) {
            Some(name) => examine(state, rows, name, (true, held), now, batch)?,
            None => rows.remove_meta(key)?,
        }
    }
    Ok(pending.len() == NAMES_PER_STEP)
}

fn choice(kind: Kind, key: Vec<u8>, uid: Uid) -> Write {
    Write { kind, key, value: uid.0.to_vec(), tombstone: false, blobs: Vec::new() }
}
