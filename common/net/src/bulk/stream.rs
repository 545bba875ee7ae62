//! One bulk connection: a byte stream to a proven peer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use shoal_common::PeerId;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::seats::Seat;
use super::tls::proven_peer;

/// Between the socket and rustls, which asks for 4 KiB at a time: 64 system calls become one.
const READ_BUFFER: usize = 256 * 1024;
/// Encrypted bytes that wait for the socket at most: a batch of the frame writer's, for one `writev`.
const WRITE_BUFFER: usize = 128 * 1024;
/// A peer from which no TCP segment came for `KEEPALIVE_IDLE + 3 × KEEPALIVE_INTERVAL` is gone. Callers
/// that want to know sooner watch their own frames.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What TLS runs on.
pub(super) type Socket = BufReader<TcpStream>;

/// The reading half, for a task of its own.
pub type BulkReader = ReadHalf<BulkStream>;
/// The writing half, for a task of its own.
pub type BulkWriter = WriteHalf<BulkStream>;

/// A byte stream to a proven peer, encrypted both ways. Shut it down before dropping it, else the other
/// side reads an `UnexpectedEof` and cannot tell the end from a cut.
#[derive(Debug)]
pub struct BulkStream {
    tls: TlsStream<Socket>,
    peer: PeerId,
    remote: SocketAddr,
    _seat: Option<Seat>,
}

impl BulkStream {
    /// Checks what only a finished handshake shows.
    pub(super) fn new(mut tls: TlsStream<Socket>, remote: SocketAddr) -> Result<Self, rustls::Error> {
        let peer = match &mut tls {
            TlsStream::Client(stream) => {
                let connection = stream.get_mut().1;
                connection.set_buffer_limit(Some(WRITE_BUFFER));
                proven_peer(connection)?
            }
            TlsStream::Server(stream) => {
                let connection = stream.get_mut().1;
                connection.set_buffer_limit(Some(WRITE_BUFFER));
                proven_peer(connection)?
            }
        };
        Ok(Self { tls, peer, remote, _seat: None })
    }

    /// Keeps the seat for as long as the connection lives.
    pub(super) fn seated(self, seat: Seat) -> Self {
        Self { _seat: Some(seat), ..self }
    }

    /// The proven id of the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Two halves for two tasks. They share the TLS state behind a lock that each takes for one poll;
    /// the connection closes when both are gone.
    #[must_use]
    pub fn into_split(self) -> (BulkReader, BulkWriter) {
        tokio::io::split(self)
    }
}

/// Readies a fresh TCP connection for TLS.
pub(super) fn socket(tcp: TcpStream) -> io::Result<Socket> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(BufReader::with_capacity(READ_BUFFER, tcp))
}

impl AsyncRead for BulkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for BulkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
