//! A seeder's super-seeding state for one file (the idea is BEP 16's): which requester was given which piece, and which are
//! known to hold it. It decides whether a request is served, or whether the requester is to take a piece that no peer has
//! yet, so that every byte of a narrow uplink brings something new into the swarm. Pure; called by [`crate::Policy`] alone.
//!
//! The rules are number 4 of "The swarm, as modelled" in ARCHITECTURE.md; the figures stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shoal_common::{Bitfield, Layout, PieceIndex, Uid};

/// How long a piece is kept for a requester that asked for it, or to which it was named as the better one.
const PROMISE: Duration = Duration::from_secs(2);
/// When a refused piece may be asked for again.
const RETRY: Duration = Duration::from_millis(100);
/// How long one requester is put off at most; then it gets what it asks for.
const PUT_OFF: Duration = Duration::from_secs(2);
/// The least time that a requester has to announce a piece before the piece counts as not given.
const MIN_GRACE: Duration = Duration::from_secs(2);
/// Most pieces kept for one requester: as many as a fast one asks for before it learns of them.
const MAX_PROMISED: u32 = 32;
/// Users of whom it is remembered after they left how many pieces were kept for them in vain.
const MAX_REMEMBERED: usize = 1_024;
/// The same in deliveries of the usual length.
const GRACE_DELIVERIES: u32 = 3;

/// A requester of the file, however many connections it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequesterId(u32);

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

/// Who has a piece, as far as the seeder knows. A piece is in exactly one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceState {
    /// No requester has it.
    Ungiven,
    /// Kept for a requester until that time.
    Promised { to: RequesterId, until: Instant },
    /// Sent or being sent to a requester that has not announced it; it must have by then. To send it again gives no more time.
    Given { to: RequesterId, until: Instant, sent: bool },
    /// At least one requester holds it.
    Held,
}

#[derive(Debug, Clone)]
struct Piece {
    state: PieceState,
    /// Copies sent.
    copies: u32,
    /// Requesters known to hold it.
    holders: u32,
    /// The requester that got it first, until another is seen to hold it.
    first: Option<RequesterId>,
    /// Its position in `ungiven`.
    place: u32,
}

#[derive(Debug)]
struct Requester {
    user: Uid,
    holds: Bitfield,
    /// Pieces that it got first and that no other requester is known to hold.
    unseen: u32,
    /// Pieces in state `Promised` to it.
    promised: u32,
    /// Since when it has been put off without getting a piece of its own choice.
    put_off: Option<Instant>,
    /// Usual time of a delivery, from its start to its last byte.
    delivery: Duration,
}

/// The requesters of one user, and what came of the pieces that were kept for them.
#[derive(Debug, Default)]
struct Owner {
    requesters: BTreeSet<RequesterId>,
    /// Pieces that they announced.
    announced: u32,
    /// Pieces that were kept for them and that they took back, or did not announce in time.
    wasted: u32,
}

impl Owner {
    /// Whether anything is kept for it. Else one that asks and takes back without end would keep everything from all others.
    fn is_trusted(&self) -> bool {
        self.wasted <= self.announced.saturating_add(MAX_PROMISED)
    }
}

/// The state of one file, while any requester has it open.
#[derive(Debug)]
pub(super) struct SuperSeeding {
    layout: Layout,
    pieces: Vec<Piece>,
    ungiven: Vec<PieceIndex>,
    requesters: BTreeMap<RequesterId, Requester>,
    owners: BTreeMap<Uid, Owner>,
    next_requester: u32,
    /// When promises and gifts end.
    due: BTreeSet<(Instant, PieceIndex)>,
    rng: fastrand::Rng,
}

impl SuperSeeding {
    pub(super) fn new(layout: Layout, rng: fastrand::Rng) -> Self {
        let piece = |index: PieceIndex| Piece {
            state: PieceState::Ungiven,
            copies: 0,
            holders: 0,
            first: None,
            place: index.get(),
        };
        Self {
            layout: layout.clone(),
            pieces: layout.iter().map(piece).collect(),
            ungiven: layout.iter().collect(),
            requesters: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_requester: 0,
            due: BTreeSet::new(),
            rng,
        }
    }

    /// A requester of that user comes.
    pub(super) fn join(&mut self, user: Uid) -> RequesterId {
        let id = RequesterId(self.next_requester);
        self.next_requester += 1;
        let holds = Bitfield::none(&self.layout);
        let delivery = Duration::ZERO;
        self.requesters
            .insert(id, Requester { user, holds, unseen: 0, promised: 0, put_off: None, delivery });
        self.owners.entry(user).or_default().requesters.insert(id);
        id
    }

    /// A requester left. Its pieces are gone with it, unless it has the whole file: then it shares it.
    pub(super) fn leave(&mut self, id: RequesterId) {
        let Some(requester) = self.requesters.remove(&id) else { return };
        let crowded = self.owners.len() > MAX_REMEMBERED;
        if let Some(owner) = self.owners.get_mut(&requester.user) {
            owner.requesters.remove(&id);
            if owner.requesters.is_empty() && (owner.is_trusted() || crowded) {
                self.owners.remove(&requester.user);
            }
        }
        let stays = requester.holds.is_all();
        for index in self.layout.iter() {
            let piece = &mut self.pieces[index.as_usize()];
            if piece.first == Some(id) {
                piece.first = None;
            }
            if requester.holds.has(index) && !stays {
                piece.holders -= 1;
            }
            match piece.state {
                PieceState::Held if piece.holders == 0 => self.set(index, PieceState::Ungiven),
                PieceState::Promised { to, .. } | PieceState::Given { to, .. } if to == id => {
                    self.set(index, PieceState::Ungiven)
                }
                _ => {}
            }
        }
    }

    /// A requester announced a piece; whether another peer gave it that piece.
    pub(super) fn have(&mut self, id: RequesterId, index: PieceIndex) -> bool {
        let Some(requester) = self.requesters.get_mut(&id) else { return false };
        if !requester.holds.insert(index) {
            return false;
        }
        if let Some(owner) = self.owners.get_mut(&requester.user) {
            owner.announced = owner.announced.saturating_add(1);
        }
        let piece = &mut self.pieces[index.as_usize()];
        piece.holders += 1;
        let ours = piece.first == Some(id);
        if let Some(first) = piece.first.filter(|&first| first != id) {
            piece.first = None;
            if let Some(first) = self.requesters.get_mut(&first) {
                first.unseen -= 1;
            }
        }
        self.set(index, PieceState::Held);
        !ours
    }

    /// Whether another requester got a piece since this one asked for it.
    pub(super) fn is_taken(&self, id: RequesterId, index: PieceIndex) -> bool {
        match self.pieces[index.as_usize()].state {
            PieceState::Given { to, .. } => to != id,
            PieceState::Held => true,
            PieceState::Ungiven | PieceState::Promised { .. } => false,
        }
    }

    /// Whether a requester gets the piece it asks for. If so, the piece is kept for it for a while, or until
    /// [`SuperSeeding::start`] or [`SuperSeeding::withdraw`].
    pub(super) fn ask(&mut self, id: RequesterId, index: PieceIndex, now: Instant) -> Decision {
        self.expire(now);
        match self.pieces[index.as_usize()].state {
            PieceState::Given { to, .. } if to == id => {}
            PieceState::Given { to, .. } | PieceState::Promised { to, .. } if self.is_further_key(to, id) => {
                self.set(index, PieceState::Promised { to: id, until: now + PROMISE });
            }
            // Beyond that it is served, and not kept from others: else one that asks for everything kept all from them.
            PieceState::Ungiven if self.promised(id) >= MAX_PROMISED || !self.is_trusted(id) => {}
            PieceState::Ungiven => self.set(index, PieceState::Promised { to: id, until: now + PROMISE }),
            PieceState::Promised { to, .. } if to == id => {
                self.set(index, PieceState::Promised { to: id, until: now + PROMISE });
            }
            state => return self.put_off(id, state, now),
        }
        if let Some(requester) = self.requesters.get_mut(&id) {
            requester.put_off = None;
        }
        Decision::Serve
    }

    fn promised(&self, id: RequesterId) -> u32 {
        self.requesters.get(&id).map_or(0, |requester| requester.promised)
    }

    fn is_trusted(&self, id: RequesterId) -> bool {
        let owner = self.requesters.get(&id).and_then(|requester| self.owners.get(&requester.user));
        owner.is_none_or(Owner::is_trusted)
    }

    /// A piece was kept for a requester in vain.
    fn waste(&mut self, id: RequesterId) {
        if let Some(requester) = self.requesters.get(&id)
            && let Some(owner) = self.owners.get_mut(&requester.user)
        {
            owner.wasted = owner.wasted.saturating_add(1);
        }
    }

    /// Whether a requester is a further one of a user, and another user asks. What is kept for the further keys of an
    /// account is kept from its other keys alone: else all pieces could be kept for one account.
    fn is_further_key(&self, id: RequesterId, asks: RequesterId) -> bool {
        let user_of = |id| self.requesters.get(&id).map(|requester| requester.user);
        let Some(user) = user_of(id).filter(|&user| user_of(asks) != Some(user)) else { return false };
        self.owners.get(&user).is_some_and(|owner| owner.requesters.first() != Some(&id))
    }

    /// Decides on a piece that another requester has, gets or is to get. A requester that was put off for long enough gets
    /// whatever it asks for, until it is served a piece that no other has.
    fn put_off(&mut self, id: RequesterId, state: PieceState, now: Instant) -> Decision {
        let Some(requester) = self.requesters.get(&id) else { return Decision::Serve };
        let patient = requester.put_off.is_none_or(|since| now.saturating_duration_since(since) < PUT_OFF);
        let offer = !self.ungiven.is_empty();
        if !patient || (state == PieceState::Held && !offer) {
            return Decision::Serve;
        }
        let instead = (offer && requester.promised < MAX_PROMISED && self.is_trusted(id))
            .then(|| self.ungiven[self.rng.usize(..self.ungiven.len())]);
        if let Some(better) = instead {
            self.set(better, PieceState::Promised { to: id, until: now + PROMISE });
        }
        if let Some(requester) = self.requesters.get_mut(&id) {
            requester.put_off.get_or_insert(now);
        }
        Decision::NotNow { after: RETRY, instead }
    }

    /// The delivery of a piece to a requester starts.
    pub(super) fn start(&mut self, id: RequesterId, index: PieceIndex, now: Instant) {
        let trusted = self.is_trusted(id);
        let piece = &mut self.pieces[index.as_usize()];
        piece.copies = piece.copies.saturating_add(1);
        match piece.state {
            PieceState::Ungiven if !trusted => return,
            PieceState::Ungiven | PieceState::Promised { .. } => {}
            PieceState::Given { to, sent: true, .. } if to == id => return self.waste(id),
            PieceState::Given { .. } | PieceState::Held => return,
        }
        let fresh = piece.first != Some(id);
        piece.first = Some(id);
        let grace = self.requesters.get_mut(&id).map(|requester| {
            requester.unseen += u32::from(fresh);
            grace(requester.delivery)
        });
        let until = now + grace.unwrap_or(MIN_GRACE);
        self.set(index, PieceState::Given { to: id, until, sent: false });
    }

    /// The last byte of a piece went out, `took` after it started.
    pub(super) fn sent(&mut self, id: RequesterId, index: PieceIndex, took: Duration, now: Instant) {
        let Some(requester) = self.requesters.get_mut(&id) else { return };
        requester.delivery = (requester.delivery * 3 + took) / 4;
        let until = now + grace(requester.delivery);
        if matches!(self.pieces[index.as_usize()].state, PieceState::Given { to, sent: false, .. } if to == id)
        {
            self.set(index, PieceState::Given { to: id, until, sent: true });
        }
    }

    /// A request was cancelled.
    pub(super) fn withdraw(&mut self, id: RequesterId, index: PieceIndex) {
        if matches!(self.pieces[index.as_usize()].state, PieceState::Promised { to, .. } | PieceState::Given { to, .. } if to == id)
        {
            self.waste(id);
            self.set(index, PieceState::Ungiven);
        }
    }

    /// A piece whose delivery had started was not delivered.
    pub(super) fn unsent(&mut self, id: RequesterId, index: PieceIndex) {
        let copies = &mut self.pieces[index.as_usize()].copies;
        *copies = copies.saturating_sub(1);
        self.withdraw(id, index);
    }

    /// Frees pieces that were kept for, or given to, requesters that did nothing with them.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(at, index)) = self.due.first() {
            if at > now {
                return;
            }
            if let PieceState::Promised { to, .. } | PieceState::Given { to, .. } =
                self.pieces[index.as_usize()].state
            {
                self.waste(to);
            }
            self.set(index, PieceState::Ungiven);
        }
    }

    /// How many pieces a requester announced.
    pub(super) fn holds(&self, id: RequesterId) -> Option<u32> {
        self.requesters.get(&id).map(|requester| requester.holds.count())
    }

    /// Copies of the piece sent so far.
    pub(super) fn copies(&self, index: PieceIndex) -> u32 {
        self.pieces[index.as_usize()].copies
    }

    /// Half the pieces that a requester got first and that were not seen elsewhere. The smaller, the better it passes pieces on.
    pub(super) fn debt(&self, id: RequesterId) -> u32 {
        self.requesters.get(&id).map_or(0, |requester| requester.unseen / 2)
    }

    fn set(&mut self, index: PieceIndex, state: PieceState) {
        let at = index.as_usize();
        let old = std::mem::replace(&mut self.pieces[at].state, state);
        if let PieceState::Given { until, .. } | PieceState::Promised { until, .. } = old {
            self.due.remove(&(until, index));
        }
        if let PieceState::Given { until, .. } | PieceState::Promised { until, .. } = state {
            self.due.insert((until, index));
        }
        if let PieceState::Promised { to, .. } = old
            && let Some(requester) = self.requesters.get_mut(&to)
        {
            requester.promised -= 1;
        }
        if let PieceState::Promised { to, .. } = state
            && let Some(requester) = self.requesters.get_mut(&to)
        {
            requester.promised += 1;
        }
        match (old == PieceState::Ungiven, state == PieceState::Ungiven) {
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
