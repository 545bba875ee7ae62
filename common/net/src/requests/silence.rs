//! Distinguishes another side that is silent from us being too busy to listen: only time in which the network had nothing
//! for us counts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::time::Instant;

/// Since when the network has had nothing for us; `None` while it has, or while nothing is read.
#[derive(Debug, Clone, Default)]
pub struct Silence {
    since: Arc<Mutex<Option<Instant>>>,
}

impl Silence {
    /// For how long nothing has come.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn note(&self, nothing: bool) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match (*since, nothing) {
            (None, true) => *since = Some(Instant::now()),
            (Some(_), false) => *since = None,
            _ => {}
        }
    }
}

/// A reader that notes the silence of the other side.
#[derive(Debug)]
pub struct Listening<R> {
    input: R,
    silence: Silence,
}

impl<R> Listening<R> {
    /// Reads from `input`, and notes in `silence` while nothing comes.
    #[must_use]
    pub fn new(input: R, silence: Silence) -> Self {
        Self { input, silence }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Listening<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.input).poll_read(context, buffer);
        self.silence.note(polled.is_pending());
        polled
    }
}

impl<R: AsyncBufRead + Unpin> AsyncBufRead for Listening<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { input, silence } = self.get_mut();
        let polled = Pin::new(input).poll_fill_buf(context);
        silence.note(polled.is_pending());
        polled
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        Pin::new(&mut self.input).consume(count);
    }
}
