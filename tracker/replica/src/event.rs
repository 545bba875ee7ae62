//! What the driver passes to the replica and gets from it.

use crate::frame::Frame;
use crate::limits;
use crate::row::{BlobHash, Kind, Row, TrackerNo, Uid, WriterId};

/// The time, read once by the driver for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, in milliseconds since the Unix epoch. It may jump.
    pub wall_ms: u64,
    /// A clock that never goes back, in milliseconds since any fixed moment of this process.
    pub mono_ms: u64,
}

/// Who this tracker is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its own number.
    pub me: TrackerNo,
    /// The numbers of all trackers in `tracker_info.txt`, its own included and removed ones excluded.
    pub configured: Vec<TrackerNo>,
    /// 128 random bits, minted at this process's start. It stays the same when a replica is opened again
    /// after a rollback.
    pub writer: WriterId,
    /// Trackers with different values here refuse each other.
    pub cluster: [u8; 16],
    /// Limits on what any one other tracker may cause.
    pub bounds: Bounds,
}

/// Limits on what any one other tracker may cause. The default is for real clusters; simulations use less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rows that its word alone may remove per day, if one in a hundred is less.
    pub small_rows: u64,
    /// Writer ids that it may introduce per day.
    pub writers_per_day: u64,
    /// Bytes that it may cause to be written at once.
    pub bytes_burst: u64,
    /// Bytes that it may cause to be written per second in the long run.
    pub bytes_per_s: u64,
    /// Bytes that it may cause to be written per day.
    pub bytes_per_day: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            small_rows: limits::SMALL_ROWS,
            writers_per_day: limits::WRITERS_PER_DAY,
            bytes_burst: limits::PEER_BYTES_BURST,
            bytes_per_s: limits::PEER_BYTES_PER_S,
            bytes_per_day: limits::PEER_BYTES_PER_DAY,
        }
    }
}

/// Something that happened to the links.
///
/// A link is one ordered, authenticated stream per direction. The driver passes `LinkUp` when both are up and
/// `LinkDown` when either broke. After a newer `LinkUp` it passes no frame of an older connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The link to this tracker is up; its identity has been checked.
    LinkUp {
        /// The tracker at the other end.
        peer: TrackerNo,
    },
    /// The link broke. Ignored when there is none.
    LinkDown {
        /// The tracker at the other end.
        peer: TrackerNo,
    },
    /// A frame arrived. Ignored if there is no link.
    Frame {
        /// Its sender.
        peer: TrackerNo,
        /// The frame.
        frame: Frame,
    },
    /// The time of [`next_timeout`](crate::Replica::next_timeout) has come.
    Tick,
}

/// A row to be written here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// The kind: a claim, or any kind from [`Kind::FIRST_STAYS`] on. Under a kind whose first row stays, an
    /// existing row is left unchanged.
    pub kind: Kind,
    /// Its key.
    pub key: Vec<u8>,
    /// Its content; empty for a tombstone.
    pub value: Vec<u8>,
    /// Whether the key is deleted.
    pub tombstone: bool,
    /// The blobs that it names, with their content. The content may be empty for a blob that is held already.
    pub blobs: Vec<(BlobHash, Vec<u8>)>,
}

/// Identifies one call of `write` in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What the driver has to do once the transaction is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a frame over the link to `to`, in order. Drop it if the link is gone.
    Send {
        /// Its receiver.
        to: TrackerNo,
        /// The frame.
        frame: Frame,
    },
    /// Close the link to `peer`. For the replica it is down already.
    Disconnect {
        /// The tracker at the other end.
        peer: TrackerNo,
        /// The reason.
        reason: Reason,
    },
    /// Raise no link with `peer` for this long. The link is down already.
    Shun {
        /// The tracker to avoid.
        peer: TrackerNo,
        /// Milliseconds.
        ms: u64,
    },
    /// Read nothing from `peer` for this long: it sends more than it may cause to be written.
    Pause {
        /// The tracker to pause.
        peer: TrackerNo,
        /// Milliseconds.
        ms: u64,
    },
    /// Every connected tracker holds this write durably; the client can be answered.
    Acked {
        /// The write.
        write: WriteId,
        /// How many trackers hold it, this one included.
        copies: usize,
    },
    /// Something that must not happen did happen, and an operator should know.
    Alarm(Alarm),
    /// Something that an operator may want to fix.
    Warning(Warning),
}

/// Why a link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing arrived for too long.
    #[error("it stays silent")]
    Silent,
    /// It did not complete its handshake in time.
    #[error("it did not complete the handshake")]
    NoHello,
    /// It did not acknowledge a write in time.
    #[error("it does not acknowledge writes")]
    NoAck,
    /// The sync with it makes no progress.
    #[error("it stopped sending what this tracker lacks")]
    Stalled,
    /// It is not among the configured trackers, or has another number than the link's.
    #[error("it is not the tracker that the link is for")]
    NotConfigured,
    /// It belongs to another cluster.
    #[error("it belongs to another cluster")]
    ForeignCluster,
    /// No version of the protocol in common.
    #[error("it and this tracker have no protocol version in common")]
    Version,
    /// It broke the protocol.
    #[error("it broke the protocol")]
    Malformed,
    /// It knows more writers than a vector may hold.
    #[error("it knows more process starts than can be kept")]
    TooManyWriters,
    /// Its clock and this one differ by more than a row's stamp may be ahead.
    #[error("its clock and this tracker's are days apart; set the wrong one")]
    ClockWrong,
    /// It wrote rows whose time is far ahead.
    #[error("it writes records whose time is far ahead")]
    BadTime,
    /// Rows that were made up about another tracker are taken back. The vector announced to this peer was too
    /// high.
    #[error("records that another tracker made up are taken back; the link starts again")]
    TakenBack,
    /// It was disconnected a short time ago and is tried again later.
    #[error("it was disconnected a short time ago and is let in again soon")]
    Shunned,
}

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Two different votes under one key, or two uids for one decided name: several disks were lost. The
    /// lower stamp stays.
    Conflict {
        /// A vote or a decided name.
        kind: Kind,
        /// Its key.
        key: Vec<u8>,
    },
    /// This tracker and `peer` have equal vectors and different rows. A repair has begun.
    Diverged {
        /// The other tracker.
        peer: TrackerNo,
    },
    /// A blob did not have the content that its hash promises.
    BadBlob {
        /// Its sender.
        peer: TrackerNo,
        /// Its hash.
        hash: BlobHash,
    },
    /// A peer sent rows that do not prove themselves, and they were not taken. Raised at most once a minute
    /// per peer.
    Refused {
        /// Their sender.
        peer: TrackerNo,
        /// The kind of the last such row.
        kind: Kind,
        /// Its key.
        key: Vec<u8>,
        /// How many this peer has sent since this process began.
        refused: u64,
    },
    /// The vector holds as many writers as it may. Rows of a further process start cannot be taken.
    TooManyWriters,
    /// The peer's clock and this one differ by so much that the two are not linked. One of them has to be
    /// set.
    ClockWrong {
        /// The peer.
        peer: TrackerNo,
        /// By how many milliseconds it is ahead of this one.
        ahead_ms: i64,
    },
    /// The peer sent a row whose time is far ahead, and it was not taken.
    BadTime {
        /// The peer.
        peer: TrackerNo,
        /// The row's time, in milliseconds since the Unix epoch.
        ms: u64,
    },
    /// The peer said that this tracker wrote rows that it did not write. This was not believed.
    FalseAttribution {
        /// The peer.
        peer: TrackerNo,
    },
    /// A full sync with the peer would have removed rows that others hold, or more than one tracker's word
    /// may. Nothing was removed, and an operator has to decide.
    RemovalHeld {
        /// The peer.
        peer: TrackerNo,
        /// How many rows would have been removed.
        rows: u64,
    },
    /// The peer requires a full sync and does not serve it.
    NoFullSync {
        /// The peer.
        peer: TrackerNo,
    },
    /// The peer sends more than clients can have written. It is read from slowly.
    Flood {
        /// The peer.
        peer: TrackerNo,
    },
    /// The peer introduces more new writer ids than honest trackers mint. The excess is not taken now.
    ManyNewWriters {
        /// The peer.
        peer: TrackerNo,
    },
}

impl Alarm {
    /// For an operator: what happened and what to do.
    pub fn text(&self) -> String {
        match self {
            Self::ClockWrong { peer, ahead_ms } => format!(
                "the clocks of tracker {peer} and of this one are {} hours apart, and they are not linked; set the wrong one",
                ahead_ms.unsigned_abs() / 3_600_000
            ),
            Self::BadTime { peer, ms } => format!(
                "tracker {peer} sent records with an impossible time ({ms} ms since 1970), which were not taken; check its \
                 clock, and type restamp at its prompt if that was wrong"
            ),
            Self::FalseAttribution { peer } => format!(
                "tracker {peer} says that this tracker wrote what it did not write; check whether that one, or one that it \
                 synced with, was tampered with"
            ),
            Self::RemovalHeld { peer, rows } => format!(
                "{rows} records would have been removed here by a full sync with tracker {peer}; nothing was removed. If this tracker \
                 was restored from an old backup, type allow-removal {peer}; if not, tracker {peer} may have been \
                 tampered with"
            ),
            Self::NoFullSync { peer } => {
                format!("tracker {peer} requires a full sync and does not serve it; see its log")
            }
            Self::Flood { peer } => format!(
                "tracker {peer} sends more records than clients can have written; it is read from slowly; check whether it was \
                 tampered with, and watch the disk"
            ),
            Self::ManyNewWriters { peer } => format!(
                "tracker {peer} introduces more new writer ids than trackers mint by starting; the excess is not taken \
                 now; check whether some tracker restarts all the time, or was tampered with"
            ),
            other => format!("{other:?}"),
        }
    }
}

/// Something that an operator may want to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The wall clocks differ.
    ClockSkew {
        /// The peer.
        peer: TrackerNo,
        /// By how many milliseconds the peer's clock is ahead.
        ahead_ms: i64,
    },
    /// No connected tracker has this blob, which a row names: a store was damaged.
    BlobUnavailable {
        /// Its hash.
        hash: BlobHash,
    },
    /// The peer has dropped tombstones that were not known here: a full sync with it begins.
    FullSync {
        /// The peer.
        peer: TrackerNo,
    },
    /// Another tracker made up rows of this peer, and they were believed until now.
    TakenBack {
        /// The peer.
        peer: TrackerNo,
    },
    /// All rows were read, and those with an impossible time were given the present one.
    Restamped {
        /// How many.
        rows: u64,
    },
}

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The storage failed.
    #[error("the storage failed")]
    Store(#[source] E),
    /// The configuration contradicts itself.
    #[error("tracker {me} is not among the configured trackers, or there are too many")]
    Config {
        /// Its number.
        me: TrackerNo,
    },
    /// The storage is another tracker's.
    #[error("this is the data of tracker {0}")]
    OtherTracker(TrackerNo),
    /// What the replica stores beside the rows cannot be read: the storage is corrupt.
    #[error("the storage is corrupt: {0} cannot be read")]
    Corrupt(&'static str),
}

/// Why a write failed. After `Refused` nothing has changed; after `Store` the transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The write itself is invalid, or too many are waiting.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage failed.
    #[error("the storage failed")]
    Store(#[source] E),
}

/// Why a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key, a value, a blob or the whole write exceeds its limit, or the write is empty.
    #[error("the write is over a limit")]
    TooLarge,
    /// A vote, a decided name, or a name's key that cannot be parsed; a deletion where the first row stays,
    /// or with content.
    #[error("such a row cannot be written")]
    Invalid,
    /// A blob's content does not have its hash, or is neither given nor held.
    #[error("a blob's content is missing or not what its hash says")]
    Blob,
    /// Too many writes wait for their acknowledgement.
    #[error("too many writes are waiting")]
    Busy,
}

/// Who holds a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The holder's uid.
    pub uid: Uid,
    /// Whether a majority decided it, so that nobody can displace the holder.
    pub definite: bool,
    /// The holder's claim. `None` if the claim itself has not arrived yet; the name is taken nevertheless.
    pub claim: Option<Row>,
}

/// The state of another tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub no: TrackerNo,
    /// Whether the link is up and both have completed the handshake.
    pub connected: bool,
    /// Whether both hold the same, with nothing missing here.
    pub in_sync: bool,
    /// How many row numbers held here it still lacks, as far as is known.
    pub lag_rows: u64,
    /// How many row numbers held there are still missing here.
    pub behind_rows: u64,
    /// Milliseconds since its last frame, while the link is up.
    pub silent_ms: Option<u64>,
    /// Whether a sync with it was completed since this process began. This tracker does not vote on names
    /// until that is true for every other tracker.
    pub synced_since_start: bool,
    /// Whether writes wait for it. False if it failed to acknowledge lately.
    pub awaited: bool,
    /// How many rows a sync with it would remove here, while that is held.
    pub held_removal: Option<u64>,
}
