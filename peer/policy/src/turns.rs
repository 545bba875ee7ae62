//! Whose turn it is: which of all waiting requests is served next, if any is.

use std::time::{Duration, Instant};

use shoal_common::{PeerId, PieceIndex};

use crate::ledger::Decision;
use crate::{Action, Channel, ChannelId, File, FileKey, Peer, Policy};

/// Peers that the holder of a part of a file serves at a time.
pub(super) const LEECHER_SLOTS: usize = 4;
/// Channels on which something waits for the holder of a part, before newcomers are sent elsewhere: requests that wait here
/// cannot be served by those who are idle. Of 4, 8, 16 and no limit, 8 was best for 300 leechers (simulated, 2026-11-21).
pub(super) const LEECHER_QUEUE: usize = 8;
/// Whoever was given nothing for that long is next, whatever its piece.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far the writer of a channel is kept ahead, in time at the rate that it reached: enough to read the next piece
/// while one is sent, little enough that decisions are made late.
const AHEAD: Duration = Duration::from_millis(50);
/// The least and the most that a writer is kept ahead, in bytes; always one piece.
pub(super) const MIN_AHEAD: u64 = 128 * 1024;
/// See [`MIN_AHEAD`].
const MAX_AHEAD: u64 = 4 * 1024 * 1024;
/// Of a channel's waiting requests, how many are compared: more cost time, and the next ones come up soon.
const COMPARED: usize = 8;

/// What decides among waiting requests; the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    young: bool,
    copies: u32,
    debt: u32,
    turn: u64,
    arrival: u64,
}

impl Policy {
    /// Chooses among the waiting requests. Where the first in line needs a slot and none is free, nobody behind it is
    /// served either: those under way end soon, and then it is its turn.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Action> {
        if self.settled {
            return None;
        }
        let first = self.busy.iter().filter_map(|&key| self.first_of(key, now)).min();
        let picked = first.and_then(|(_, id, at)| {
            let channel = self.channels.get(&id)?;
            self.has_slot(channel.peer)
                .then(|| self.decide_again(id, at, now).or_else(|| self.start(id, at, now)))?
        });
        self.settled = picked.is_none();
        picked
    }

    /// Whether one more request of a channel could be served now, were it the first in line.
    pub(super) fn could_serve(&self, channel: &Channel) -> bool {
        let has_turn = self.files.get(&channel.key).is_some_and(|file| file.has_turn(channel.peer));
        has_turn && self.has_slot(channel.peer)
    }

    /// Whether whoever opened a channel lets others go first.
    pub(super) fn is_patient(&self, id: ChannelId, now: Instant) -> bool {
        let peer = self.channels.get(&id).and_then(|channel| self.peers.get(&channel.peer));
        peer.is_some_and(|peer| peer.is_patient(now))
    }

    fn has_slot(&self, peer: PeerId) -> bool {
        self.active_peers < self.slots || self.peers.get(&peer).is_some_and(|peer| peer.active > 0)
    }

    /// The first in line of one file, and where it stands in its channel's queue; `None` if it must wait for its turn.
    fn first_of(&self, key: FileKey, now: Instant) -> Option<(Rank, ChannelId, usize)> {
        let file = self.files.get(&key)?;
        let waits = |peer| self.peers.get(peer).is_some_and(|peer| peer.waiting > 0);
        if file.is_full() && !file.active.keys().any(waits) {
            return None;
        }
        let line = file.queued.iter().filter_map(|&id| self.best(id, file, now));
        let first = line.min()?;
        self.channels.get(&first.1).is_some_and(|channel| file.has_turn(channel.peer)).then_some(first)
    }

    /// The first in line of one channel, and where it stands in the channel's queue.
    fn best(&self, id: ChannelId, file: &File, now: Instant) -> Option<(Rank, ChannelId, usize)> {
        let channel = self.channels.get(&id)?;
        let room = channel.active.is_empty()
            || channel.active_bytes + u64::from(file.layout.piece_length()) <= channel.ahead();
        if !room {
            return None;
        }
        let peer = self.peers.get(&channel.peer)?;
        let young = peer.is_patient(now);
        let debt = if young && file.seeding { file.ledger.debt(channel.taker) } else { 0 };
        let rank = |&(arrival, piece): &(u64, PieceIndex)| {
            let copies = if young { file.ledger.copies(piece) } else { 0 };
            Rank { young, copies, debt, turn: peer.turn, arrival }
        };
        let ranks = channel.waiting.iter().take(COMPARED).map(rank);
        let (at, rank) = ranks.enumerate().min_by_key(|&(_, rank)| rank)?;
        Some((rank, id, at))
    }

    /// A piece that somebody else got while it was waited for is refused if the requester had better take another.
    fn decide_again(&mut self, id: ChannelId, at: usize, now: Instant) -> Option<Action> {
        let (channel, file) = self.channel(id)?;
        let &(_, piece) = channel.waiting.get(at)?;
        if !file.seeding || !file.ledger.is_taken(channel.taker, piece) {
            return None;
        }
        let Decision::NotNow { after, instead } = file.ledger.ask(channel.taker, piece, now) else {
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
        file.ledger.start(channel.taker, piece, now);
        let peer = channel.peer;
        self.unqueue(id, 1);
        self.turns += 1;
        let turn = self.turns;
        let peer = self.peers.get_mut(&peer)?;
        self.active_peers += usize::from(peer.active == 0);
        peer.active += 1;
        peer.turn = turn;
        peer.waiting_since = (peer.waiting > 0).then_some(now);
        peer.place_until = None;
        Some(Action::Serve { channel: id, piece })
    }
}

impl File {
    /// Whether nobody can be served beside those who are.
    fn is_full(&self) -> bool {
        !self.seeding && self.active.len() >= LEECHER_SLOTS
    }

    fn has_turn(&self, peer: PeerId) -> bool {
        !self.is_full() || self.active.contains_key(&peer)
    }

    /// Whether so many wait that others who share the file will serve sooner.
    pub(super) fn is_overrun(&self) -> bool {
        !self.seeding && self.queued.len() >= LEECHER_QUEUE
    }
}

impl Peer {
    /// Whether it lets others go first: it has not waited for long, or gets the file from somebody else meanwhile.
    fn is_patient(&self, now: Instant) -> bool {
        let hungry_since = self.waiting_since.map(|since| self.fed.map_or(since, |fed| fed.max(since)));
        hungry_since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
    }
}

impl Channel {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// How many bytes the writer is kept ahead.
    fn ahead(&self) -> u64 {
        let bytes = u128::from(self.rate) * AHEAD.as_millis() / 1_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).clamp(MIN_AHEAD, MAX_AHEAD)
    }
}
