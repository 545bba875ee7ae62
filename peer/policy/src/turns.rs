//! Whose turn it is: which of all waiting requests is served next, if any is.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use shoal_common::PieceIndex;

use crate::{Action, Channel, ChannelId, FileKey, Policy};

/// Peers that the holder of a part of a file serves at a time.
pub(super) const LEECHER_SLOTS: usize = 4;
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
        let mut line: Vec<(Rank, ChannelId, usize)> =
            self.queued.iter().filter_map(|&id| self.best(id, self.channels.get(&id)?, now)).collect();
        line.sort_unstable();
        let mut full: HashSet<FileKey> = HashSet::new();
        for (_, id, at) in line {
            let Some(channel) = self.channels.get(&id) else { continue };
            let Some(file) = self.files.get(&channel.key) else { continue };
            if full.contains(&channel.key) {
                continue;
            }
            let active = self.peers.get(&channel.peer).is_some_and(|peer| peer.active > 0);
            if !active && self.active_peers >= self.slots {
                return None;
            }
            if !file.seeding && !file.active.contains_key(&channel.peer) && file.active.len() >= LEECHER_SLOTS
            {
                full.insert(channel.key);
                continue;
            }
            return self.start(id, at, now);
        }
        None
    }

    /// The first in line of one channel, and where it stands in the channel's queue.
    fn best(&self, id: ChannelId, channel: &Channel, now: Instant) -> Option<(Rank, ChannelId, usize)> {
        let file = self.files.get(&channel.key)?;
        let peer = self.peers.get(&channel.peer)?;
        let young = peer.waiting_since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE);
        let rank = |&(arrival, piece): &(u64, PieceIndex)| {
            let weighed = young && file.seeding;
            let copies = if weighed { file.ledger.copies(piece) } else { 0 };
            let debt = if weighed { file.ledger.debt(channel.taker) } else { 0 };
            Rank { young, copies, debt, turn: peer.turn, arrival }
        };
        let room = channel.active.is_empty()
            || channel.active_bytes + u64::from(file.layout.piece_length()) <= channel.ahead();
        if !room {
            return None;
        }
        let (at, rank) =
            channel.waiting.iter().take(COMPARED).map(rank).enumerate().min_by_key(|&(_, rank)| rank)?;
        Some((rank, id, at))
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

impl Channel {
    /// How many bytes the writer is kept ahead.
    fn ahead(&self) -> u64 {
        let bytes = u128::from(self.rate) * AHEAD.as_millis() / 1_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).clamp(MIN_AHEAD, MAX_AHEAD)
    }
}
