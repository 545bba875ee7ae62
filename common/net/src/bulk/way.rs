//! What bulk connections are made over. TCP to an address is the only way today; another one, through a relay for
//! instance, is another implementation of [`Way`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
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

/// Readies a fresh TCP connection for TLS.
pub(super) fn ready_socket(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
