//! Who holds a name: claims, votes, and the names that a majority has decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Holder, Now, Write};
use crate::limits::NAMES_PER_STEP;
use crate::names::{
    NameSpace, chosen, decision_key, name_of, name_prefix, parse_claim_key, parse_vote_key, vote_key,
};
use crate::row::{Kind, Row, Stamp, TrackerNo, Uid, WriterId};
use crate::rows::{Rows, scan_all};
use crate::state::{META_PENDING, ReplicaState, parse_pending_key, pending_key};

/// All claims and votes for one place: for a name and those that look like it.
///
/// Votes and decisions are kept under the place. Earlier versions kept them under the name. Those count as well: what was
/// decided stays decided, even if two names that look alike were decided before names had places.
#[derive(Debug)]
pub(crate) struct VoteCount {
    /// The claims, earliest first.
    claims: BTreeMap<(Stamp, Uid), Claim>,
    /// Votes and decision under each key: the place's, and the names' and other places of its claims.
    ballots: BTreeMap<Vec<u8>, Ballot>,
    place: Vec<u8>,
}

#[derive(Debug)]
struct Claim {
    row: Row,
    /// The claim's own place. It is another one if other tables than this tracker's determined it.
    place: Vec<u8>,
    /// Whether this tracker would determine the same place. It votes for no other claim: a made-up place would let a name in
    /// that looks like one that is taken.
    is_own: bool,
}

impl Claim {
    fn name(&self) -> &[u8] {
        parse_claim_key(&self.row.key).map_or(&[], |(name, _)| name)
    }
}

/// What was voted and decided under one key.
#[derive(Debug, Default)]
struct Ballot {
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

impl Ballot {
    fn read<R: Rows>(rows: &R, space: NameSpace, key: &[u8]) -> Result<Self, R::Error> {
        let mut ballot = Self::default();
        scan_all(rows, space.vote_kind(), &name_prefix(key), |row| {
            if let (Some((_, tracker)), Some(uid)) = (parse_vote_key(&row.key), chosen(&row)) {
                ballot.votes.insert(tracker, Vote { uid, number: (row.writer, row.seq) });
            }
        })?;
        ballot.decided = rows.get(space.decision_kind(), &decision_key(key))?.as_ref().and_then(chosen);
        Ok(ballot)
    }

    /// The uid that was decided, or that more than half of the configured trackers voted for.
    fn outcome(&self, configured: &BTreeSet<TrackerNo>) -> Option<Uid> {
        self.decided.or_else(|| self.majority_without(configured, None))
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
        if self.decided.is_some() {
            return None;
        }
        let (writer, seq) = self.votes.get(&state.me)?.number;
        let alone = state.configured.len() == 1;
        let needed = self.majority_without(&state.configured, Some(state.me)).is_none();
        (needed && !alone && !held(writer, seq)).then_some((writer, seq))
    }
}

impl VoteCount {
    /// Reads what the store holds about a place.
    pub(crate) fn read<R: Rows>(rows: &R, space: NameSpace, place: Vec<u8>) -> Result<Self, R::Error> {
        let mut claims = BTreeMap::new();
        let mut keys = BTreeSet::from([place.clone()]);
        for row in rows.rivals(space.claim_kind(), &place)? {
            let Some((name, uid)) = parse_claim_key(&row.key) else { continue };
            let own = rows.place_for(row.kind, name);
            let of = rows.place_of(&row).unwrap_or_else(|| own.clone());
            keys.extend([name.to_vec(), of.clone()]);
            claims.insert((row.stamp.instant(), uid), Claim { is_own: of == own, place: of, row });
        }
        let mut ballots = BTreeMap::new();
        for key in keys {
            let ballot = Ballot::read(rows, space, &key)?;
            ballots.insert(key, ballot);
        }
        Ok(Self { claims, ballots, place })
    }

    /// The claims that hold their names for good, earliest first, each with the ballot that says so. There is more than one
    /// only if an earlier version decided them.
    fn winners<'a>(
        &'a self,
        configured: &'a BTreeSet<TrackerNo>,
    ) -> impl Iterator<Item = (Uid, &'a Claim, &'a Ballot)> {
        self.claims.iter().filter_map(|(&(_, uid), claim)| {
            let keys = [&self.place[..], &claim.place, claim.name()];
            let won = |ballot: &&Ballot| ballot.outcome(configured) == Some(uid);
            let ballot = keys.into_iter().filter_map(|key| self.ballots.get(key)).find(won)?;
            Some((uid, claim, ballot))
        })
    }

    /// Who holds `name`: the claim to it that won; else the winner among those that look like it; else the first claimant.
    fn holder<'a>(
        &'a self,
        configured: &'a BTreeSet<TrackerNo>,
        name: Option<&[u8]>,
    ) -> (Option<Holder>, Option<&'a Ballot>) {
        let exact = self.winners(configured).find(|(_, claim, _)| Some(claim.name()) == name);
        let ballot = self.ballots.get(&self.place);
        let of_place = ballot.and_then(|ballot| ballot.outcome(configured));
        if exact.is_none()
            && let Some(uid) = of_place
        {
            // The claim may still be on its way.
            let claim = self.claims.iter().find(|((_, claimant), _)| *claimant == uid);
            let claim = claim.map(|(_, claim)| claim.row.clone());
            return (Some(Holder { uid, definite: true, claim }), ballot);
        }
        if let Some((uid, claim, ballot)) = exact.or_else(|| self.winners(configured).next()) {
            return (Some(Holder { uid, definite: true, claim: Some(claim.row.clone()) }), Some(ballot));
        }
        let first = self.eligible().next().or_else(|| self.claims.iter().next());
        let holder =
            first.map(|(&(_, uid), claim)| Holder { uid, definite: false, claim: Some(claim.row.clone()) });
        (holder, None)
    }

    /// The claims that this tracker may vote for.
    fn eligible(&self) -> impl Iterator<Item = (&(Stamp, Uid), &Claim)> {
        self.claims.iter().filter(|(_, claim)| claim.is_own && claim.place == self.place)
    }

    /// Whom this tracker votes for: whom it voted for by name in an earlier version, else the holder.
    fn candidate(&self, state: &ReplicaState) -> Option<Uid> {
        let voted = self.eligible().find(|((_, uid), claim)| {
            let vote = self.ballots.get(claim.name()).and_then(|ballot| ballot.votes.get(&state.me));
            vote.is_some_and(|vote| vote.uid == *uid)
        });
        if let Some(((_, uid), _)) = voted {
            return Some(*uid);
        }
        let holder = self.holder(&state.configured, None).0?;
        let may = self.eligible().any(|((_, uid), _)| *uid == holder.uid);
        may.then_some(holder.uid)
    }

    /// Who holds `name`. Definite if the loss of one disk cannot change it.
    pub(crate) fn definite_holder(
        &self,
        state: &ReplicaState,
        name: &[u8],
        held: HeldElsewhere<'_>,
    ) -> Option<Holder> {
        let (holder, ballot) = self.holder(&state.configured, Some(name));
        let mut holder = holder?;
        holder.definite &= ballot.is_some_and(|ballot| ballot.risky_vote(state, held).is_none());
        Some(holder)
    }

    /// The claims: the first is that of `name`'s holder, the others by stamp.
    pub(crate) fn into_claims(self, configured: &BTreeSet<TrackerNo>, name: &[u8]) -> Vec<Row> {
        let holder = self.holder(configured, Some(name)).0.map(|holder| holder.uid);
        let (mut first, others): (Vec<_>, Vec<_>) =
            self.claims.into_iter().partition(|((_, uid), _)| Some(*uid) == holder);
        first.extend(others);
        first.into_iter().map(|(_, claim)| claim.row).collect()
    }
}

/// The place that a row is about: see [`Rows::place_for`]. Rows of earlier versions give a name instead.
pub(crate) fn place_of<R: Rows>(rows: &R, row: &Row) -> Option<(NameSpace, Vec<u8>)> {
    let (space, name) = name_of(row)?;
    let place = if row.kind == space.claim_kind() { rows.place_of(row)? } else { name.to_vec() };
    Some((space, place))
}

/// Casts this tracker's vote for a place if it `may_vote` and has not voted. Records a majority as the
/// decision if the loss of one disk cannot undo it. The new rows are added to `batch`.
///
/// `place` may also be a name: trackers of an earlier version vote by name.
pub(crate) fn examine<R: Rows>(
    state: &mut ReplicaState,
    rows: &mut R,
    (space, place): (NameSpace, &[u8]),
    (may_vote, held): (bool, HeldElsewhere<'_>),
    now: Now,
    batch: &mut Vec<Row>,
) -> Result<(), R::Error> {
    let mut count = VoteCount::read(rows, space, place.to_vec())?;
    let by_name = rows.place_for(space.claim_kind(), place);
    if count.claims.is_empty() && by_name != place {
        rows.remove_meta(&pending_key(space, place))?;
        count = VoteCount::read(rows, space, by_name)?;
    }
    let (me, place) = (state.me, count.place.clone());
    if count.claims.is_empty() {
        return rows.remove_meta(&pending_key(space, &place));
    }
    let candidate = count.candidate(state);
    let ballot = count.ballots.entry(place.clone()).or_default();
    if may_vote
        && !ballot.votes.contains_key(&me)
        && let Some(uid) = candidate
    {
        let vote = choice(space.vote_kind(), vote_key(&place, me), uid);
        let row = state.write(rows, vote, now)?;
        ballot.votes.insert(me, Vote { uid, number: (row.writer, row.seq) });
        batch.push(row);
    }
    if ballot.decided.is_none()
        && let Some(uid) = ballot.majority_without(&state.configured, None)
    {
        if let Some(number) = ballot.risky_vote(state, held) {
            state.note_undecided(rows, number, (space, &place))?;
        } else {
            batch.push(state.write(rows, choice(space.decision_kind(), decision_key(&place), uid), now)?);
        }
    }
    // What this tracker cannot vote for is not examined until something about it changes.
    if ballot.votes.contains_key(&me) || (may_vote && candidate.is_none()) {
        rows.remove_meta(&pending_key(space, &place))
    } else {
        rows.put_meta(&pending_key(space, &place), &[])
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
