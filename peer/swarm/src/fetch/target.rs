//! One file at one peer: how it stands, and the channels on which it can be asked for. Shared by the source and its
//! supervisor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::peer_wire::ToServer;
use shoal_common::{Layout, PeerId};
use shoal_engine::{Have, SourceError};
use tokio::sync::{Notify, watch};

use super::channels::NOT_OPEN;
use super::connection::Connection;
use super::peers::CONNECTIONS;
use super::trouble::Trouble;
use crate::FileKey;
use crate::way::Way;

/// Bytes in flight from which on a second connection is worth making: a network that needs them is a fast one.
const SECOND_CONNECTION: u64 = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Target {
    pub(super) key: FileKey,
    pub(super) peer: PeerId,
    pub(super) layout: Layout,
    pub(super) have: watch::Sender<Have>,
    pub(super) liveness: watch::Sender<Liveness>,
    channels: Mutex<[Option<OpenChannel>; CONNECTIONS]>,
    /// A second connection would be of use.
    pub(super) wanted: Notify,
    /// Bytes of whole pieces that came.
    delivered: AtomicU64,
}

/// How a source stands. Its owner watches this: a source need not be asked for pieces to learn that it is gone. Reasons
/// are words that read on behind the peer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// Pieces cannot be asked for yet: it connects, or waits for a ticket.
    Connecting,
    /// Pieces can be asked for.
    Open,
    /// This source is over. The peer may be found again by another source.
    Gone {
        /// Why, in words.
        reason: String,
        /// Why, for programs.
        trouble: Trouble,
    },
    /// This source is over: the peer broke the protocol, and how.
    Invalid(String),
}

/// A channel for the file on one of the peer's connections.
#[derive(Debug, Clone)]
pub(super) struct OpenChannel {
    pub(super) connection: Arc<Connection>,
    pub(super) number: u32,
}

impl OpenChannel {
    /// Says something to the server; `message` is given the channel's number.
    pub(super) fn say(&self, message: impl FnOnce(u32) -> ToServer) {
        self.connection.say(message(self.number));
    }

    fn in_flight(&self) -> u64 {
        self.connection.channels.requests.in_flight()
    }
}

impl Target {
    /// Not connected yet.
    pub(super) fn new(key: FileKey, peer: PeerId, layout: Layout) -> Self {
        let nothing = shoal_common::Bitfield::none(&layout);
        Self {
            key,
            peer,
            layout,
            have: watch::Sender::new(Have::Bits(nothing.into())),
            liveness: watch::Sender::new(Liveness::Connecting),
            channels: Mutex::default(),
            wanted: Notify::new(),
            delivered: AtomicU64::new(0),
        }
    }

    /// How much of the file the peer holds, in percent rounded down; `None` while it is not connected.
    pub(crate) fn percent(&self) -> Option<u8> {
        if *self.liveness.borrow() != Liveness::Open {
            return None;
        }
        match &*self.have.borrow() {
            Have::All => Some(100),
            Have::Bits(bits) => Some(bits.percent()),
        }
    }

    /// Over which way it is connected; `None` while it is not.
    pub(crate) fn way(&self) -> Option<Way> {
        self.channels().iter().flatten().map(|channel| channel.connection.way).min()
    }

    /// The channel to ask on: the one with less in flight.
    pub(super) fn channel(&self) -> Result<OpenChannel, SourceError> {
        match &*self.liveness.borrow() {
            Liveness::Open => {}
            Liveness::Connecting => return Err(SourceError::Busy(NOT_OPEN)),
            Liveness::Gone { reason, .. } => return Err(SourceError::Gone(reason.clone())),
            Liveness::Invalid(reason) => return Err(SourceError::Invalid(reason.clone())),
        }
        let channels = self.channels();
        let least = channels.iter().flatten().min_by_key(|channel| channel.in_flight());
        let least = least.ok_or(SourceError::Busy(NOT_OPEN))?;
        if channels.iter().flatten().count() == 1 && least.in_flight() >= SECOND_CONNECTION {
            self.wanted.notify_one();
        }
        Ok(least.clone())
    }

    /// A piece of so many bytes came.
    pub(super) fn came(&self, bytes: u32) {
        self.delivered.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Bytes of whole pieces that came so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Whether nothing is asked for on some open channel.
    pub(super) fn is_idle(&self) -> bool {
        self.channels().iter().flatten().any(|channel| channel.in_flight() == 0)
    }

    /// Says something on all open channels.
    pub(super) fn say_on_all(&self, message: impl Fn(u32) -> ToServer) {
        self.channels().iter().flatten().for_each(|channel| channel.say(&message));
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, [Option<OpenChannel>; CONNECTIONS]> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
