//! TCP as a libp2p transport, and the stack on top of it: TLS 1.3, then Yamux.
//!
//! libp2p's own TCP transport is not used, because it listens with `SO_REUSEPORT`: two trackers started
//! on one port would both believe that they have it. Ours takes a socket that is bound already, so
//! that a port in use is an error where it belongs, and wraps each stream in [`Watched`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::{Multiaddr, Transport, tls, yamux};
use shoal_common::tracker_api::ways::RELAY_TOKEN;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use super::watched::Watched;
use crate::address::{canonical, to_multiaddr, to_socket_addr};
use crate::bulk::RELAY_GREETING;
use crate::identity::Identity;

/// A connection from which nothing comes for so long is dead. Somebody is to be shown offline at
/// most 5 s after their connection broke.
const PATIENCE: Duration = Duration::from_millis(4_500);
/// How long an inbound connection may take for its handshakes.
const INBOUND_HANDSHAKE: Duration = Duration::from_secs(10);
/// How long an outbound connection may take after all that waited for it have given up.
const OUTBOUND_HANDSHAKE: Duration = Duration::from_secs(6);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The whole stack. `streams` bounds the Yamux streams of a connection, both directions together.
pub(super) fn stack(
    identity: &Identity,
    listener: Option<TcpListener>,
    streams: usize,
    relay: Option<mpsc::Sender<RelayEnd>>,
) -> Result<Boxed<(libp2p::PeerId, StreamMuxerBox)>, tls::certificate::GenError> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(streams);
    Ok(Tcp { listener, announced: None, paused: None, relay }
        .upgrade(Version::V1Lazy)
        .authenticate(tls::Config::new(&identity.keypair())?)
        .multiplex(muxer)
        .inbound_timeout(INBOUND_HANDSHAKE)
        .outbound_timeout(OUTBOUND_HANDSHAKE)
        .boxed())
}

/// An error of the socket itself. A bare `io::Error` would be lost: one of libp2p's wrappers names the
/// source of what it wraps as its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct TcpError(#[from] io::Error);

struct Tcp {
    listener: Option<TcpListener>,
    /// Set once the swarm asked to listen; it wants to hear the address before any connection.
    announced: Option<(ListenerId, bool)>,
    paused: Option<Pin<Box<Sleep>>>,
    /// Takes connections that are meant for the relay.
    relay: Option<mpsc::Sender<RelayEnd>>,
}

/// One end of a relayed connection, which showed this token.
#[derive(Debug)]
pub struct RelayEnd {
    /// The connection; what it says next is for the other end.
    pub tcp: TcpStream,
    /// What it showed.
    pub token: [u8; RELAY_TOKEN],
}

impl Transport for Tcp {
    type Output = Watched;
    type Error = TcpError;
    type ListenerUpgrade = BoxFuture<'static, Result<Watched, TcpError>>;
    type Dial = BoxFuture<'static, Result<Watched, TcpError>>;

    /// Starts to use the bound socket; the address says nothing new.
    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<TcpError>> {
        if self.listener.is_none() || self.announced.is_some() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.announced = Some((id, false));
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        self.listener.take().is_some()
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<TcpError>> {
        match to_socket_addr(&address) {
            Some(to) if to.port() != 0 && !to.ip().is_unspecified() => Ok(Box::pin(connect(to))),
            _ => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, TcpError>> {
        let this = &mut *self;
        let (Some(listener), Some((listener_id, announced))) = (&this.listener, &mut this.announced) else {
            return Poll::Pending;
        };
        let listener_id = *listener_id;
        if !*announced && let Ok(address) = listener.local_addr() {
            *announced = true;
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr: to_multiaddr(address),
            });
        }
        if let Some(pause) = &mut this.paused {
            std::task::ready!(pause.as_mut().poll(cx));
            this.paused = None;
        }
        match std::task::ready!(listener.poll_accept(cx)).and_then(|(tcp, from)| accepted(tcp, from)) {
            Ok((tcp, local, from)) => Poll::Ready(TransportEvent::Incoming {
                listener_id,
                upgrade: Box::pin(sorted(tcp, this.relay.clone())),
                local_addr: to_multiaddr(local),
                send_back_addr: to_multiaddr(from),
            }),
            Err(error) => {
                this.paused = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                Poll::Ready(TransportEvent::ListenerError { listener_id, error: TcpError(error) })
            }
        }
    }
}

fn accepted(tcp: TcpStream, from: SocketAddr) -> io::Result<(TcpStream, SocketAddr, SocketAddr)> {
    tcp.set_nodelay(true)?;
    let local = canonical(tcp.local_addr()?);
    Ok((tcp, local, canonical(from)))
}

/// Lets libp2p have a connection, unless it begins as one for the relay, which then takes it. The limits on handshakes, and their time,
/// hold for both.
async fn sorted(mut tcp: TcpStream, relay: Option<mpsc::Sender<RelayEnd>>) -> Result<Watched, TcpError> {
    let Some(relay) = relay else { return Ok(Watched::new(tcp, PATIENCE)) };
    let mut first = [0];
    tcp.peek(&mut first).await?;
    if first[0] != RELAY_GREETING[0] {
        return Ok(Watched::new(tcp, PATIENCE));
    }
    let (mut greeting, mut token) = ([0; RELAY_GREETING.len()], [0; RELAY_TOKEN]);
    tcp.read_exact(&mut greeting).await?;
    tcp.read_exact(&mut token).await?;
    if greeting == *RELAY_GREETING {
        // Where too many wait it is closed, and its client comes again.
        let _ = relay.try_send(RelayEnd { tcp, token });
    }
    Err(TcpError(io::Error::other("it is for the relay")))
}

async fn connect(to: SocketAddr) -> Result<Watched, TcpError> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(Watched::new(tcp, PATIENCE))
}
