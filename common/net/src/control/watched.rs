//! A TCP stream that fails when nothing has come from the other side for a while.
//!
//! Both ends of a control connection ping each other, so bytes keep coming on any that lives. This is
//! judged here, on the bytes of the socket, and not by the answers to our own pings: a ping waits
//! behind a long message on a slow link, whose bytes prove the other side alive all the same.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

pub(super) struct Watched {
    tcp: TcpStream,
    patience: Duration,
    heard: Instant,
    /// Fires at or before `heard + patience`, and is put off then: not with every read.
    alarm: Pin<Box<Sleep>>,
}

impl Watched {
    /// `patience` is how long the other side may be silent.
    pub(super) fn new(tcp: TcpStream, patience: Duration) -> Self {
        let heard = Instant::now();
        Self { tcp, patience, heard, alarm: Box::pin(sleep_until(heard + patience)) }
    }

    /// Called whenever the socket has us wait. Bytes that lie unread in the socket, because this task
    /// came late, count as heard.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let deadline = self.heard + self.patience;
            if Instant::now() < deadline {
                self.alarm.as_mut().reset(deadline);
            } else if self.tcp.poll_read_ready(cx).is_ready() {
                self.heard = Instant::now();
            } else {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the other side fell silent"));
            }
        }
        Ok(())
    }

    fn waiting<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            self.check(cx)?;
        }
        polled
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut buffer);
        ready!(self.waiting(cx, polled))?;
        self.heard = Instant::now();
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.waiting(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.waiting(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tcp).poll_shutdown(cx);
        self.waiting(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(4);

    async fn pair() -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Watched::new(near, PATIENCE), listener.accept().await.unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_error_after_the_patience() {
        let (mut near, _far) = pair().await;
        let started = Instant::now();
        let error = near.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..PATIENCE * 2).contains(&started.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_end_that_takes_nothing_and_says_nothing_is_noticed_while_writing() {
        let (mut near, _far) = pair().await;
        let error = near.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_wait_in_the_socket_count() {
        let (mut near, far) = pair().await;
        far.writable().await.unwrap();
        assert_eq!(far.try_write(b"x").unwrap(), 1);
        near.tcp.readable().await.unwrap();
        tokio::time::advance(PATIENCE * 3).await;
        let mut buffer = [0; 8];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 1);
        assert_eq!(near.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
