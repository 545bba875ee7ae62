//! A seeder's memory of one file: to whom it gave which piece, and who is known to hold it. It decides whether a piece
//! is served to whoever asks for it, or whether that requester had better take one that nobody has yet, so that every
//! byte of a narrow uplink brings something new into the swarm. Pure; called by the [`crate::Policy`] alone.
//!
//! The rules are number 4 of "The swarm, as modelled" in ARCHITECTURE.md; the figures stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shoal_common::{Bitfield, Layout, PieceIndex};

/// For how long a piece is kept for a requester that asked for it, or to which it was named as the better one.
const PROMISE: Duration = Duration::from_secs(2);
/// When a refused piece may be asked for again.
const RETRY: Duration = Duration::from_millis(100);
/// For how long one requester is put off at most; then it gets what it asks for.
const PUT_OFF: Duration = Duration::from_secs(2);
/// The least time in which a requester must announce what it got, before the piece counts as not given.
const MIN_GRACE: Duration = Duration::from_secs(2);
/// Pieces kept for one requester to which they were named, at most: as many as a fast one asks for before it knows.
const MAX_PROMISED: u32 = 32;
/// How many times the usual delivery a requester has for that.
const GRACE_DELIVERIES: u32 = 3;

/// A requester of the file, however many connections it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TakerId(u32);

/// Whether a piece is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is.
    Serve,
    /// Not now.
    NotNow {
        /// When it may be asked for again.
        after: Duration,
        /// A piece that is kept for the requester meanwhile.
        instead: Option<PieceIndex>,
    },
}

/// Where a piece is, as far as is known here. It is in exactly one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// With nobody.
    Ungiven,
    /// Kept for a requester until that time.
    Promised { to: TakerId, until: Instant },
    /// Sent or being sent to a requester that has not announced it; it must have by then.
    Given { to: TakerId, until: Instant },
    /// With at least one requester.
    Held,
}

#[derive(Debug, Clone)]
struct Piece {
    state: State,
    /// Copies sent.
    copies: u32,
    /// Requesters known to hold it.
    holders: u32,
    /// Who got it when nobody had it, until somebody else is seen to hold it.
    first: Option<TakerId>,
    /// Its place among the ungiven.
    place: u32,
}

#[derive(Debug)]
struct Taker {
    holds: Bitfield,
    /// Pieces that it got first and that nobody else is known to hold.
    unseen: u32,
    /// Pieces in state `Promised` to it.
    promised: u32,
    /// Since when it was put off, unless it got something of its own choice since.
    put_off: Option<Instant>,
    /// Usual time from the start of a delivery to its last byte.
    delivery: Duration,
}

/// The memory of one file, while somebody has it open.
#[derive(Debug)]
pub(super) struct Ledger {
    layout: Layout,
    pieces: Vec<Piece>,
    ungiven: Vec<PieceIndex>,
    takers: BTreeMap<TakerId, Taker>,
    next_taker: u32,
    /// When a promise or a gift ends.
    due: BTreeSet<(Instant, PieceIndex)>,
    rng: fastrand::Rng,
}

impl Ledger {
    pub(super) fn new(layout: Layout, rng: fastrand::Rng) -> Self {
        let piece = |index: PieceIndex| Piece {
            state: State::Ungiven,
            copies: 0,
            holders: 0,
            first: None,
            place: index.get(),
        };
        Self {
            layout,
            pieces: layout.iter().map(piece).collect(),
            ungiven: layout.iter().collect(),
            takers: BTreeMap::new(),
            next_taker: 0,
            due: BTreeSet::new(),
            rng,
        }
    }

    pub(super) fn join(&mut self) -> TakerId {
        let id = TakerId(self.next_taker);
        self.next_taker += 1;
        let holds = Bitfield::none(&self.layout);
        self.takers
            .insert(id, Taker { holds, unseen: 0, promised: 0, put_off: None, delivery: Duration::ZERO });
        id
    }

    /// A requester left. What it held is gone with it, unless it left because it has the whole file: then it shares.
    pub(super) fn leave(&mut self, id: TakerId) {
        let Some(taker) = self.takers.remove(&id) else { return };
        let stays = taker.holds.is_all();
        for index in self.layout.iter() {
            let piece = &mut self.pieces[index.as_usize()];
            if piece.first == Some(id) {
                piece.first = None;
            }
            if taker.holds.has(index) && !stays {
                piece.holders -= 1;
            }
            match piece.state {
                State::Held if piece.holders == 0 => self.set(index, State::Ungiven),
                State::Promised { to, .. } | State::Given { to, .. } if to == id => {
                    self.set(index, State::Ungiven)
                }
                _ => {}
            }
        }
    }

    /// A requester announced a piece. Whether it got that from somebody else.
    pub(super) fn have(&mut self, id: TakerId, index: PieceIndex) -> bool {
        let Some(taker) = self.takers.get_mut(&id) else { return false };
        if !taker.holds.insert(index) {
            return false;
        }
        let piece = &mut self.pieces[index.as_usize()];
        piece.holders += 1;
        let ours = piece.first == Some(id);
        if let Some(first) = piece.first.filter(|&first| first != id) {
            piece.first = None;
            if let Some(first) = self.takers.get_mut(&first) {
                first.unseen -= 1;
            }
        }
        self.set(index, State::Held);
        !ours
    }

    /// Whether somebody else got a piece since the requester asked for it.
    pub(super) fn is_taken(&self, id: TakerId, index: PieceIndex) -> bool {
        match self.pieces[index.as_usize()].state {
            State::Given { to, .. } => to != id,
            State::Held => true,
            State::Ungiven | State::Promised { .. } => false,
        }
    }

    /// Whether a requester gets the piece it asks for. If so, the piece is kept for it for a while, or until
    /// [`Ledger::start`] or [`Ledger::withdraw`].
    pub(super) fn ask(&mut self, id: TakerId, index: PieceIndex, now: Instant) -> Decision {
        self.expire(now);
        match self.pieces[index.as_usize()].state {
            State::Given { to, .. } if to == id => {}
            State::Ungiven => self.set(index, State::Promised { to: id, until: now + PROMISE }),
            State::Promised { to, .. } if to == id => {
                self.set(index, State::Promised { to: id, until: now + PROMISE });
            }
            state => return self.put_off(id, state, now),
        }
        if let Some(taker) = self.takers.get_mut(&id) {
            taker.put_off = None;
        }
        Decision::Serve
    }

    /// Decides on a piece that somebody else has, gets or is to get. Whoever was put off for long enough gets it, and
    /// anything else, until it is served something nobody else has.
    fn put_off(&mut self, id: TakerId, state: State, now: Instant) -> Decision {
        let Some(taker) = self.takers.get(&id) else { return Decision::Serve };
        let patient = taker.put_off.is_none_or(|since| now.saturating_duration_since(since) < PUT_OFF);
        let offer = !self.ungiven.is_empty();
        if !patient || (state == State::Held && !offer) {
            return Decision::Serve;
        }
        let instead = (offer && taker.promised < MAX_PROMISED)
            .then(|| self.ungiven[self.rng.usize(..self.ungiven.len())]);
        if let Some(better) = instead {
            self.set(better, State::Promised { to: id, until: now + PROMISE });
        }
        if let Some(taker) = self.takers.get_mut(&id) {
            taker.put_off.get_or_insert(now);
        }
        Decision::NotNow { after: RETRY, instead }
    }

    /// A piece starts on its way to a requester.
    pub(super) fn start(&mut self, id: TakerId, index: PieceIndex, now: Instant) {
        let piece = &mut self.pieces[index.as_usize()];
        piece.copies = piece.copies.saturating_add(1);
        match piece.state {
            State::Ungiven | State::Promised { .. } => {}
            State::Given { to, .. } if to == id => {}
            State::Given { .. } | State::Held => return,
        }
        let fresh = piece.first != Some(id);
        piece.first = Some(id);
        let grace = self.takers.get_mut(&id).map(|taker| {
            taker.unseen += u32::from(fresh);
            grace(taker.delivery)
        });
        self.set(index, State::Given { to: id, until: now + grace.unwrap_or(MIN_GRACE) });
    }

    /// The last byte of a piece went out, `took` after it started.
    pub(super) fn sent(&mut self, id: TakerId, index: PieceIndex, took: Duration, now: Instant) {
        let Some(taker) = self.takers.get_mut(&id) else { return };
        taker.delivery = (taker.delivery * 3 + took) / 4;
        let until = now + grace(taker.delivery);
        if matches!(self.pieces[index.as_usize()].state, State::Given { to, .. } if to == id) {
            self.set(index, State::Given { to: id, until });
        }
    }

    /// A request was taken back, or its piece did not get through.
    pub(super) fn withdraw(&mut self, id: TakerId, index: PieceIndex) {
        if matches!(self.pieces[index.as_usize()].state, State::Promised { to, .. } | State::Given { to, .. } if to == id)
        {
            self.set(index, State::Ungiven);
        }
    }

    /// Frees what was kept for, or given to, requesters that did nothing with it.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(at, index)) = self.due.first() {
            if at > now {
                return;
            }
            self.set(index, State::Ungiven);
        }
    }

    /// How many pieces a requester announced.
    pub(super) fn holds(&self, id: TakerId) -> Option<u32> {
        self.takers.get(&id).map(|taker| taker.holds.count())
    }

    /// Copies of the piece sent so far.
    pub(super) fn copies(&self, index: PieceIndex) -> u32 {
        self.pieces[index.as_usize()].copies
    }

    /// Half the pieces that a requester got first and that were not seen elsewhere: the smaller, the better it passes on.
    pub(super) fn debt(&self, id: TakerId) -> u32 {
        self.takers.get(&id).map_or(0, |taker| taker.unseen / 2)
    }

    fn set(&mut self, index: PieceIndex, state: State) {
        let at = index.as_usize();
        let old = std::mem::replace(&mut self.pieces[at].state, state);
        if let State::Given { until, .. } | State::Promised { until, .. } = old {
            self.due.remove(&(until, index));
        }
        if let State::Given { until, .. } | State::Promised { until, .. } = state {
            self.due.insert((until, index));
        }
        if let State::Promised { to, .. } = old
            && let Some(taker) = self.takers.get_mut(&to)
        {
            taker.promised -= 1;
        }
        if let State::Promised { to, .. } = state
            && let Some(taker) = self.takers.get_mut(&to)
        {
            taker.promised += 1;
        }
        match (old == State::Ungiven, state == State::Ungiven) {
            (true, false) => {
                let place = self.pieces[at].place as usize;
                self.ungiven.swap_remove(place);
                if let Some(moved) = self.ungiven.get(place) {
                    self.pieces[moved.as_usize()].place = self.pieces[at].place;
                }
            }
            (false, true) => {
                self.pieces[at].place = u32::try_from(self.ungiven.len()).expect("no more than MAX_PIECES");
                self.ungiven.push(index);
            }
            _ => {}
        }
    }
}

fn grace(delivery: Duration) -> Duration {
    MIN_GRACE.max(delivery * GRACE_DELIVERIES)
}

#[cfg(test)]
mod tests;
