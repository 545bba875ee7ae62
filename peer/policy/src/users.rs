//! Requesters by user: what the keys of one account may take together while other users want something too.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shoal_common::{PeerId, Uid};

use crate::{Action, ChannelId, File, Peer, Policy};

/// A requester that received nothing for this long is next, whatever its piece.
const PATIENCE: Duration = Duration::from_secs(1);
/// A piece of a user with more than its share goes out within this time while others wait, or is taken back.
const LONGEST_SERVING: Duration = Duration::from_secs(10);

/// A user, all peers together.
#[derive(Debug)]
pub(super) struct User {
    /// Its peers that have something open.
    pub(super) peers: usize,
    /// Those with requests, waiting or under way.
    pub(super) wanting: usize,
    /// Those with pieces under way.
    pub(super) active: usize,
    /// The number of its last serving, counted over all users.
    pub(super) last_served: u64,
    /// When that was.
    pub(super) served_at: Option<Instant>,
}

impl User {
    /// Whether it lets others go first, if the peer of it that is next would not: another of its peers was served.
    pub(super) fn was_served(&self, now: Instant) -> bool {
        self.served_at.is_some_and(|at| now.saturating_duration_since(at) < PATIENCE)
    }
}

/// The fewest peers with which any user wants something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanting {
    least: (usize, Option<Uid>),
    second: usize,
}

impl Wanting {
    /// With how many peers at a time a user is served: with no more than any other user that wants something.
    pub(super) fn share(&self, user: Uid) -> usize {
        let (least, whose) = self.least;
        if whose == Some(user) { self.second } else { least }
    }
}

/// How many of so many slots one user may have: some are left for others, who may come while none is given back.
pub(super) fn most_of(slots: usize) -> usize {
    match slots {
        0 | 1 => 1,
        slots => slots - (slots / 4).max(1),
    }
}

impl Policy {
    pub(super) fn wanting(&self) -> Wanting {
        let mut wanting = Wanting { least: (usize::MAX, None), second: usize::MAX };
        for (&id, user) in self.users.iter().filter(|(_, user)| user.wanting > 0) {
            if user.wanting < wanting.least.0 {
                wanting.second = wanting.least.0;
                wanting.least = (user.wanting, Some(id));
            } else {
                wanting.second = wanting.second.min(user.wanting);
            }
        }
        wanting
    }

    /// Whether the peer's user may be served with this peer too.
    pub(super) fn has_share(&self, peer: PeerId, wanting: &Wanting) -> bool {
        let Some(peer) = self.peers.get(&peer) else { return false };
        let Some(user) = self.users.get(&peer.user) else { return false };
        let share = wanting.share(peer.user);
        match peer.active {
            0 => user.active < share.min(most_of(self.slots)),
            // When others come, a user's further peers end what is under way.
            _ => user.active <= share,
        }
    }

    pub(super) fn user_of(&self, peer: PeerId) -> Option<&User> {
        self.users.get(&self.peers.get(&peer)?.user)
    }

    /// Takes back pieces that go out slowly to users with more than their share of the slots: a requester that reads next to
    /// nothing would keep its slot for as long as its piece is long.
    pub(super) fn stop_slow(&mut self, now: Instant) {
        let wanting = self.wanting();
        for (&id, channel) in &mut self.channels {
            let Some(user) = self.peers.get(&channel.peer).map(|peer| peer.user) else { continue };
            if self.users.get(&user).is_none_or(|own| own.active <= wanting.share(user)) {
                continue;
            }
            for (piece, since) in &mut channel.active {
                if now.saturating_duration_since(*since) >= LONGEST_SERVING {
                    // If it is not taken back by then, that is said again.
                    *since = now;
                    self.ready.push_back(Action::Stop { channel: id, piece: *piece });
                }
            }
        }
    }

    /// Changes what a peer waits for or is sent, and counts it.
    pub(super) fn change(&mut self, id: PeerId, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (wanted, was_active) = (peer.wants(), peer.active > 0);
        change(peer);
        let (wants, is_active) = (peer.wants(), peer.active > 0);
        let count = |number: &mut usize, before: bool, after: bool| {
            *number = *number + usize::from(after) - usize::from(before);
        };
        count(&mut self.active_peers, was_active, is_active);
        if let Some(user) = self.users.get_mut(&peer.user) {
            count(&mut user.wanting, wanted, wants);
            count(&mut user.active, was_active, is_active);
        }
    }

    /// A user has one peer less.
    pub(super) fn peer_left(&mut self, id: Uid) {
        if let Some(user) = self.users.get_mut(&id) {
            user.peers -= 1;
            if user.peers == 0 {
                self.users.remove(&id);
            }
        }
    }

    /// Half the pieces that a user's peers got first and that were not seen elsewhere.
    pub(super) fn debt_of(&self, user: Uid, file: &File) -> u32 {
        let of_user = |peer: &PeerId| self.peers.get(peer).is_some_and(|peer| peer.user == user);
        let requesters = file.requesters.iter().filter(|(peer, _)| of_user(peer));
        requesters.map(|(_, &(requester, _))| file.super_seeding.debt(requester)).sum()
    }

    /// Whether a file's queue is so long that other holders will serve this channel sooner. The channels of a user that waits
    /// already do not make it long for other users.
    pub(super) fn is_overrun(&self, id: ChannelId, file: &File, most: usize) -> bool {
        if file.seeding || file.queued.len() < most {
            return false;
        }
        let user_of = |id: &ChannelId| Some(self.peers.get(&self.channels.get(id)?.peer)?.user);
        let own = user_of(&id);
        let waiting: BTreeSet<Option<Uid>> = file.queued.iter().map(user_of).collect();
        waiting.contains(&own) || waiting.len() >= most
    }
}

impl Peer {
    pub(super) fn wants(&self) -> bool {
        self.waiting > 0 || self.active > 0
    }

    /// Whether it lets others go first: it has not waited for long, or gets the file from other peers meanwhile.
    pub(super) fn is_patient(&self, now: Instant) -> bool {
        let unserved_since =
            self.waiting_since.map(|since| self.served_elsewhere.map_or(since, |at| at.max(since)));
        unserved_since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
    }
}
