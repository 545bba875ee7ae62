//! The control plane: channels of messages between clients and trackers, and between trackers.
//!
//! libp2p over TCP with TLS 1.3 and Yamux, so that both ends prove their peer ids. A [`Control`] is a
//! handle on the one task that owns the swarm; what others open comes out of [`Incoming`]. Nothing of
//! libp2p is to be seen from outside. Bulk data never goes this way: see [`bulk`](crate::bulk).

mod behaviour;
mod dial;
mod driver;
mod handler;
mod limits;
mod transport;
mod watched;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::Swarm;
use libp2p::{ping, swarm};
use shoal_common::PeerId;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use dial::DialError;
pub use limits::ControlLimits;
pub use transport::RelayEnd;

use crate::address::to_multiaddr;
use crate::channel::Channel;
use crate::error::NetError;
use crate::identity::Identity;
use crate::protocol::Protocol;
use behaviour::{Channels, stream_protocol};
use driver::{Behaviour, Command, Driver};
use handler::OpenRequest;

/// How long a dial may take, names and handshakes included. Less than the silence after which the socket
/// fails by itself, so that a silent tracker can be told apart from a broken one.
const DIAL: Duration = Duration::from_secs(4);
/// How long the other side may take to agree to a channel.
const OPEN: Duration = Duration::from_secs(5);
/// How often each side pings: three pings fit into the silence after which a connection is dead.
const PING: Duration = Duration::from_millis(1_500);
/// A ping's answer may come as late as it likes; only silence counts. This just ends a lost ping.
const PING_ANSWER: Duration = Duration::from_secs(60);
/// A connection without a channel is closed after this time: long enough to open one after a dial.
const IDLE: Duration = Duration::from_secs(10);
/// Commands that wait for the task that owns the swarm; further callers wait.
const COMMANDS: usize = 64;
/// Channels that wait to be taken from [`Incoming`]; more wait in their connections.
const INCOMING: usize = 64;
/// Streams of libp2p's own, such as pings, beside the channels of a connection.
const OTHER_STREAMS: usize = 16;

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Who we are.
    pub identity: Identity,
    /// Where to listen; port 0 takes any. `None` only dials.
    pub listen: Option<SocketAddr>,
    /// Protocols on which others may open channels to us.
    pub protocols: Vec<Protocol>,
    /// Bounds on what others may open.
    pub limits: ControlLimits,
}

/// A handle on the control plane. When the last one is dropped, the control plane shuts down as by
/// [`shutdown`](Self::shutdown), unattended.
#[derive(Clone)]
pub struct Control {
    shared: Arc<ControlHandle>,
}

struct ControlHandle {
    local_addr: Option<SocketAddr>,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The channels that others open.
#[derive(Debug)]
pub struct Incoming {
    channels: mpsc::Receiver<Inbound>,
}

/// A channel that another peer opened to us.
#[derive(Debug)]
pub struct Inbound {
    /// Who, proven.
    pub peer: PeerId,
    /// From where.
    pub remote: SocketAddr,
    /// What they want to speak.
    pub protocol: Protocol,
    /// The channel.
    pub channel: Channel,
}

impl Control {
    /// Starts listening, if asked to, and the task that owns all connections. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound, the error names it.
    pub async fn start(config: ControlConfig) -> Result<(Self, Incoming), NetError> {
        Self::start_with_relay(config, None).await
    }

    /// As [`start`](Self::start). Connections that are meant for a relay are passed on; without one they are closed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_relay(
        config: ControlConfig,
        relay: Option<mpsc::Sender<RelayEnd>>,
    ) -> Result<(Self, Incoming), NetError> {
        let ControlConfig { identity, listen, protocols, limits } = config;
        let listener = match listen {
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|error| NetError::listen(address, error))?)
            }
            None => None,
        };
        let local_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (incoming, channels) = mpsc::channel(INCOMING);
        let behaviour = Behaviour {
            channels: Channels::new(&protocols, limits, incoming)?,
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING_ANSWER)),
        };
        let streams = 2 * limits.channels_per_connection + OTHER_STREAMS;
        let transport = transport::stack(&identity, listener, streams, relay)
            .map_err(|error| NetError::Certificate { reason: error.to_string() })?;
        let (tasks, connections) = (TaskTracker::new(), CancellationToken::new());
        let executor = spawner(tasks.clone(), connections.clone());
        let settings = swarm::Config::with_executor(executor)
            .with_idle_connection_timeout(IDLE)
            .with_max_negotiating_inbound_streams(limits.channels_per_connection + OTHER_STREAMS);
        let mut swarm = Swarm::new(transport, behaviour, identity.keypair().public().to_peer_id(), settings);
        if let Some(address) = local_addr {
            let listening = swarm.listen_on(to_multiaddr(address));
            listening.map_err(|error| NetError::listen(address, io::Error::other(error)))?;
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let stop = CancellationToken::new();
        tasks.spawn(Driver { swarm, commands: receiver, stop: stop.clone(), connections, said: None }.run());
        let shared = ControlHandle { local_addr, commands, stop, tasks };
        Ok((Self { shared: Arc::new(shared) }, Incoming { channels }))
    }

    /// Where we listen, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local_addr
    }

    /// Connects to `host` (a DNS name, or an IPv4 or IPv6 address without brackets) within 4 s and
    /// gives the proven id of the peer that answers. Always makes a connection of its own, which then is the one on which
    /// channels are opened; it closes by itself when it has had no channel for 10 s. Dropping the
    /// future leaves no connection behind.
    ///
    /// # Errors
    /// When nothing answers, or another peer than `expected`.
    pub async fn dial(&self, host: &str, port: u16, expected: Option<PeerId>) -> Result<PeerId, DialError> {
        let at = dial::target(host, port);
        let dialled = timeout(DIAL, async {
            let addresses = dial::resolve(host, port, &at).await?;
            dial::race(addresses, |address| self.dial_one(address, at.clone(), expected)).await
        });
        dialled.await.unwrap_or(Err(DialError::TimedOut { at: at.clone() }))
    }

    /// Opens a channel on the newest connection to `peer`, within 5 s. Dropping the future leaves no
    /// channel behind.
    ///
    /// # Errors
    /// When there is no connection, it breaks, or the peer does not speak `protocol`.
    pub async fn open(&self, peer: PeerId, protocol: Protocol) -> Result<Channel, NetError> {
        let name = stream_protocol(protocol)?;
        let (reply, answer) = oneshot::channel();
        let request = OpenRequest { protocol, name, reply };
        let opened = timeout(OPEN, async {
            let sent = self.shared.commands.send(Command::Open { peer, request }).await;
            sent.map_err(|_| NetError::Closed)?;
            answer.await.unwrap_or(Err(NetError::Lost { peer }))
        });
        opened.await.unwrap_or(Err(NetError::Lost { peer }))
    }

    /// Closes every connection with `peer`, after what was sent on them; their channels end.
    pub async fn disconnect(&self, peer: PeerId) {
        // An error only says that all connections are closed already.
        let _ = self.shared.commands.send(Command::Disconnect { peer }).await;
    }

    /// Closes every connection and stops listening. What was sent on a channel still goes out, unless
    /// the other side takes longer than a second. When this returns, no task is left and the
    /// port is free. Others may call it at the same time, or again.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn dial_one(
        &self,
        address: SocketAddr,
        at: String,
        expected: Option<PeerId>,
    ) -> Result<PeerId, DialError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Dial { to: to_multiaddr(address), at: at.clone(), expected, reply };
        let closed = DialError::Closed { at };
        if self.shared.commands.send(command).await.is_err() {
            return Err(closed);
        }
        answer.await.unwrap_or(Err(closed))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("local_addr", &self.shared.local_addr).finish_non_exhaustive()
    }
}

impl Incoming {
    /// The next channel; `None` once the control plane is shut down. Safe to drop: nothing is lost.
    pub async fn next(&mut self) -> Option<Inbound> {
        self.channels.recv().await
    }
}

/// Runs the swarm's tasks so that a shutdown can wait for them, and end those that do not end.
fn spawner(
    tasks: TaskTracker,
    end: CancellationToken,
) -> impl Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) + Send + 'static {
    move |task| {
        tasks.spawn(end.clone().run_until_cancelled_owned(task));
    }
}
