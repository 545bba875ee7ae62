//! The upload scheduler: which of all waiting requests is served next, if any is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shoal_common::{PeerId, PieceIndex, Uid};

use crate::super_seeding::Decision;
use crate::users::most_of;
use crate::{Action, Channel, ChannelId, File, FileKey, Policy};

/// Peers that the holder of a part of a file serves at a time.
pub(super) const LEECHER_SLOTS: usize = 4;
/// Channels with waiting requests at the holder of a part, beyond which new requests are sent elsewhere: idle peers cannot
/// serve what waits here. Of 4, 8, 16 and no limit, 8 was best for 300 leechers (simulated, 2026-11-21).
pub(super) const LEECHER_QUEUE: usize = 8;
/// How far ahead a channel's writer is kept, in time at its rate: enough to read the next piece while one is sent, and
/// little enough that decisions are made late.
const AHEAD: Duration = Duration::from_millis(50);
/// The least that a writer is kept ahead, in bytes; always one piece.
pub(super) const MIN_AHEAD: u64 = 128 * 1024;
/// The most, in bytes.
const MAX_AHEAD: u64 = 4 * 1024 * 1024;
/// How many of a channel's waiting requests are compared. More cost time, and the next ones come up soon.
const COMPARED: usize = 8;

/// The order of waiting requests, first of one user's, then of all users'; the smallest is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    patient: bool,
    /// Whether it is a request of a user with several peers, and another user is served first. Many peers together always
    /// have a request for a rare piece.
    after_others: bool,
    copies: u32,
    debt: u32,
    last_served: u64,
    arrival: u64,
}

/// A user's first request for one file, and its position in its channel's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct First {
    rank: Rank,
    channel: ChannelId,
    at: usize,
}

impl Policy {
    /// Chooses among the waiting requests. If the first needs a slot and none is free, the others are not served either:
    /// a slot is free soon, and the first gets it.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Action> {
        if self.stuck {
            return None;
        }
        let first = self.first(now);
        let picked = first.and_then(|First { channel: id, at, .. }| {
            let channel = self.channels.get(&id)?;
            self.has_slot(channel.peer)
                .then(|| self.decide_again(id, at, now).or_else(|| self.start(id, at, now)))?
        });
        self.stuck = picked.is_none();
        picked
    }

    /// The first of all waiting requests. The same holds within a user's share of the slots: if its first request must wait
    /// for one of its own peers, so must its others, and other users are served.
    fn first(&self, now: Instant) -> Option<First> {
        let wanting = self.wanting();
        let mut by_user: BTreeMap<Uid, Vec<(FileKey, First)>> = BTreeMap::new();
        for &key in &self.busy {
            self.first_of(key, now, &mut by_user);
        }
        by_user.retain(|_, firsts| {
            let first = firsts.iter().map(|(_, first)| first).min();
            let channel = first.and_then(|first| self.channels.get(&first.channel));
            channel.is_some_and(|channel| self.has_share(channel.peer, &wanting))
        });
        let last_served = |user: &Uid| self.users.get(user).map(|user| user.last_served);
        let longest_ago = by_user.keys().filter_map(last_served).min().unwrap_or(0);
        let mut by_file: BTreeMap<FileKey, (Rank, First)> = BTreeMap::new();
        for (user, firsts) in by_user {
            for (key, first) in firsts {
                let Some(ranked) = self.rank_of_user(user, (key, first), longest_ago, now) else { continue };
                let best = by_file.entry(key).or_insert(ranked);
                *best = ranked.min(*best);
            }
        }
        let served = by_file.into_iter().filter(|(key, (_, first))| self.has_place(*key, first.channel));
        served.map(|(_, ranked)| ranked).min().map(|(_, first)| first)
    }

    /// The rank of a user's first request for a file among those of all users, of whom one was last served `longest_ago`.
    fn rank_of_user(
        &self,
        id: Uid,
        (key, first): (FileKey, First),
        longest_ago: u64,
        now: Instant,
    ) -> Option<(Rank, First)> {
        let (user, file) = (self.users.get(&id)?, self.files.get(&key)?);
        let patient = first.rank.patient || user.was_served(now);
        let mut rank = Rank { patient, last_served: user.last_served, ..first.rank };
        if user.peers > 1 && patient {
            let &(_, piece) = self.channels.get(&first.channel)?.waiting.get(first.at)?;
            rank.after_others = user.last_served > longest_ago;
            rank.copies = file.super_seeding.copies(piece);
            rank.debt = if file.seeding { self.debt_of(id, file) } else { 0 };
        }
        Some((rank, first))
    }

    /// Whether a file's first request has one of the file's slots.
    fn has_place(&self, key: FileKey, id: ChannelId) -> bool {
        let (file, channel) = (self.files.get(&key), self.channels.get(&id));
        file.zip(channel).is_some_and(|(file, channel)| self.has_file_slot(file, channel.peer))
    }

    fn has_file_slot(&self, file: &File, peer: PeerId) -> bool {
        if file.seeding || file.active.contains_key(&peer) {
            return true;
        }
        let user_of = |peer: &PeerId| self.peers.get(peer).map(|peer| peer.user);
        let of_user = file.active.keys().filter(|&active| user_of(active) == user_of(&peer)).count();
        file.active.len() < LEECHER_SLOTS && of_user < most_of(LEECHER_SLOTS)
    }

    /// Whether one more request of a channel could be served now if it were the first in the queue.
    pub(super) fn could_serve(&self, channel: &Channel) -> bool {
        let has_slot =
            self.files.get(&channel.key).is_some_and(|file| self.has_file_slot(file, channel.peer));
        has_slot && self.has_slot(channel.peer) && self.has_share(channel.peer, &self.wanting())
    }

    /// Whether a channel's peer lets others go first.
    pub(super) fn is_patient(&self, id: ChannelId, now: Instant) -> bool {
        let peer = self.channels.get(&id).and_then(|channel| self.peers.get(&channel.peer));
        peer.is_some_and(|peer| peer.is_patient(now))
    }

    fn has_slot(&self, peer: PeerId) -> bool {
        self.active_peers < self.slots || self.peers.get(&peer).is_some_and(|peer| peer.active > 0)
    }

    /// Adds each user's first request for one file.
    fn first_of(&self, key: FileKey, now: Instant, by_user: &mut BTreeMap<Uid, Vec<(FileKey, First)>>) {
        let Some(file) = self.files.get(&key) else { return };
        let waits = |peer| self.peers.get(peer).is_some_and(|peer| peer.waiting > 0);
        if file.is_full() && !file.active.keys().any(waits) {
            return;
        }
        for &id in &file.queued {
            let Some((user, first)) = self.best(id, file, now) else { continue };
            let firsts = by_user.entry(user).or_default();
            match firsts.last_mut().filter(|(other, _)| *other == key) {
                Some((_, best)) => *best = first.min(*best),
                None => firsts.push((key, first)),
            }
        }
    }

    /// The first request of one channel, and its position in the channel's queue.
    fn best(&self, id: ChannelId, file: &File, now: Instant) -> Option<(Uid, First)> {
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
            Rank { patient, after_others: false, copies, debt, last_served: peer.last_served, arrival }
        };
        let ranks = channel.waiting.iter().take(COMPARED).map(rank);
        let (at, rank) = ranks.enumerate().min_by_key(|&(_, rank)| rank)?;
        Some((peer.user, First { rank, channel: id, at }))
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
        self.change(peer, |peer| {
            peer.active += 1;
            peer.last_served = last_served;
            peer.waiting_since = (peer.waiting > 0).then_some(now);
            peer.place_until = None;
        });
        let user = self.peers.get(&peer).map(|peer| peer.user)?;
        if let Some(user) = self.users.get_mut(&user) {
            user.last_served = last_served;
            user.served_at = Some(now);
        }
        Some(Action::Serve { channel: id, piece })
    }
}

impl File {
    /// Whether no further peer can be served.
    fn is_full(&self) -> bool {
        !self.seeding && self.active.len() >= LEECHER_SLOTS
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
