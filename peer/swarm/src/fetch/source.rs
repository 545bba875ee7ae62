//! One file at one peer, as the engine sees it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_PEER_REQUESTS;
use shoal_common::peer_wire::{CopyTrouble, ToServer};
use shoal_common::{Layout, PeerId, PieceIndex};
use shoal_engine::{Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::keeper;
use super::link::{LANES, Links};
use crate::FileKey;
use crate::uploads::Uploads;
use shoal_session::tickets::TicketBook;

/// Bytes in flight at one peer at most: what the engine ever asks of one source.
const MAX_IN_FLIGHT: u64 = 16 * 1024 * 1024;
/// Bytes in flight from which on a second connection is worth making: a network that needs them is a fast one.
const SECOND_LANE: u64 = 1024 * 1024;
/// When to ask again while the channel is being opened, or waits for a ticket.
const NOT_OPEN: Duration = Duration::from_millis(200);

/// A source of a file's pieces: one peer. It connects once, keeps the channel open, renews the ticket on it and tells the
/// peer what we hold, until the connection ends; dropping it closes the channel. Its owner watches
/// [`PeerSource::liveness`] and decides when the peer is tried again.
#[derive(Debug)]
pub struct PeerSource {
    origin: Arc<Origin>,
    _keeper: DropGuard,
}

/// What a source is of, and how it stands; shared by the source and its keeper.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(super) key: FileKey,
    pub(super) peer: PeerId,
    pub(super) layout: Layout,
    pub(super) have: watch::Sender<Have>,
    pub(super) liveness: watch::Sender<Liveness>,
    pub(super) lanes: Mutex<[Option<Lane>; LANES]>,
    /// Somebody could use another connection.
    pub(super) wanted: Notify,
}

/// How a source stands. Whoever put it into use watches this: nobody has to ask a source for pieces to learn that it is
/// gone. Reasons are words that read on behind the peer's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// Pieces cannot be asked for yet: it connects, or waits for a ticket.
    Connecting,
    /// Pieces can be asked for.
    Open,
    /// This source is over. The peer may be found again by another source.
    Gone {
        /// Why.
        reason: String,
        /// What the peer said is the matter with its copy of the file, if that is why.
        copy: Option<CopyTrouble>,
    },
    /// This source is over: the peer broke the protocol, and how.
    Invalid(String),
}

/// An open channel.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) connection: Arc<Connection>,
    pub(super) channel: u32,
}

/// What a source needs to begin.
pub(crate) struct Start<'a> {
    pub(crate) key: FileKey,
    pub(crate) peer: PeerId,
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) layout: Layout,
    pub(crate) links: &'a Arc<Links>,
    pub(crate) tickets: TicketBook,
    pub(crate) uploads: Uploads,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl PeerSource {
    /// Begins to connect.
    pub(crate) fn start(start: Start<'_>) -> (Self, Arc<Origin>) {
        let Start { key, peer, addresses, layout, links, tickets, uploads, tasks, stop } = start;
        let nothing = shoal_common::Bitfield::none(&layout);
        let origin = Arc::new(Origin {
            key,
            peer,
            layout,
            have: watch::Sender::new(Have::Bits(nothing.into())),
            liveness: watch::Sender::new(Liveness::Connecting),
            lanes: Mutex::default(),
            wanted: Notify::new(),
        });
        tasks.spawn(keeper::keep(
            origin.clone(),
            links.link(peer, addresses),
            tickets,
            uploads,
            stop.clone(),
        ));
        (Self { origin: origin.clone(), _keeper: stop.drop_guard() }, origin)
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.origin.peer
    }

    /// How it stands, now and later. [`Liveness::Gone`] and [`Liveness::Invalid`] are final.
    #[must_use]
    pub fn liveness(&self) -> watch::Receiver<Liveness> {
        self.origin.liveness.subscribe()
    }
}

impl PieceSource for PeerSource {
    fn limits(&self) -> Limits {
        Limits {
            max_in_flight: MAX_PEER_REQUESTS,
            min_in_flight: 1,
            max_in_flight_bytes: MAX_IN_FLIGHT,
            run: Run::Single,
        }
    }

    fn have(&self) -> watch::Receiver<Have> {
        self.origin.have.subscribe()
    }

    async fn fetch(&self, want: PieceRun, into: PieceBuf) -> Result<PieceBuf, SourceError> {
        let mut liveness = self.origin.liveness.subscribe();
        // A channel that is just being opened is worth a moment.
        let _ = timeout(NOT_OPEN, liveness.wait_for(|now| *now != Liveness::Connecting)).await;
        let lane = self.origin.lane()?;
        let piece = want.first();
        let result = lane.connection.requests.begin(lane.channel, piece, into)?;
        lane.connection.say(ToServer::Request { channel: lane.channel, piece: piece.get() });
        Asked { lane, piece, result }.answer().await
    }
}

/// A request under way; dropped, it is taken back.
struct Asked {
    lane: Lane,
    piece: PieceIndex,
    result: oneshot::Receiver<Result<PieceBuf, SourceError>>,
}

impl Asked {
    async fn answer(mut self) -> Result<PieceBuf, SourceError> {
        // The sender is lost when we close the channel ourselves.
        (&mut self.result).await.unwrap_or(Err(SourceError::Busy(NOT_OPEN)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Lane { connection, channel } = &self.lane;
        if connection.requests.cancel(*channel, self.piece) {
            connection.say(ToServer::Cancel { channel: *channel, piece: self.piece.get() });
        }
    }
}

impl Origin {
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

    /// The channel to ask on: the one with less in flight.
    fn lane(&self) -> Result<Lane, SourceError> {
        match &*self.liveness.borrow() {
            Liveness::Open => {}
            Liveness::Connecting => return Err(SourceError::Busy(NOT_OPEN)),
            Liveness::Gone { reason, .. } => return Err(SourceError::Gone(reason.clone())),
            Liveness::Invalid(reason) => return Err(SourceError::Invalid(reason.clone())),
        }
        let lanes = self.lanes();
        let in_flight = |lane: &&Lane| lane.connection.requests.in_flight();
        let lane = lanes.iter().flatten().min_by_key(in_flight).ok_or(SourceError::Busy(NOT_OPEN))?;
        if lanes.iter().any(Option::is_none) && in_flight(&lane) >= SECOND_LANE {
            self.wanted.notify_one();
        }
        Ok(lane.clone())
    }

    pub(super) fn lanes(&self) -> MutexGuard<'_, [Option<Lane>; LANES]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
