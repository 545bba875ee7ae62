//! Where a peer takes bulk connections.
//!
//! One task accepts and owns all handshakes under way, each in a task of its own with a time limit, so
//! that a slow one holds up no other. [`BulkLimits`] say how many there may be.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::handshake;
use super::stream::BulkStream;
use super::tls::server_config;
use super::way::ready_socket;
use crate::address::canonical;
use crate::admission::{Admission, ConnectionLimits, Full, Limit, LimitScope};
use crate::error::{LOG_AGAIN, NetError};
use crate::identity::Identity;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait for `accept`; while as many more are ready, nothing new is let in.
const READY: usize = 64;
/// Connections that the system keeps for us while we are busy, as tokio's own listeners do.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds on what others may open. An address is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkLimits {
    /// Handshakes under way, all together; the oldest of the most crowded address gives way.
    pub pending: usize,
    /// Handshakes under way from one address; its oldest gives way.
    pub pending_per_address: usize,
    /// Open connections, all together.
    pub established: usize,
    /// Open connections of one peer.
    pub established_per_peer: usize,
}

impl Default for BulkLimits {
    /// For a client: a few hundred peers with two connections each.
    fn default() -> Self {
        Self { pending: 128, pending_per_address: 32, established: 1_024, established_per_peer: 8 }
    }
}

impl BulkLimits {
    fn of_handshakes(&self) -> Vec<Limit> {
        // A new connection is always let in, and an old one that has not finished its handshake goes: real peers finish
        // within a few round trips, while one who holds half-open connections only loses their own.
        vec![
            Limit::new(LimitScope::Address, self.pending_per_address, Full::OldestGivesWay),
            Limit::new(LimitScope::All, self.pending, Full::LargestAddressGivesWay),
        ]
    }

    fn of_connections(&self) -> Vec<Limit> {
        vec![
            Limit::new(LimitScope::All, self.established, Full::Refuse),
            Limit::new(LimitScope::Peer, self.established_per_peer, Full::Refuse),
        ]
    }

    /// These, and no more connections than that, of which so many may be under way: what a process can have open.
    #[must_use]
    pub fn within(self, established: usize, pending: usize) -> Self {
        let pending = self.pending.min(pending).max(1);
        Self {
            pending,
            pending_per_address: self.pending_per_address.min(pending),
            established: self.established.min(established).max(1),
            established_per_peer: self.established_per_peer,
        }
    }
}

/// Takes bulk connections. Dropping it stops listening and ends the handshakes under way; connections
/// already taken live on.
#[derive(Debug)]
pub struct Listener {
    local_addr: SocketAddr,
    ready: mpsc::Receiver<Ready>,
    task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Listens on `address`; port 0 takes any. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound, the error names it.
    pub fn bind(address: SocketAddr, identity: &Identity, limits: BulkLimits) -> Result<Self, NetError> {
        let certificate = |reason| NetError::Certificate { reason };
        let key = identity.certified_key().map_err(certificate)?;
        let config = server_config(key).map_err(|error| certificate(error.to_string()))?;
        let tcp = bind(address).map_err(|error| NetError::listen(address, error))?;
        let local_addr = tcp.local_addr().map_err(|error| NetError::listen(address, error))?;
        let (sender, ready) = mpsc::channel(READY);
        let acceptor = Acceptor {
            tcp,
            config: Arc::new(config),
            handshakes: JoinSet::new(),
            under_way: Admission::new(limits.of_handshakes()),
            established: ConnectionLimits::new(limits.of_connections()),
            finished: VecDeque::new(),
            paused: None,
        };
        Ok(Self { local_addr, ready, task: AbortOnDropHandle::new(tokio::spawn(acceptor.run(sender))) })
    }

    /// Where we listen, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The next connection, its peer proven, and where it came from. Safe to drop: nothing is lost.
    ///
    /// # Errors
    /// Only when the listener itself has come to an end.
    pub async fn accept(&mut self) -> Result<(BulkStream, SocketAddr), NetError> {
        self.ready.recv().await.ok_or(NetError::Closed)
    }

    /// Stops listening and waits until the port is free.
    pub async fn close(self) {
        self.task.abort();
        // The only error is the cancellation just asked for.
        let _ = self.task.await;
    }
}

/// Like tokio's own `bind`, but without `await`.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}

/// A connection whose handshake is done, and where it came from.
type Ready = (BulkStream, SocketAddr);

/// The task behind a [`Listener`].
struct Acceptor {
    tcp: TcpListener,
    config: Arc<ServerConfig>,
    handshakes: JoinSet<Option<Ready>>,
    under_way: Admission<Id, AbortHandle>,
    established: ConnectionLimits,
    /// At most [`READY`] plus the handshakes that were under way when it became that many.
    finished: VecDeque<Ready>,
    /// Until when nothing is accepted, since accepting failed; handshakes go on.
    paused: Option<Instant>,
}

impl Acceptor {
    async fn run(mut self, ready: mpsc::Sender<Ready>) {
        let mut logged: Option<Instant> = None;
        loop {
            let paused = self.paused;
            tokio::select! {
                accepted = self.tcp.accept(), if paused.is_none() && self.finished.len() < READY => match accepted {
                    Ok((tcp, from)) => self.begin(tcp, canonical(from)),
                    Err(error) => {
                        if logged.is_none_or(|logged| logged.elapsed() >= LOG_AGAIN) {
                            logged = Some(Instant::now());
                            tracing::warn!(%error, "cannot accept connections; trying again");
                        }
                        self.paused = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
                () = sleep_until(paused.unwrap_or_else(Instant::now)), if paused.is_some() => self.paused = None,
                Some(ended) = self.handshakes.join_next_with_id() => self.end(ended),
                room = ready.reserve(), if !self.finished.is_empty() => match room {
                    Ok(permit) => if let Some(ready) = self.finished.pop_front() {
                        permit.send(ready);
                    },
                    Err(_) => return,
                },
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, from: SocketAddr) {
        let config = self.config.clone();
        let handshake = self.handshakes.spawn(async move {
            match timeout(HANDSHAKE, establish(tcp, config)).await {
                Ok(Ok(stream)) => Some((stream, from)),
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "a bulk handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(%from, "a bulk handshake took too long");
                    None
                }
            }
        });
        // Handshakes are not refused: others give way.
        for (_, gives_way) in
            self.under_way.admit(handshake.id(), handshake, from.ip(), None).unwrap_or_default()
        {
            gives_way.abort();
        }
    }

    fn end(&mut self, ended: Result<(Id, Option<Ready>), JoinError>) {
        let (id, ready) = match ended {
            Ok((id, ready)) => (id, ready),
            Err(error) => (error.id(), None),
        };
        self.under_way.leave(id);
        let Some((stream, from)) = ready else { return };
        let place = self.established.admit(from.ip(), stream.peer(), CancellationToken::new());
        match place {
            Ok(place) => self.finished.push_back((stream.admitted(place), from)),
            Err(refused) => tracing::debug!(peer = %stream.peer(), %refused, "turned away"),
        }
    }
}

async fn establish(mut tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<BulkStream> {
    ready_socket(&tcp)?;
    let established = handshake::accept(&mut tcp, config).await?;
    let (input, output) = tcp.into_split();
    BulkStream::new(input, output, established)
}
