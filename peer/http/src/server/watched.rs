//! A connection whose progress is watched. It ends when its client takes nothing for some time; one that reads slowly but
//! steadily stays. (The system's own limit, `TCP_USER_TIMEOUT`, ends slow readers, too: Linux takes no window that is smaller
//! than its next segment for progress.)

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::server::places::Place;

/// The system takes about so much beyond what is on its way to the client, so that progress shows in small steps: at least
/// every 96 KiB. The client may be slow, but not slower than 3 KiB/s.
const UNSENT: u32 = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    place: Arc<Place>,
    stalled: Duration,
    /// While a write waits: when it has waited too long.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// `stalled`: how long the client may take nothing.
    pub(super) fn new(stream: TcpStream, place: Arc<Place>, stalled: Duration) -> Self {
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT) {
            tracing::debug!(%error, "a client must be faster than the system's buffer is large");
        }
        Self { stream, place, stalled, deadline: None }
    }

    fn judged(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                self.deadline = None;
                if let Ok(bytes) = &written {
                    self.place.sent(*bytes);
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let stalled = self.stalled;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled)));
                deadline.as_mut().poll(context).map(|()| {
                    self.place.give_up();
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))
                })
            }
        }
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
        self.judged(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judged(written, context)
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
