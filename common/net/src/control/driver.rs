//! The one task that owns the swarm: carries commands to it and answers back.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, ping};
use shoal_common::PeerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::behaviour::Channels;
use super::dial::{self, DialError};
use super::handler::OpenRequest;
use crate::address;
use crate::error::LOG_AGAIN;

/// How long a shutdown waits for what is queued to go out.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Behaviour {
    pub(super) channels: Channels,
    pub(super) ping: ping::Behaviour,
}

pub(super) enum Command {
    Dial { to: Multiaddr, at: String, expected: Option<PeerId>, reply: DialReply },
    Open { peer: PeerId, request: OpenRequest },
    Disconnect { peer: PeerId },
}

type DialReply = oneshot::Sender<Result<PeerId, DialError>>;

struct Dialling {
    at: String,
    expected: Option<PeerId>,
    reply: DialReply,
}

pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Asks this task to end.
    pub(super) stop: CancellationToken,
    /// Ends the tasks of connections, once the swarm is gone.
    pub(super) connections: CancellationToken,
    /// When the log said last that connections cannot be accepted.
    pub(super) said: Option<Instant>,
}

impl Driver {
    /// Runs until it is stopped or every handle is gone, then closes all connections in order, so that
    /// what was sent on them goes out, within [`FAREWELL`].
    pub(super) async fn run(mut self) {
        let mut dialling = HashMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, &mut dialling),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.notice(event, &mut dialling),
            }
        }
        self.commands.close();
        drop(dialling);
        self.close().await;
        let connections = self.connections.clone();
        drop(self);
        connections.cancel();
    }

    fn obey(&mut self, command: Command, dialling: &mut HashMap<ConnectionId, Dialling>) {
        match command {
            Command::Dial { to, at, expected, reply } => {
                let options = match expected {
                    Some(peer) => DialOpts::peer_id(address::to_libp2p(peer))
                        .condition(PeerCondition::Always)
                        .addresses(vec![to])
                        .build(),
                    None => DialOpts::unknown_peer_id().address(to).build(),
                };
                let connection = options.connection_id();
                match self.swarm.dial(options) {
                    Ok(()) => {
                        dialling.insert(connection, Dialling { at, expected, reply });
                    }
                    Err(error) => {
                        let _ = reply.send(Err(dial::explain(error, at, expected)));
                    }
                }
            }
            Command::Open { peer, request } => self.swarm.behaviour_mut().channels.open(peer, request),
            // An error only says that there was no connection.
            Command::Disconnect { peer } => {
                let _ = self.swarm.disconnect_peer_id(address::to_libp2p(peer));
            }
        }
    }

    fn notice(&mut self, event: SwarmEvent<BehaviourEvent>, dialling: &mut HashMap<ConnectionId, Dialling>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                let Some(dial) = dialling.remove(&connection_id) else { return };
                let found = address::from_libp2p(&peer_id).ok_or(DialError::Closed { at: dial.at });
                // The dial timed out or was dropped.
                if dial.reply.send(found).is_err() {
                    self.swarm.close_connection(connection_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(Dialling { at, expected, reply }) = dialling.remove(&connection_id) {
                    let _ = reply.send(Err(dial::explain(error, at, expected)));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "a control connection closed");
            }
            SwarmEvent::ListenerError { error, .. }
                if self.said.is_none_or(|said| said.elapsed() >= LOG_AGAIN) =>
            {
                self.said = Some(Instant::now());
                tracing::warn!(%error, "cannot accept connections; trying again");
            }
            _ => {}
        }
    }

    async fn close(&mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let deadline = Instant::now() + FAREWELL;
        while self.swarm.connected_peers().next().is_some() {
            if timeout_at(deadline, self.swarm.select_next_some()).await.is_err() {
                let late = self.swarm.connected_peers().count();
                tracing::debug!(late, "peers took too long to say goodbye");
                return;
            }
        }
    }
}
