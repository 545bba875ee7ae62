//! What a download reports about itself while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_common::Digests;

use crate::chosen::Chosen;
use crate::disk::DiskError;
use crate::shortage::Shortage;
use shoal_engine_core::SourceId;

/// Dropped sources that [`Progress::rows`] still shows; the one dropped first goes first. A caller with no more sources than
/// this learns of each that was dropped.
pub const SHOWN_DROPPED: usize = 128;

/// A snapshot of a running download, updated a few times per second.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// What keeps it from being faster.
    pub limit: Bottleneck,
    /// Bytes that are to be fetched in all: the size of the file, or of the chosen files of a folder.
    pub total: u64,
    /// Of those, bytes of pieces that are verified and written, those of earlier runs included.
    pub verified_bytes: u64,
    /// Bytes that sources delivered in this run, whatever became of them.
    pub fetched_bytes: u64,
    /// Of those, bytes thrown away: bad pieces, second copies, requests cut off.
    pub wasted_bytes: u64,
    /// Bytes that the whole file's digest has covered.
    pub digested_bytes: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Pieces that are missing and that no source holds.
    pub unheld: u32,
    /// How long nothing has come while there was something to fetch.
    pub quiet: Duration,
    /// How long it has had nothing to fetch.
    pub idle: Duration,
    /// Time left at that rate; `None` while nothing moves.
    pub eta: Option<Duration>,
    /// Sources that hold anything of the file and are not dropped.
    pub sources: usize,
    /// One row per source, those dropped last included.
    pub rows: Arc<[SourceRow]>,
    /// Of a folder, how many of its files are there.
    pub files: Option<FilesProgress>,
}

/// How many files of a folder are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesProgress {
    /// Which ones are to be fetched.
    pub which: Chosen,
    /// Chosen files that are right and have their names.
    pub done: usize,
    /// Files that are to be fetched.
    pub chosen: usize,
    /// Files in the folder.
    pub all: usize,
}

/// What a download is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Preparing the partial file, rehashing what an interrupted run left in doubt.
    #[default]
    Opening,
    /// No source has anything that is still missing.
    Waiting,
    /// Fetching pieces.
    Downloading,
    /// All pieces are there; reading what the whole file's digest does not cover yet.
    Checking,
    /// Making the file durable and putting it in its place.
    Finishing,
    /// Over; see [`Outcome`].
    Ended,
}

/// What keeps a download from being faster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Bottleneck {
    /// Nothing to fetch from: no source, or none that has what is missing.
    NoSource,
    /// All sources asked for patience.
    SourcesBusy,
    /// What the sources and the network deliver.
    Sources,
    /// The download rate limit.
    RateLimit,
    /// Checking and writing.
    Disk,
    /// It is not fetching.
    #[default]
    Idle,
}

/// One source, for a detailed view.
#[derive(Debug, Clone)]
pub struct SourceRow {
    /// The source.
    pub id: SourceId,
    /// What it is doing.
    pub state: SourceState,
    /// Bytes that it delivered.
    pub fetched_bytes: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Requests in flight.
    pub requests: usize,
    /// Pieces of the file that it holds.
    pub holds: u32,
    /// Whether it was silent for too long, and has sent nothing since.
    pub silent: bool,
    /// Whether it asked for patience, for some pieces at least.
    pub patient: bool,
}

impl SourceRow {
    /// Whether anything can come from it: it is there and holds something.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.holds > 0 && !matches!(self.state, SourceState::Gone(_) | SourceState::Banned(_))
    }
}

/// What a source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Delivering, or asked to.
    Active,
    /// It has nothing that is still missing and not asked for elsewhere.
    Idle,
    /// It asked for patience, or was silent for too long.
    BackingOff,
    /// It is gone, and why; it may come back.
    Gone(String),
    /// It lied or broke the protocol, and how; it is not used again.
    Banned(String),
}

/// How a download ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The file is whole, checked, durable and in its place.
    Complete {
        /// The final path.
        path: PathBuf,
        /// What the whole file was checked by.
        digest: Box<Digests>,
    },
    /// It cannot go on by itself. What was verified is kept, so that it can be started again.
    Failed(DownloadError),
    /// It was paused; what was verified is kept.
    Paused,
    /// It was cancelled; nothing is left of it.
    Cancelled,
}

/// Why a download cannot go on by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DownloadError {
    /// The disk did not do what it must; the message says what to do.
    #[error(transparent)]
    Disk(#[from] Arc<DiskError>),
    /// No source is left, and no other will come.
    #[error("no source is left; {missing} bytes are missing and can be fetched when one is back")]
    NoSources {
        /// Bytes that are still missing.
        missing: u64,
    },
    /// Every piece is what the piece list says, but the whole file is not what its digest says: the metadata
    /// contradicts itself, so that no source can help.
    #[error(
        "every piece is right but the whole file is not {expected}: its description is wrong; have it shared again"
    )]
    Digest {
        /// What was announced.
        expected: Box<Digests>,
    },
    /// Every piece is what the piece list says, but a file of a folder is not what the listing says.
    #[error(
        "every piece of {path} is right but the file is not: the folder's listing is wrong; have it shared again"
    )]
    ListedDigest {
        /// The file, within the folder.
        path: String,
    },
    /// The whole file is not what its digest says, and there are no piece digests to find the wrong part by.
    #[error(
        "the file came with {got} where {expected} was expected: a source sent wrong bytes, and without piece digests \
         there is no way to tell which; start again from other sources"
    )]
    WrongWhole {
        /// What was announced.
        expected: Box<Digests>,
        /// What was computed.
        got: Box<Digests>,
    },
    /// The engine's own task died: a defect, reported instead of hidden.
    #[error("the download stopped unexpectedly; start it again, what was verified is kept")]
    Stopped,
}

impl DownloadError {
    /// What is lacking, if the download can go on by itself when that has passed; it is started again then.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        if let Self::Disk(error) = self { error.shortage() } else { None }
    }
}
