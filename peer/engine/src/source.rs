//! Where pieces come from: the one interface that peers, storage nodes and HTTP servers implement. A source only delivers
//! bytes and reports what went wrong. What follows from that is the core's decision.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use shoal_engine_core::{Have, Limits, PieceRun, SourceError, SourceId};

use crate::buffer::PieceBuf;

/// Supplies pieces of one file. The conformance suite says what is expected of every implementation.
///
/// ```
/// use std::sync::Arc;
///
/// use shoal_engine::{Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
/// use tokio::sync::watch;
///
/// /// A copy of the file in memory.
/// struct InMemory(Arc<[u8]>);
///
/// impl PieceSource for InMemory {
///     fn limits(&self) -> Limits {
///         Limits { max_in_flight: 2, min_in_flight: 1, max_in_flight_bytes: 1 << 20, run: Run::UpTo(16) }
///     }
///
///     fn have(&self) -> watch::Receiver<Have> {
///         watch::channel(Have::All).1 // The sender is dropped: it holds all pieces for good.
///     }
///
///     async fn fetch(&self, want: PieceRun, mut into: PieceBuf) -> Result<PieceBuf, SourceError> {
///         let range = want.offset() as usize..(want.offset() + want.length()) as usize;
///         let bytes = self.0.get(range).ok_or_else(|| SourceError::Gone("the copy is too short".into()))?;
///         into.append(bytes).await?;
///         Ok(into)
///     }
/// }
/// ```
pub trait PieceSource: Send + Sync + 'static {
    /// What may be asked of the source at once. Read once, when the source is added.
    fn limits(&self) -> Limits;

    /// The pieces that the source holds now. A closed channel means that this will not change any more.
    fn have(&self) -> watch::Receiver<Have>;

    /// Fetches the pieces of `want` in file order into `into` and gives the buffer back once all their bytes are in it.
    /// Dropping the future cancels the request. Bytes need not be right, the engine checks them, but a source must not
    /// hand over bytes that were asked for by another request.
    ///
    /// # Errors
    /// See [`SourceError`]; pieces that were complete before the error still count.
    fn fetch(
        &self,
        want: PieceRun,
        into: PieceBuf,
    ) -> impl Future<Output = Result<PieceBuf, SourceError>> + Send;
}

/// Any [`PieceSource`], so that one download can mix kinds. Cheap to clone.
#[derive(Clone)]
pub struct AnySource(pub(crate) Arc<dyn Erased>);

impl AnySource {
    /// Wraps a source.
    #[must_use]
    pub fn new(source: impl PieceSource) -> Self {
        Self(Arc::new(source))
    }
}

impl std::fmt::Debug for AnySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnySource")
    }
}

/// A change to a running download's set of sources.
#[derive(Debug)]
pub enum SourceChange {
    /// A new source. It replaces the one with the same id; a banned id is ignored.
    Add(SourceId, AnySource),
    /// A source is not to be used any more; its requests go to others.
    Remove(SourceId),
    /// Whether another downloader of the file is known, as a source or not. If so, pieces come in random order, else in file
    /// order. A source that holds a part of the file counts by itself.
    OthersDownloading(bool),
}

/// [`PieceSource`] with its future boxed; one allocation per request.
pub(crate) trait Erased: Send + Sync {
    fn limits(&self) -> Limits;
    fn have(&self) -> watch::Receiver<Have>;
    fn fetch(&self, want: PieceRun, into: PieceBuf) -> BoxFuture<'_, Result<PieceBuf, SourceError>>;
}

impl<S: PieceSource> Erased for S {
    fn limits(&self) -> Limits {
        PieceSource::limits(self)
    }

    fn have(&self) -> watch::Receiver<Have> {
        PieceSource::have(self)
    }

    fn fetch(&self, want: PieceRun, into: PieceBuf) -> BoxFuture<'_, Result<PieceBuf, SourceError>> {
        Box::pin(PieceSource::fetch(self, want, into))
    }
}
