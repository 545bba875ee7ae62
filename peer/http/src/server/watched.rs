//! A connection whose progress is watched. The system itself ends it when its client acknowledges nothing for some time:
//! only the system knows what was acknowledged, so a client that reads slowly but steadily stays.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::server::places::Place;

/// The system takes no more bytes than this beyond those on their way: enough for 10 Gbit/s until this program runs again.
const UNSENT: u32 = 128 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    place: Arc<Place>,
}

impl Watched {
    /// `stalled`: how long the client may acknowledge nothing.
    pub(super) fn new(stream: TcpStream, place: Arc<Place>, stalled: Duration) -> Self {
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        let socket = SockRef::from(&stream);
        let set =
            socket.set_tcp_user_timeout(Some(stalled)).and_then(|()| socket.set_tcp_notsent_lowat(UNSENT));
        if let Err(error) = set {
            // The places are still bounded, and the idlest gives way.
            tracing::debug!(%error, "a connection that stalls will not be noticed by the system");
        }
        Self { stream, place }
    }

    fn counted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.place.sent(*bytes);
        }
        written
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.place.gave_way() {
            // Else the system would keep what was not sent, for a client that does not take it.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.counted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.counted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
