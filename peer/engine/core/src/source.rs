//! What the core knows of a source: its name, what it holds, what may be asked of it, and how a request can fail.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::{Bitfield, Layout, PieceIndex};

/// Names a source within one download. The caller chooses it; an id that was banned stays banned for that download, so
/// the id should follow the remote party and not the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

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
    /// One piece per request.
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

/// Consecutive pieces of one content: at least one. In a folder they may be of several files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PieceRun {
    layout: Layout,
    first: PieceIndex,
    count: u32,
}

impl PieceRun {
    /// The run of `count` pieces from `first` on, cut at the file's end; a `count` of 0 is taken as 1.
    #[must_use]
    pub fn new(layout: Layout, first: PieceIndex, count: u32) -> Self {
        let count = count.clamp(1, layout.pieces().saturating_sub(first.get()).max(1));
        Self { layout, first, count }
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
        let run = self.clone();
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
        let last = self.at(self.count - 1).unwrap_or(self.first);
        self.layout.offset(last) + u64::from(self.layout.length(last)) - self.offset()
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
