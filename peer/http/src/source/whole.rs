//! A server that ignores ranges sends the file from its start each time. What is open is read on as long as later parts
//! are asked for, and skipped over; only an earlier part costs a new start.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use reqwest::Response;
use shoal_engine::{PieceBuf, PieceRun};
use tokio::sync::Mutex;

use crate::source::HttpSource;
use crate::source::trouble::{Trouble, next_chunk};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WholeStream {
    ignores_ranges: AtomicBool,
    serves_ranges: AtomicBool,
    /// One reader at a time; others wait for their turn.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    response: Response,
    /// Where in the file the next byte is; bytes that were taken out and lost with a dropped future count.
    position: u64,
    left: Bytes,
}

impl WholeStream {
    /// Whether the server was seen to ignore a range.
    pub(super) fn ignores_ranges(&self) -> bool {
        self.ignores_ranges.load(Ordering::Relaxed)
    }

    /// From now on the whole file is asked for.
    pub(super) fn ignore_ranges(&self) {
        self.ignores_ranges.store(true, Ordering::Relaxed);
    }

    /// A range was served.
    pub(super) fn saw_range(&self) {
        self.serves_ranges.store(true, Ordering::Relaxed);
    }

    /// Whether the server was ever seen to serve a range.
    pub(super) fn serves_ranges(&self) -> bool {
        self.serves_ranges.load(Ordering::Relaxed)
    }

    /// Goes on with an answer that turned out to be the whole file, of `size` bytes.
    pub(super) async fn is_whole(&self, response: Response, size: u64) {
        tracing::debug!(url = %response.url(), size, "ignores ranges");
        self.ignore_ranges();
        let mut open = self.open.lock().await;
        open.get_or_insert(Open { response, position: 0, left: Bytes::new() });
    }

    /// Takes a run out of the stream. Safe to drop.
    pub(super) async fn fetch(
        &self,
        source: &HttpSource,
        want: &PieceRun,
        mut into: PieceBuf,
    ) -> Result<PieceBuf, Trouble> {
        let mut open = self.open.lock().await;
        // What came of the run by other ways is not needed again.
        let next = want.offset() + want.length() - into.remaining();
        if open.as_ref().is_none_or(|open| open.position > next) {
            *open = None;
            let response = source.ask(None, &into).await?.response;
            *open = Some(Open { response, position: 0, left: Bytes::new() });
        }
        let taken = match open.as_mut() {
            Some(stream) => stream.take(source, want, &mut into).await,
            None => Ok(()),
        };
        if taken.is_err() {
            *open = None;
        }
        taken.map(|()| into)
    }
}

impl Open {
    async fn take(
        &mut self,
        source: &HttpSource,
        want: &PieceRun,
        into: &mut PieceBuf,
    ) -> Result<(), Trouble> {
        while into.remaining() > 0 {
            if self.left.is_empty() {
                let Some(chunk) = next_chunk(&mut self.response).await? else {
                    return Err(Trouble::Passing("ended its answer early".into(), None));
                };
                self.left = chunk;
            }
            let next = want.offset() + want.length() - into.remaining();
            let behind = usize::try_from(next.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let skipped = behind.min(self.left.len());
            self.left.advance(skipped);
            self.position += skipped as u64;
            let wanted = usize::try_from(into.remaining()).unwrap_or(usize::MAX).min(self.left.len());
            let bytes = self.left.split_to(wanted);
            self.position += wanted as u64;
            // Where the answer does not say how long it is, its end does: shown before the last bytes count.
            if wanted > 0 && self.position == source.size && self.response.content_length().is_none() {
                self.ends(source).await?;
            }
            if !bytes.is_empty() {
                source.take(&bytes, want, into).await?;
            }
        }
        Ok(())
    }

    /// That nothing follows.
    async fn ends(&mut self, source: &HttpSource) -> Result<(), Trouble> {
        while self.left.is_empty() {
            let Some(chunk) = next_chunk(&mut self.response).await? else { return Ok(()) };
            self.left = chunk;
        }
        source.standing.sent_more();
        Err(Trouble::Invalid(format!("sends more than the {} bytes of the file", source.size)))
    }
}
