//! Where pieces come from: the one interface that a peer, a storage node and an HTTP server implement alike.
//! A source only carries bytes and reports what went wrong; what follows from that is the core's decision.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use shoal_common::{Bitfield, Layout, PieceIndex};
use tokio::sync::watch;

use crate::buffer::{BufferError, PieceBuf};

/// Names a source within one download. The caller chooses it; an id that was banned stays banned for that download, so
/// the id should follow the remote party and not the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

/// Supplies pieces of one file. The conformance suite says what is expected of every implementation.
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

/// What may be asked of one source at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight at most; 0 is taken as 1.
    pub max_in_flight: usize,
    /// Requests in flight at least, as far as there is something to ask for; 0 is taken as 1. Usually one is enough, and
    /// more follow from rate and answering time; but where each connection has a rate of its own, what one brings says
    /// nothing of what more would.
    pub min_in_flight: usize,
    /// Bytes in flight at most, all requests together; one request is always allowed.
    pub max_in_flight_bytes: u64,
    /// How many pieces one request may span.
    pub run: Run,
}

/// How many pieces one request may span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// One piece a request.
    Single,
    /// That many consecutive pieces at most; 0 is taken as 1.
    UpTo(u32),
}

/// The pieces that a source holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// The whole file.
    All,
    /// These.
    Bits(Arc<Bitfield>),
}

/// Consecutive pieces of one file: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceRun {
    layout: Layout,
    first: PieceIndex,
    count: u32,
}

impl PieceRun {
    /// The run of `count` pieces from `first` on, cut at the file's end; a `count` of 0 is taken as 1.
    #[must_use]
    pub fn new(layout: Layout, first: PieceIndex, count: u32) -> Self {
        Self { layout, first, count: count.clamp(1, layout.pieces().saturating_sub(first.get()).max(1)) }
    }

    /// The first piece.
    #[must_use]
    pub fn first(&self) -> PieceIndex {
        self.first
    }

    /// How many pieces there are, from 1 on.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The layout of the file that the pieces belong to.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The piece at that position of the run, counted from 0.
    #[must_use]
    pub fn at(&self, position: u32) -> Option<PieceIndex> {
        if position < self.count {
            self.layout.piece(self.first.get().saturating_add(position))
        } else {
            None
        }
    }

    /// The pieces in file order.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        let run = *self;
        (0..self.count).filter_map(move |position| run.at(position))
    }

    /// Where the run begins, in bytes from the file's start.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.layout.offset(self.first)
    }

    /// The length of the run in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        let whole = u64::from(self.count) * u64::from(self.layout.piece_length());
        whole.min(self.layout.size() - self.offset())
    }
}

/// Why a fetch gave no whole run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source will not serve this piece now; other pieces may be asked for at once.
    #[error("not now")]
    NotNow {
        /// The piece.
        piece: PieceIndex,
        /// When it may be asked for again.
        after: Duration,
        /// A piece that the source would rather serve.
        instead: Option<PieceIndex>,
    },
    /// The source serves nothing until that much time has passed.
    #[error("busy for {0:?}")]
    Busy(Duration),
    /// The source is not there any more, and why.
    #[error("gone: {0}")]
    Gone(String),
    /// The source broke the protocol, and how.
    #[error("broke the protocol: {0}")]
    Invalid(String),
}

impl From<BufferError> for SourceError {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::TooLong => Self::Invalid("sent more bytes than were asked for".into()),
            BufferError::Closed => Self::Gone("the request was cancelled".into()),
        }
    }
}

/// Any [`PieceSource`], so that one download can mix kinds. Cheap to clone.
#[derive(Clone)]
pub struct AnySource(Arc<dyn Erased>);

impl AnySource {
    /// Wraps a source.
    #[must_use]
    pub fn new(source: impl PieceSource) -> Self {
        Self(Arc::new(source))
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits()
    }

    pub(crate) fn have(&self) -> watch::Receiver<Have> {
        self.0.have()
    }

    pub(crate) async fn fetch(&self, want: PieceRun, into: PieceBuf) -> Result<PieceBuf, SourceError> {
        self.0.fetch(want, into).await
    }
}

impl std::fmt::Debug for AnySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnySource")
    }
}

/// What happens to a running download's set of sources.
#[derive(Debug)]
pub enum SourceChange {
    /// A source came. An id in use is replaced, a banned one ignored.
    Add(SourceId, AnySource),
    /// A source is not to be used any more; its requests go to others.
    Remove(SourceId),
    /// Whether another downloader of the file is known, as a source or not. It decides between random and file order;
    /// a source that holds a part of the file counts by itself.
    OthersDownloading(bool),
}

/// [`PieceSource`] with its future boxed; one allocation a request.
trait Erased: Send + Sync {
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
