//! What goes into the core and what comes out of it.

use std::sync::Arc;
use std::time::Instant;

use shoal_common::{Bitfield, PieceIndex};

use crate::source::{Have, Limits, PieceRun, SourceError, SourceId};

/// Names a request within one download; later requests have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each event's doc says what its fields are")]
pub enum Event {
    /// A source came; under an id in use it takes the old one's place.
    SourceAdded { source: SourceId, limits: Limits, have: Have },
    /// The caller took a source away.
    SourceRemoved { source: SourceId },
    /// A source holds other pieces than before.
    HaveChanged { source: SourceId, have: Have },
    /// Whether the caller knows of another downloader of the file.
    OthersDownloading(bool),
    /// Bytes that may be in flight beyond one piece per source.
    Budget(u64),
    /// The download's share of the rate limit, in bytes per second.
    RateLimit(Option<u64>),
    /// Bytes of a request came, `received` in all; or this side holds the request up.
    Progress { request: RequestId, received: u64, first_byte: Option<Instant>, held_up: bool },
    /// All bytes of a piece came.
    Arrived { request: RequestId, piece: PieceIndex, first_byte: Option<Instant> },
    /// The source ended the request.
    Finished { request: RequestId, result: Result<(), SourceError> },
    /// A piece that arrived is right.
    Verified(PieceIndex),
    /// A piece that arrived is wrong.
    Rejected(PieceIndex),
    /// A verified piece is in the partial file.
    Written(PieceIndex),
    /// A written piece turned out to be wrong on the disk.
    Lost(PieceIndex),
    /// Only these pieces are to be fetched from now on; before the first such event it is all.
    Chosen(Arc<Bitfield>),
    /// Time passed; at least a few times per second while [`crate::DownloadCore::is_busy`].
    Tick,
}

/// What the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each command's doc says what its fields are")]
pub enum Command {
    /// Ask the source for these pieces.
    Fetch { request: RequestId, source: SourceId, run: PieceRun },
    /// Give the request up.
    Cancel { request: RequestId },
    /// Check the bytes that just arrived and write them if they are right. Without this command after
    /// [`Event::Arrived`], they are thrown away.
    Check { piece: PieceIndex },
    /// Forget the source.
    Drop { source: SourceId, reason: DropReason },
}

/// Why a source is not used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// It went away.
    Gone(String),
    /// It lied or broke the protocol.
    Banned(String),
    /// The caller said so.
    Removed,
}

/// What a source is doing, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceStatus {
    /// Requests in flight.
    pub requests: usize,
    /// Pieces that it holds.
    pub holds: u32,
    /// Whether it is not asked for a while.
    pub backing_off: bool,
    /// Whether it was silent for too long, and has sent nothing since.
    pub silent: bool,
}
