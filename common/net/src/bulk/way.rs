//! What bulk connections are made over: TCP to an address, or through a relay. Another one is another implementation of [`Way`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use shoal_common::tracker_api::ways::RELAY_TOKEN;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A peer from which no TCP segment came for `KEEPALIVE_IDLE + 3 × KEEPALIVE_INTERVAL` is gone. Callers
/// that want to know sooner watch their own frames.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// One way to a peer. It is displayed in errors.
pub trait Way: fmt::Display + Clone + Send + Sync {
    /// The half of its socket that is read.
    type Reader: AsyncRead + Unpin + Send;
    /// The half of its socket that is written.
    type Writer: AsyncWrite + Unpin + Send;

    /// Opens a byte stream. Dropping the future leaves nothing behind.
    fn open(&self) -> impl Future<Output = io::Result<(Self::Reader, Self::Writer)>> + Send;
}

impl Way for SocketAddr {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    async fn open(&self) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
        let tcp = TcpStream::connect(*self).await?;
        ready_socket(&tcp)?;
        Ok(tcp.into_split())
    }
}

/// What an end of a relayed connection says first; the token follows. A libp2p connection begins with another byte.
pub(crate) const RELAY_GREETING: &[u8; 14] = b"shoal-relay/1\n";
/// What the relay says when both ends are there.
pub(crate) const RELAY_READY: u8 = 1;

/// A way through a relay, to the one who shows the other token of a pair there. What goes through is TLS from end to end.
#[derive(Clone)]
pub struct Relayed {
    /// The host of the relay, as a tracker's line has it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What to show.
    pub token: [u8; RELAY_TOKEN],
}

impl fmt::Display for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the relay {}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Way for Relayed {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    async fn open(&self) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
        let mut tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        ready_socket(&tcp)?;
        tcp.write_all(&[&RELAY_GREETING[..], &self.token].concat()).await?;
        // It closes where nobody comes in time, or it does not know the token.
        if tcp.read_u8().await? != RELAY_READY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(tcp.into_split())
    }
}

/// Readies a fresh TCP connection for TLS.
pub(super) fn ready_socket(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
