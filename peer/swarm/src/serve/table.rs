//! What is open and asked for on one connection, shared by its reader and its writer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::limits::{MAX_CHANNELS, MAX_PEER_REQUESTS};
use shoal_common::{Gid, Layout, PieceIndex};
use tokio::time::Instant;

use crate::have_log::{HaveCursor, HaveLog};
use shoal_policy::ChannelId;

/// An open channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) group: Gid,
    pub(super) layout: Layout,
    pub(super) log: Arc<HaveLog>,
    pub(super) cursor: HaveCursor,
    /// When the requester's ticket runs out.
    pub(super) expires: Instant,
    /// Pieces that the requester announced, repetitions included.
    pub(super) announced: u64,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It is under way already.
    Twice,
    /// Too many are.
    TooMany,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<Requested>,
    /// Units for pieces that went out since the reader last looked.
    earned: AtomicU32,
}

#[derive(Debug, Default)]
struct Requested {
    channels: HashMap<u32, Channel>,
    /// Requests that have no end yet, by channel and piece.
    under_way: HashSet<(ChannelId, PieceIndex)>,
}

impl Table {
    pub(super) fn is_full(&self) -> bool {
        self.state().channels.len() >= MAX_CHANNELS
    }

    pub(super) fn is_open(&self, wire: u32) -> bool {
        self.state().channels.contains_key(&wire)
    }

    pub(super) fn insert(&self, wire: u32, channel: Channel) {
        self.state().channels.insert(wire, channel);
    }

    /// Forgets a channel and its requests. Another channel that was opened under its number since stays.
    pub(super) fn remove(&self, wire: u32, id: ChannelId) {
        let mut state = self.state();
        state.under_way.retain(|&(other, _)| other != id);
        if state.channels.get(&wire).is_some_and(|channel| channel.id == id) {
            state.channels.remove(&wire);
        }
    }

    /// Looks at, or changes, an open channel.
    pub(super) fn with<T>(&self, wire: u32, look: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        self.state().channels.get_mut(&wire).map(look)
    }

    /// Notes that a request begins.
    pub(super) fn begin(&self, id: ChannelId, piece: PieceIndex) -> Result<(), NotTaken> {
        let mut state = self.state();
        if state.under_way.len() >= MAX_PEER_REQUESTS {
            return Err(NotTaken::TooMany);
        }
        if state.under_way.insert((id, piece)) { Ok(()) } else { Err(NotTaken::Twice) }
    }

    /// Notes that a request ended: its last block, or word that it is not coming, goes out.
    pub(super) fn end(&self, id: ChannelId, piece: PieceIndex) {
        self.state().under_way.remove(&(id, piece));
    }

    /// Notes that a piece went out, which pays for messages.
    pub(super) fn earn(&self, units: u32) {
        self.earned.fetch_add(units, Ordering::Relaxed);
    }

    /// The units earned since this was last asked.
    pub(super) fn take_earned(&self) -> u32 {
        self.earned.swap(0, Ordering::Relaxed)
    }

    /// When the next ticket runs out.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.state().channels.values().map(|channel| channel.expires).min()
    }

    /// The channels whose tickets ran out.
    pub(super) fn expired(&self, now: Instant) -> Vec<ChannelId> {
        self.state()
            .channels
            .values()
            .filter(|channel| channel.expires <= now)
            .map(|channel| channel.id)
            .collect()
    }

    /// Ends everything; gives the channels that were open.
    pub(super) fn clear(&self) -> Vec<ChannelId> {
        let mut state = self.state();
        state.under_way.clear();
        state.channels.drain().map(|(_, channel)| channel.id).collect()
    }

    fn state(&self) -> MutexGuard<'_, Requested> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
