//! What is believed of a peer's words before anything else is done with them: rows and vectors that speak of this
//! tracker, of impossible times, of too many writers, or of votes that are not the peer's.

use crate::election::Tally;
use crate::event::{Alarm, Now, Output, Reason};
use crate::ledger::Trust;
use crate::limits::{CLOCK_RETRY_MS, MAX_AHEAD_MS};
use crate::names::{NameSpace, chosen, name_of, parse_vote_key};
use crate::replica::Replica;
use crate::row::{Kind, Origin, Row, TrackerNo};
use crate::rows::Rows;
use crate::vector::VersionVector;

/// What becomes of a peer's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It merges like any other.
    Merge,
    /// It takes the place of what is held: the peer speaks of itself, or a majority does.
    Replace,
    /// It is passed over for good.
    Ignore,
    /// It is not taken now. Nothing of its origin from it on counts, so that it is asked for again.
    Later,
    /// The peer lies about this tracker: the link has ended.
    False,
}

impl Replica {
    /// Judges one row of a peer.
    pub(crate) fn judge<R: Rows>(
        &mut self,
        rows: &R,
        peer: TrackerNo,
        row: &Row,
        now: Now,
    ) -> Result<Judgement, R::Error> {
        if row.origin == self.ledger.origin && row.seq > self.ledger.seq() {
            self.heard_false_word(peer, now);
            return Ok(Judgement::False);
        }
        if self.ledger.is_impossible(row) {
            let alarm = Alarm::BadTime { peer, kind: row.kind, ms: row.stamp.ms() };
            self.alarm_of(peer, alarm, now.mono_ms);
            return Ok(Judgement::Later);
        }
        if !self.admit_origin(peer, row.origin, now) {
            return Ok(Judgement::Later);
        }
        match row.kind {
            Kind::USER_VOTE | Kind::GROUP_VOTE => self.judge_vote(rows, peer, row),
            Kind::USER_SETTLED | Kind::GROUP_SETTLED => self.judge_settled(rows, row),
            _ => Ok(Judgement::Merge),
        }
    }

    /// A tracker's vote is its own: what contradicts the one held is believed of that tracker only. This one knows its own.
    fn judge_vote<R: Rows>(&mut self, rows: &R, peer: TrackerNo, row: &Row) -> Result<Judgement, R::Error> {
        let held = rows.get(row.kind, &row.key)?;
        // Who heard all others out knows every vote that it ever cast.
        let mine = parse_vote_key(&row.key).is_some_and(|(_, voter)| voter == self.ledger.me);
        let contradicted = held.map_or(mine && self.may_vote(), |held| held.value != row.value);
        let Some((_, voter)) = parse_vote_key(&row.key).filter(|_| contradicted) else {
            return Ok(Judgement::Merge);
        };
        self.outputs.push_back(Output::Alarm(Alarm::Conflict { kind: row.kind, key: row.key.clone() }));
        Ok(if voter == peer {
            Judgement::Replace
        } else if self.ledger.configured.contains(&voter) {
            Judgement::Ignore
        } else {
            Judgement::Merge
        })
    }

    /// Of two claims that are said to be settled, the one with a majority of the votes held here stays.
    fn judge_settled<R: Rows>(&mut self, rows: &R, row: &Row) -> Result<Judgement, R::Error> {
        let held = rows.get(row.kind, &row.key)?.as_ref().and_then(chosen);
        let (Some(held), Some((space, name))) = (held, name_of(row)) else { return Ok(Judgement::Merge) };
        if Some(held) == chosen(row) {
            return Ok(Judgement::Merge);
        }
        self.outputs.push_back(Output::Alarm(Alarm::Conflict { kind: row.kind, key: row.key.clone() }));
        let majority = majority(self, rows, space, name)?;
        Ok(if majority == Some(held) {
            Judgement::Ignore
        } else if majority.is_some() && majority == chosen(row) {
            Judgement::Replace
        } else {
            Judgement::Merge
        })
    }

    /// Whether rows of this origin may be taken from a peer: known ones always, and a few new ones.
    fn admit_origin(&mut self, peer: TrackerNo, origin: Origin, now: Now) -> bool {
        if self.ledger.knows(origin) {
            return true;
        }
        let (bounds, blank) = (self.ledger.bounds, self.ledger.was_blank);
        if self.conduct(peer).may_bring_origin(&bounds, blank, now.mono_ms) {
            self.ledger.admit(origin);
            return true;
        }
        self.alarm_of(peer, Alarm::ManyOrigins { peer }, now.mono_ms);
        false
    }

    /// What of a peer's vector counts: nothing about this tracker's own rows, of which it knows more itself, no more of
    /// another connected tracker's than that one said, and not too many origins that are new. Says also whether that is all.
    pub(crate) fn sanitised(
        &mut self,
        peer: TrackerNo,
        vector: &VersionVector,
        now: Now,
    ) -> (VersionVector, bool) {
        let (mut counts, mut complete) = (VersionVector::default(), true);
        for (origin, seq) in vector.iter() {
            if origin == self.ledger.origin {
                continue;
            }
            if !self.admit_origin(peer, origin, now) {
                complete = false;
                continue;
            }
            let writer = self.links.iter().find(|(no, link)| **no != peer && link.origin() == Some(origin));
            let said = writer.map(|(_, link)| link.vector.at(origin).max(self.ledger.vector.at(origin)));
            counts.raise(origin, said.map_or(seq, |said| seq.min(said)));
        }
        (counts, complete)
    }

    /// Whether a peer claims to hold more of this tracker's rows than there are. Ends the link if so.
    pub(crate) fn is_false_word(&mut self, peer: TrackerNo, origin: Origin, seq: u64, now: Now) -> bool {
        let is_false = origin == self.ledger.origin && seq > self.ledger.seq();
        if is_false {
            self.heard_false_word(peer, now);
        }
        is_false
    }

    /// The peer says what is not true of this tracker's rows, or passes it on. The numbers that it speaks of must never be
    /// used, so this tracker takes another origin, and all links begin anew with that.
    fn heard_false_word(&mut self, peer: TrackerNo, now: Now) {
        self.alarm_of(peer, Alarm::FalseWord { peer }, now.mono_ms);
        self.offended(peer, Reason::FalseWord, now.mono_ms);
        self.ledger.renumber(now);
        let others: Vec<TrackerNo> = self.links.keys().copied().collect();
        others.into_iter().for_each(|other| self.disconnect(other, Reason::Renumbering));
    }

    /// Whether a peer's clock lets it take part: rows of one that is hours ahead would be refused one by one.
    pub(crate) fn is_clock_right(&mut self, peer: TrackerNo, wall_ms: u64, now: Now) -> bool {
        if wall_ms.abs_diff(now.wall_ms) <= MAX_AHEAD_MS {
            return true;
        }
        let ahead = i128::from(wall_ms) - i128::from(now.wall_ms);
        let ahead_ms = i64::try_from(ahead).unwrap_or(i64::MAX);
        self.alarm_of(peer, Alarm::ClockWrong { peer, ahead_ms }, now.mono_ms);
        self.shun(peer, Reason::ClockWrong, CLOCK_RETRY_MS, now.mono_ms);
        false
    }

    /// Takes a row that replaces what is held, whatever their stamps.
    pub(crate) fn replace<R: Rows>(
        &mut self,
        rows: &mut R,
        row: &Row,
        trust: Trust,
    ) -> Result<bool, R::Error> {
        let differs = rows.get(row.kind, &row.key)?.as_ref() != Some(row);
        if differs {
            self.ledger.store(rows, row, trust)?;
        }
        Ok(differs)
    }
}

fn majority<R: Rows>(
    replica: &Replica,
    rows: &R,
    space: NameSpace,
    name: &[u8],
) -> Result<Option<crate::row::Uid>, R::Error> {
    Ok(Tally::read(rows, space, name)?.majority(&replica.ledger.configured))
}
