//! The upload scheduler: which of all waiting requests is served next, if any is.

use std::time::{Duration, Instant};

use shoal_common::{PeerId, PieceIndex};

use crate::super_seeding::Decision;
use crate::{Action, Channel, ChannelId, File, FileKey, Peer, Policy};

/// Peers that the holder of a part of a file serves at a time.
pub(super) const LEECHER_SLOTS: usize = 4;
/// Channels with waiting requests at the holder of a part, beyond which new requests are sent elsewhere: idle peers cannot
/// serve what waits here. Of 4, 8, 16 and no limit, 8 was best for 300 leechers (simulated, 2026-11-21).
pub(super) const LEECHER_QUEUE: usize = 8;
/// A requester that received nothing for this long is next, whatever its piece.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far ahead a channel's writer is kept, in time at its rate: enough to read the next piece while one is sent, and
/// little enough that decisions are made late.
const AHEAD: Duration = Duration::from_millis(50);
/// The least that a writer is kept ahead, in bytes; always one piece.
pub(super) const MIN_AHEAD: u64 = 128 * 1024;
/// The most, in bytes.
const MAX_AHEAD: u64 = 4 * 1024 * 1024;
/// How many of a channel's waiting requests are compared. More cost time, and the next ones come up soon.
const COMPARED: usize = 8;

/// The order of waiting requests; the smallest is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    patient: bool,
    copies: u32,
    debt: u32,
    last_served: u64,
    arrival: u64,
}

impl Policy {
    /// Chooses among the waiting requests. If the first needs a slot and none is free, the others are not served either:
    /// a slot is free soon, and the first gets it.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Action> {
        if self.stuck {
            return None;
        }
        let first = self.busy.iter().filter_map(|&key| self.first_of(key, now)).min();
        let picked = first.and_then(|(_, id, at)| {
            let channel = self.channels.get(&id)?;
            self.has_slot(channel.peer)
                .then(|| self.decide_again(id, at, now).or_else(|| self.start(id, at, now)))?
        });
        self.stuck = picked.is_none();
        picked
    }

    /// Whether one more request of a channel could be served now if it were the first in the queue.
    pub(super) fn could_serve(&self, channel: &Channel) -> bool {
        let has_slot = self.files.get(&channel.key).is_some_and(|file| file.has_slot(channel.peer));
        has_slot && self.has_slot(channel.peer)
    }

    /// Whether a channel's peer lets others go first.
    pub(super) fn is_patient(&self, id: ChannelId, now: Instant) -> bool {
        let peer = self.channels.get(&id).and_then(|channel| self.peers.get(&channel.peer));
        peer.is_some_and(|peer| peer.is_patient(now))
    }

    fn has_slot(&self, peer: PeerId) -> bool {
        self.active_peers < self.slots || self.peers.get(&peer).is_some_and(|peer| peer.active > 0)
    }

    /// The first request of one file, and its position in its channel's queue; `None` if it must wait for a slot.
    fn first_of(&self, key: FileKey, now: Instant) -> Option<(Rank, ChannelId, usize)> {
        let file = self.files.get(&key)?;
        let waits = |peer| self.peers.get(peer).is_some_and(|peer| peer.waiting > 0);
        if file.is_full() && !file.active.keys().any(waits) {
            return None;
        }
        let waiting = file.queued.iter().filter_map(|&id| self.best(id, file, now));
        let first = waiting.min()?;
        self.channels.get(&first.1).is_some_and(|channel| file.has_slot(channel.peer)).then_some(first)
    }

    /// The first request of one channel, and its position in the channel's queue.
    fn best(&self, id: ChannelId, file: &File, now: Instant) -> Option<(Rank, ChannelId, usize)> {
        let channel = self.channels.get(&id)?;
        let room = channel.active.is_empty()
            || channel.active_bytes + u64::from(file.layout.piece_length()) <= channel.ahead();
        if !room {
            return None;
        }
        let peer = self.peers.get(&channel.peer)?;
        let patient = peer.is_patient(now);
        let debt = if patient && file.seeding { file.super_seeding.debt(channel.requester) } else { 0 };
        let rank = |&(arrival, piece): &(u64, PieceIndex)| {
            let copies = if patient { file.super_seeding.copies(piece) } else { 0 };
            Rank { patient, copies, debt, last_served: peer.last_served, arrival }
        };
        let ranks = channel.waiting.iter().take(COMPARED).map(rank);
        let (at, rank) = ranks.enumerate().min_by_key(|&(_, rank)| rank)?;
        Some((rank, id, at))
    }

    /// Refuses a request whose piece another requester got meanwhile, if a different piece is better for the swarm.
    fn decide_again(&mut self, id: ChannelId, at: usize, now: Instant) -> Option<Action> {
        let (channel, file) = self.channel(id)?;
        let &(_, piece) = channel.waiting.get(at)?;
        if !file.seeding || !file.super_seeding.is_taken(channel.requester, piece) {
            return None;
        }
        let Decision::NotNow { after, instead } = file.super_seeding.ask(channel.requester, piece, now)
        else {
            return None;
        };
        channel.waiting.remove(at);
        self.unqueue(id, 1);
        Some(Action::NotNow { channel: id, piece, after, instead })
    }

    fn start(&mut self, id: ChannelId, at: usize, now: Instant) -> Option<Action> {
        let (channel, file) = self.channel(id)?;
        let (_, piece) = channel.waiting.remove(at)?;
        channel.active.push((piece, now));
        channel.active_bytes += u64::from(file.layout.length(piece));
        *file.active.entry(channel.peer).or_default() += 1;
        file.super_seeding.start(channel.requester, piece, now);
        let peer = channel.peer;
        self.unqueue(id, 1);
        self.servings += 1;
        let last_served = self.servings;
        let peer = self.peers.get_mut(&peer)?;
        self.active_peers += usize::from(peer.active == 0);
        peer.active += 1;
        peer.last_served = last_served;
        peer.waiting_since = (peer.waiting > 0).then_some(now);
        peer.place_until = None;
        Some(Action::Serve { channel: id, piece })
    }
}

impl File {
    /// Whether no further peer can be served.
    fn is_full(&self) -> bool {
        !self.seeding && self.active.len() >= LEECHER_SLOTS
    }

    fn has_slot(&self, peer: PeerId) -> bool {
        !self.is_full() || self.active.contains_key(&peer)
    }

    /// Whether the queue is so long that other holders will serve sooner.
    pub(super) fn is_overrun(&self) -> bool {
        !self.seeding && self.queued.len() >= LEECHER_QUEUE
    }
}

impl Peer {
    /// Whether it lets others go first: it has not waited for long, or gets the file from other peers meanwhile.
    fn is_patient(&self, now: Instant) -> bool {
        let unserved_since =
            self.waiting_since.map(|since| self.served_elsewhere.map_or(since, |at| at.max(since)));
        unserved_since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
    }
}

impl Channel {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// How many bytes ahead the writer is kept.
    fn ahead(&self) -> u64 {
        let bytes = u128::from(self.rate) * AHEAD.as_millis() / 1_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).clamp(MIN_AHEAD, MAX_AHEAD)
    }
}
