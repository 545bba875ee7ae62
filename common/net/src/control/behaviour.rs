//! What the swarm does for Shoal: admits connections, and opens channels on the newest one of a peer.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure,
    NetworkBehaviour, NotifyHandler, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::mpsc;

use super::Inbound;
use super::handler::{Handler, OpenRequest, Served, TooManyChannels};
use super::limits::{ControlLimits, TurnedAway};
use crate::address;
use crate::admission::Admission;
use crate::error::NetError;
use crate::protocol::Protocol;

type Event = ToSwarm<Infallible, OpenRequest>;

/// Channels between peers, and the bounds on connections.
pub(super) struct Channels {
    served: Served,
    limits: ControlLimits,
    handshakes: Admission<ConnectionId, ()>,
    admitted: Admission<ConnectionId, ()>,
    incoming: mpsc::Sender<Inbound>,
    /// Each peer's connections, oldest first.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    /// At most one for each command and each new connection since the last poll.
    events: VecDeque<Event>,
}

impl Channels {
    pub(super) fn new(
        protocols: &[Protocol],
        limits: ControlLimits,
        incoming: mpsc::Sender<Inbound>,
    ) -> Result<Self, NetError> {
        let served = protocols.iter().map(|protocol| Ok((stream_protocol(*protocol)?, *protocol)));
        Ok(Self {
            served: served.collect::<Result<_, NetError>>()?,
            limits,
            handshakes: Admission::new(limits.of_handshakes()),
            admitted: Admission::new(limits.of_connections()),
            incoming,
            connections: HashMap::new(),
            events: VecDeque::new(),
        })
    }

    /// Passes the request to the newest connection of that peer; a request that cannot be met is
    /// answered at once.
    pub(super) fn open(&mut self, peer: shoal_common::PeerId, request: OpenRequest) {
        let peer_id = address::to_libp2p(peer);
        match self.connections.get(&peer_id).and_then(|ids| ids.last()) {
            Some(newest) => self.events.push_back(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(*newest),
                event: request,
            }),
            None => {
                let _ = request.reply.send(Err(NetError::NotConnected { peer }));
            }
        }
    }

    fn handler(&self, peer: &PeerId, remote: &Multiaddr) -> Result<Handler, ConnectionDenied> {
        let peer = address::from_libp2p(peer).ok_or_else(|| ConnectionDenied::new(TurnedAway::ForeignKey))?;
        let remote =
            address::to_socket_addr(remote).ok_or_else(|| ConnectionDenied::new(TurnedAway::NoAddress))?;
        let channels = self.limits.channels_per_connection;
        Ok(Handler::new(peer, remote, self.served.clone(), channels, self.incoming.clone()))
    }
}

/// libp2p's form of the name.
///
/// # Errors
/// When it does not begin with a slash.
pub(super) fn stream_protocol(protocol: Protocol) -> Result<StreamProtocol, NetError> {
    StreamProtocol::try_from_owned(protocol.0.to_owned()).map_err(|_| NetError::BadProtocol { protocol })
}

impl NetworkBehaviour for Channels {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let from =
            address::to_socket_addr(from).ok_or_else(|| ConnectionDenied::new(TurnedAway::NoAddress))?;
        let begun = self.handshakes.admit(connection, (), from.ip(), None);
        begun.map(|_| ()).map_err(|refused| ConnectionDenied::new(TurnedAway::Handshake(refused)))
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        let handler = self.handler(&peer_id, remote)?;
        let (peer, remote) = handler.ends();
        self.handshakes.leave(connection);
        let admitted = self.admitted.admit(connection, (), remote.ip(), Some(peer));
        for (oldest, ()) in
            admitted.map_err(|refused| ConnectionDenied::new(TurnedAway::Connection(refused)))?
        {
            let connection = CloseConnection::One(oldest);
            self.events.push_back(ToSwarm::CloseConnection { peer_id, connection });
        }
        Ok(handler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.handler(&peer, remote)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.connections.entry(peer_id).or_default().push(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.admitted.leave(connection_id);
                if let Some(ids) = self.connections.get_mut(&peer_id) {
                    ids.retain(|id| *id != connection_id);
                    if ids.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, error, send_back_addr, .. }) => {
                tracing::debug!(from = %send_back_addr, %error, "an inbound connection failed");
                self.handshakes.leave(connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        TooManyChannels: TooManyChannels,
    ) {
        tracing::debug!(%peer_id, "closed a connection: it opened channel after channel");
        let connection = CloseConnection::One(connection);
        self.events.push_back(ToSwarm::CloseConnection { peer_id, connection });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The driver that pushes events polls the swarm in the same task, right after.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
