//! The taking side of a round. One round is pulled at a time; **the vector moves only at its END**, and only once every
//! blob named by then is held.

use crate::event::{Alarm, Now, Output, Reason, Warning};
use crate::frame::{Frame, Pull};
use crate::ledger::{Trust, pending_key};
use crate::limits::{
    BUSY_RETRY_MS, FRESH_IDLE_MS, MAX_HELD_ROWS, MAX_ORIGINS, ROUND_BASE_MS, ROUND_CREDIT, ROUND_IDLE_MS,
    ROUND_MIN_RATE, ROUND_STALL_MS,
};
use crate::link::Link;
use crate::names::name_of;
use crate::replica::{Replica, Wait, Waiting};
use crate::row::{Row, TrackerNo, key_digest};
use crate::rows::Rows;
use crate::serve::encode_sums;
use crate::vector::VersionVector;

/// The round being pulled.
#[derive(Debug)]
pub(crate) struct Pulling {
    pub(crate) peer: TrackerNo,
    round: u64,
    kind: PullKind,
    /// Frames that were stored and not yet given back as credit.
    owed: u32,
    /// Until when the next rows must come.
    deadline_ms: u64,
    progress: Progress,
}

/// How much a round has brought: only rows count, each once, and blobs.
#[derive(Debug)]
struct Progress {
    started_ms: u64,
    stored_ms: u64,
    bytes: u64,
    /// The last number seen of each origin.
    seen: VersionVector,
}

impl Progress {
    /// Notes rows that came.
    fn note(&mut self, rows: &[Row]) {
        for row in rows {
            if self.seen.len() < MAX_ORIGINS && self.seen.raise(row.origin, row.seq) {
                self.bytes = self.bytes.saturating_add(row.weight() as u64);
            }
        }
    }

    /// Until when the round has to be complete, by what it has brought so far.
    fn deadline_ms(&self, kind: &PullKind) -> u64 {
        let earned = self.bytes.saturating_mul(1_000) / ROUND_MIN_RATE;
        let by_rate = self.started_ms.saturating_add(ROUND_BASE_MS).saturating_add(earned);
        let idle_ms = if matches!(kind, PullKind::Above) { ROUND_IDLE_MS } else { FRESH_IDLE_MS };
        by_rate.min(self.stored_ms.saturating_add(idle_ms))
    }
}

/// What a round is for.
#[derive(Debug)]
pub(crate) enum PullKind {
    /// What lies above the own vector.
    Above,
    /// Everything, and digests of the keys that came: what did not come and is covered was deleted there.
    Fresh(Vec<u128>),
    /// The buckets that differ.
    Repair,
    /// Everything, to see whether it holds what another one's round left out. None of it is taken.
    Ask,
}

impl Replica {
    /// Whether some connected peer has dropped tombstones that were never seen here. Until a round of everything from it
    /// is complete, no round is served and no other merged.
    pub(crate) fn needs_fresh_round(&self) -> bool {
        self.links.keys().any(|&peer| self.is_fresh_due(peer))
    }

    /// Asks for a round where one is due and none is under way.
    pub(crate) fn start_pull<R: Rows>(&mut self, rows: &R, now: Now) -> Result<(), R::Error> {
        if self.pull.is_some() || self.votes_due {
            return Ok(());
        }
        self.links.values_mut().for_each(|link| link.catch_up(&self.ledger.vector));
        let ask = self.next_to_ask();
        if self.removal.is_some() && ask.is_none() {
            return Ok(());
        }
        // They take turns, so that nobody who always has something keeps the others from being heard.
        let due = self.links.keys().copied().filter(|&peer| self.is_due(peer, now));
        let turn = |peer: &TrackerNo| self.conduct.get(peer).map_or(0, |peer| peer.pulled_ms);
        let Some(peer) = ask.or_else(|| due.min_by_key(turn)) else {
            return Ok(());
        };
        self.conduct(peer).pulled_ms = now.mono_ms + 1;
        let Some(link) = self.links.get_mut(&peer) else {
            return Ok(());
        };
        link.refused.clear();
        let (kind, sums) = if ask.is_some() {
            (PullKind::Ask, None)
        } else if link.fresh {
            (PullKind::Fresh(Vec::new()), None)
        } else if link.repair {
            (PullKind::Repair, Some(encode_sums(&rows.bucket_sums()?)))
        } else {
            (PullKind::Above, None)
        };
        let fresh = matches!(kind, PullKind::Ask | PullKind::Fresh(_));
        let warn = matches!(kind, PullKind::Fresh(_));
        self.next_round += 1;
        let round = self.next_round;
        self.tell(peer);
        self.send(peer, Frame::Pull(Pull { round, credit: ROUND_CREDIT, fresh, sums }));
        let (started_ms, stored_ms) = (now.mono_ms, now.mono_ms);
        let progress = Progress { started_ms, stored_ms, bytes: 0, seen: VersionVector::default() };
        let deadline_ms = now.mono_ms + ROUND_STALL_MS;
        self.pull = Some(Pulling { peer, round, kind, owed: 0, deadline_ms, progress });
        if warn && !self.ledger.vector.is_empty() {
            self.warn(Warning::FreshRound { peer });
        }
        Ok(())
    }

    /// Whether there is anything to pull from this peer, and it may be done now.
    pub(crate) fn is_due(&self, peer: TrackerNo, now: Now) -> bool {
        let rests = self.conduct.get(&peer).is_some_and(|peer| peer.rests(now.mono_ms));
        let retries = self.links.get(&peer).is_some_and(|link| now.mono_ms >= link.retry_ms);
        !rests && retries && self.wants_pull(peer)
    }

    /// When peers may be pulled from again that may not be now.
    pub(crate) fn retries(&self) -> impl Iterator<Item = u64> + '_ {
        let of_link = |(peer, link): (&TrackerNo, &Link)| {
            let rests = self.conduct.get(peer).map_or(0, |peer| peer.pull_after_ms);
            Some(link.retry_ms.max(rests)).filter(|&due| due > 0 && self.wants_pull(*peer))
        };
        self.links.iter().filter_map(of_link)
    }

    /// Whether there is anything to pull from this peer.
    pub(crate) fn wants_pull(&self, peer: TrackerNo) -> bool {
        let Some(link) = self.links.get(&peer).filter(|link| link.is_ready()) else {
            return false;
        };
        if (link.fresh || self.needs_fresh_round()) && !self.is_fresh_due(peer) {
            return false;
        }
        // A gap that only waits for blobs closes by itself.
        let held = link.origin().map_or(0, |origin| self.ledger.vector.at(origin));
        let explains = |wait: &Wait| match wait.what {
            Waiting::End { .. } => true,
            Waiting::Row { .. } => false,
            Waiting::Live(ref live) => live.from <= held,
        };
        if self.waits.iter().any(|wait| wait.peer == peer && explains(wait)) {
            return false;
        }
        // What a connected tracker has just written comes from itself, sooner than by a round from another.
        let speaks_for = |origin| link.origin() == Some(origin) || !self.is_connected_origin(origin);
        !link.pulled || link.fresh || link.repair || link.ahead_of(&self.ledger.vector).any(speaks_for)
    }

    /// Rows of the round.
    pub(crate) fn on_rows<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        round: u64,
        received: Vec<Row>,
        now: Now,
    ) -> Result<(), R::Error> {
        let Some(trust) = self.current_pull(peer, round).map(|pull| match pull.kind {
            PullKind::Above => Trust::Vector,
            PullKind::Fresh(_) | PullKind::Repair | PullKind::Ask => Trust::Sender,
        }) else {
            return Ok(());
        };
        // No honest tracker sends such a frame: answered with credit, it would go back and forth for ever.
        if received.is_empty() {
            self.conduct(peer).pulled_in_vain(now.mono_ms);
            self.disconnect(peer, Reason::Malformed);
            return Ok(());
        }
        if let Some(pull) = &mut self.pull {
            if let PullKind::Fresh(carried) = &mut pull.kind {
                carried.extend(received.iter().map(|row| key_digest(row.kind, &row.key)));
            }
            pull.owed += 1;
            pull.deadline_ms = now.mono_ms + ROUND_STALL_MS;
            pull.progress.note(&received);
            if pull.owed > ROUND_CREDIT + 1 {
                self.disconnect(peer, Reason::Malformed);
                return Ok(());
            }
            if matches!(pull.kind, PullKind::Ask) {
                if self.on_asked_rows(&received) {
                    self.give_credit(now);
                }
                return Ok(());
            }
        }
        for row in received {
            let trust = self.trust_in(peer, row.origin, trust);
            let lacking = self.ledger.lacks(rows, &row, trust)?;
            if !lacking.is_empty() {
                self.wait(peer, lacking.into_iter().collect(), Waiting::Row { row, trust });
            } else if !self.take_in_round(rows, peer, &row, trust, now)? {
                return Ok(());
            }
        }
        self.give_credit(now);
        Ok(())
    }

    /// Takes a row of a round. The name that it may be about is looked at after END: what is half received never counts.
    /// Says whether the link still stands.
    pub(crate) fn take_in_round<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        row: &Row,
        trust: Trust,
        now: Now,
    ) -> Result<bool, R::Error> {
        let Some(stored) = self.take(rows, peer, row, trust, now)? else {
            return Ok(false);
        };
        if stored {
            self.note_progress(peer, 0, now);
        }
        if let Some((space, name)) = name_of(row).filter(|_| stored) {
            rows.put_meta(&pending_key(space, name), &[])?;
        }
        Ok(true)
    }

    /// How many rows of rounds wait for their blobs.
    fn held_rows(&self) -> usize {
        self.waits.iter().filter(|wait| matches!(wait.what, Waiting::Row { .. })).count()
    }

    /// Gives back credit, unless too many rows wait for their blobs: these come first then.
    pub(crate) fn give_credit(&mut self, now: Now) {
        if self.held_rows() >= MAX_HELD_ROWS {
            return;
        }
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.owed > 0) else {
            return;
        };
        let (peer, round, frames) = (pull.peer, pull.round, std::mem::take(&mut pull.owed));
        pull.deadline_ms = now.mono_ms + ROUND_STALL_MS;
        self.send(peer, Frame::More { round, frames });
    }

    /// Whether the round makes no progress though its sender has every reason to.
    pub(crate) fn is_stalled(&self, now: Now) -> Option<TrackerNo> {
        let deadline_ms = self.stall_deadline()?;
        self.pull.as_ref().filter(|_| now.mono_ms >= deadline_ms).map(|pull| pull.peer)
    }

    /// Until when the round has to make progress, if it is its sender's turn.
    pub(crate) fn stall_deadline(&self) -> Option<u64> {
        let paused = self.held_rows() >= MAX_HELD_ROWS;
        self.pull.as_ref().map(|pull| {
            let deadline_ms = pull.progress.deadline_ms(&pull.kind);
            if paused {
                // Its rows wait for blobs, which have to come from somewhere.
                deadline_ms.max(pull.progress.stored_ms.saturating_add(ROUND_BASE_MS))
            } else {
                deadline_ms.min(pull.deadline_ms)
            }
        })
    }

    /// A row of the round was stored, or part of a blob came that its rows may wait for.
    pub(crate) fn note_progress(&mut self, peer: TrackerNo, bytes: u64, now: Now) {
        if let Some(pull) = self.pull.as_mut().filter(|pull| pull.peer == peer) {
            pull.progress.bytes = pull.progress.bytes.saturating_add(bytes);
            pull.progress.stored_ms = now.mono_ms;
        }
    }

    /// The round is complete. Its vector counts once all blobs are held.
    pub(crate) fn on_end(&mut self, peer: TrackerNo, round: u64) {
        if self.current_pull(peer, round).is_none() {
            return;
        }
        let vector = self.links.get(&peer).map(|link| link.vector.clone()).unwrap_or_default();
        if let Some(pull) = self.pull.take() {
            let own = self
                .waits
                .iter()
                .filter(|wait| wait.peer == peer && matches!(wait.what, Waiting::Row { .. }));
            let hashes = own.flat_map(|wait| wait.hashes.iter().copied()).collect();
            self.wait(peer, hashes, Waiting::End { vector, kind: pull.kind });
        }
    }

    /// The peer cannot serve the round now.
    pub(crate) fn on_busy(&mut self, peer: TrackerNo, round: u64, now: Now) {
        if self.current_pull(peer, round).is_none() {
            return;
        }
        let asked = self.pull.take().is_some_and(|pull| matches!(pull.kind, PullKind::Ask));
        if asked {
            self.has_no_opinion(peer);
        } else if let Some(link) = self.links.get_mut(&peer) {
            link.retry_ms = now.mono_ms + BUSY_RETRY_MS;
        }
    }

    /// A round is complete with all blobs: now it counts.
    pub(crate) fn finish_round<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        vector: &VersionVector,
        kind: PullKind,
        now: Now,
    ) -> Result<(), R::Error> {
        match kind {
            PullKind::Repair => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.repair = false;
                }
                self.repair_ended(peer, now);
                self.votes_due = self.may_vote();
                Ok(())
            }
            PullKind::Ask => {
                self.agreed(peer, vector);
                Ok(())
            }
            PullKind::Above if self.needs_fresh_round() => Ok(()),
            PullKind::Above => self.count_round(rows, peer, vector, now),
            PullKind::Fresh(mut carried) => {
                carried.sort_unstable();
                self.mark(rows, peer, vector.clone(), &carried, now)
            }
        }
    }

    /// What a round's END speaks of is held or superseded now.
    pub(crate) fn count_round<R: Rows>(
        &mut self,
        rows: &mut R,
        peer: TrackerNo,
        vector: &VersionVector,
        now: Now,
    ) -> Result<(), R::Error> {
        let mut vector = self.believed(peer, vector);
        for (origin, _) in vector.clone().iter() {
            self.admits_writer(peer, origin, now);
        }
        let refused = self.links.get(&peer).map(|link| link.refused.clone()).unwrap_or_default();
        refused.iter().for_each(|&origin| vector.forget(origin));
        if !self.ledger.has_room_for(&vector) {
            self.outputs.push_back(Output::Alarm(Alarm::TooManyOrigins));
            self.disconnect(peer, Reason::TooManyOrigins);
            return Ok(());
        }
        if refused.is_empty() {
            self.conduct(peer).pulled_well();
        } else {
            self.conduct(peer).pulled_in_vain(now.mono_ms);
        }
        self.ledger.merge(rows, &vector)?;
        self.ended.insert(peer);
        let ready: Vec<_> =
            self.links.iter().filter(|(_, link)| link.is_ready()).map(|(&peer, _)| peer).collect();
        for peer in ready {
            self.inherit_floor(rows, peer)?;
        }
        if let Some(link) = self.links.get_mut(&peer) {
            link.pulled = true;
        }
        self.close_gaps(rows)?;
        self.votes_due = self.may_vote();
        if self.votes_due {
            self.ledger.was_blank = false;
            self.ledger.seal_beginning(rows, now)?;
        }
        Ok(())
    }

    fn current_pull(&self, peer: TrackerNo, round: u64) -> Option<&Pulling> {
        self.pull.as_ref().filter(|pull| pull.peer == peer && pull.round == round)
    }
}
