//! One file at one peer, as the engine sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use shoal_common::limits::MAX_PEER_REQUESTS;
use shoal_common::peer_wire::ToServer;
use shoal_common::{Layout, PeerId};
use shoal_engine::{Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::channels::{Channels, NOT_OPEN};
use super::peers::Peers;
use super::supervisor;
use super::target::{Liveness, Target};
use crate::FileKey;
use crate::uploads::Uploads;
use shoal_session::tickets::TicketBook;

/// Bytes in flight at one peer at most: what the engine ever asks of one source.
const MAX_IN_FLIGHT: u64 = 16 * 1024 * 1024;

/// A source of a file's pieces: one peer. It connects once, keeps the channel open, renews the ticket on it and tells the
/// peer what we hold, until the connection ends; dropping it closes the channel. Its owner watches
/// [`PeerSource::liveness`] and decides when the peer is tried again.
#[derive(Debug)]
pub struct PeerSource {
    target: Arc<Target>,
    _supervisor: DropGuard,
}

/// What a source needs to begin.
pub(crate) struct Start<'a> {
    pub(crate) key: FileKey,
    pub(crate) peer: PeerId,
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) layout: Layout,
    pub(crate) peers: &'a Arc<Peers>,
    pub(crate) tickets: TicketBook,
    pub(crate) uploads: Uploads,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl PeerSource {
    /// Begins to connect.
    pub(crate) fn start(start: Start<'_>) -> (Self, Arc<Target>) {
        let Start { key, peer, addresses, layout, peers, tickets, uploads, tasks, stop } = start;
        let target = Arc::new(Target::new(key, peer, layout));
        let connections = peers.connections(peer, addresses);
        let supervisor = supervisor::run(target.clone(), connections, tickets, uploads, stop.clone());
        tasks.spawn(supervisor.in_current_span());
        (Self { target: target.clone(), _supervisor: stop.drop_guard() }, target)
    }

    /// The peer.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.target.peer
    }

    /// How it stands, now and later. [`Liveness::Gone`] and [`Liveness::Invalid`] are final.
    #[must_use]
    pub fn liveness(&self) -> watch::Receiver<Liveness> {
        self.target.liveness.subscribe()
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
        self.target.have.subscribe()
    }

    async fn fetch(&self, want: PieceRun, into: PieceBuf) -> Result<PieceBuf, SourceError> {
        let mut liveness = self.target.liveness.subscribe();
        // A channel that is just being opened is worth a moment.
        let _ = timeout(NOT_OPEN, liveness.wait_for(|now| *now != Liveness::Connecting)).await;
        let channel = self.target.channel()?;
        let piece = want.first();
        let length = self.target.layout.length(piece);
        let recall = || channel.say(|channel| ToServer::Cancel { channel, piece: piece.get() });
        let asked = channel.connection.channels.ask(channel.number, piece, into, recall)?;
        channel.say(|channel| ToServer::Request { channel, piece: piece.get() });
        let piece = Channels::answer(asked).await?;
        self.target.came(length);
        Ok(piece)
    }
}
