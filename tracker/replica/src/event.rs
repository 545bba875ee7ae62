//! What the driver hands in and what it gets back.

use crate::frame::Frame;
use crate::limits;
use crate::row::{BlobHash, Kind, Origin, Row, TrackerNo, Uid};

/// The time, as the driver reads it once for an event.
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
    /// The numbers of all trackers in `tracker_info.txt`, its own among them, removed ones not.
    pub configured: Vec<TrackerNo>,
    /// Minted at this process's start from 128 random bits. It stays when a replica is opened again after a rollback.
    pub origin: Origin,
    /// Trackers with different values here refuse each other.
    pub cluster: [u8; 16],
    /// What any one other tracker may cause.
    pub bounds: Bounds,
}

/// What any one other tracker may cause. The default is for real clusters; simulations take less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rows that its word alone may remove in a day, if one of a hundred is less.
    pub small_rows: u64,
    /// Writer ids that it may bring in a day.
    pub writers_per_day: u64,
    /// Bytes that it may have written at once.
    pub bytes_burst: u64,
    /// Bytes that it may have written per second in the long run.
    pub bytes_per_s: u64,
    /// Bytes that it may have written in a day.
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
/// A link is one ordered, authenticated stream per direction. The driver gives `LinkUp` when both stand, `LinkDown` when
/// either broke, and hands in no frame of an older connection after a newer `LinkUp`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The link to this tracker stands; its identity has been checked.
    LinkUp {
        /// Whom it reaches.
        peer: TrackerNo,
    },
    /// The link broke. Ignored when there is none.
    LinkDown {
        /// Whom it reached.
        peer: TrackerNo,
    },
    /// A frame came. Ignored when there is no link.
    Frame {
        /// From whom.
        peer: TrackerNo,
        /// What.
        frame: Frame,
    },
    /// The time of [`next_timeout`](crate::Replica::next_timeout) has come.
    Tick,
}

/// A row to be written here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// What it is about: a claim, or any kind from [`Kind::FIRST_STAYS`] on. Under a kind whose first row stays, an
    /// existing row is left as it is.
    pub kind: Kind,
    /// Its key.
    pub key: Vec<u8>,
    /// Its content; empty for a tombstone.
    pub value: Vec<u8>,
    /// Whether the key is deleted.
    pub tombstone: bool,
    /// The blobs it names, with their content; the content may be left empty for a blob that is held already.
    pub blobs: Vec<(BlobHash, Vec<u8>)>,
}

/// Names one call of `write` of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What the driver has to do, once the transaction is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a frame over the link to `to`, in order; dropped if the link is gone.
    Send {
        /// To whom.
        to: TrackerNo,
        /// What.
        frame: Frame,
    },
    /// Close the link to `peer`. For the replica it is down already.
    Disconnect {
        /// Whose link.
        peer: TrackerNo,
        /// Why.
        reason: Reason,
    },
    /// Raise no link with `peer` for so many milliseconds. The link is down already.
    Shun {
        /// With whom.
        peer: TrackerNo,
        /// For how long.
        ms: u64,
    },
    /// Read nothing from `peer` for so many milliseconds: it sends more than it may have written.
    Pause {
        /// From whom.
        peer: TrackerNo,
        /// For how long.
        ms: u64,
    },
    /// Every tracker that is connected holds this write durably; the client can be answered.
    Acked {
        /// Which write.
        write: WriteId,
        /// How many trackers hold it, this one included.
        copies: usize,
    },
    /// Something that must not happen did, and an operator should know.
    Alarm(Alarm),
    /// Something an operator may want to mend.
    Warning(Warning),
}

/// Why a link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing came for too long.
    #[error("it stays silent")]
    Silent,
    /// It did not introduce itself in time.
    #[error("it did not introduce itself")]
    NoHello,
    /// It did not acknowledge a write in time.
    #[error("it does not acknowledge writes")]
    NoAck,
    /// The round asked of it does not go on.
    #[error("it stopped sending what this tracker lacks")]
    Stalled,
    /// It is not among the configured trackers, or has another number than the link's.
    #[error("it is not the tracker that the link is for")]
    NotConfigured,
    /// It belongs to another cluster.
    #[error("it belongs to another cluster")]
    ForeignCluster,
    /// No version of the protocol in common.
    #[error("it speaks no version that this tracker speaks")]
    Version,
    /// It broke the protocol.
    #[error("it broke the protocol")]
    Malformed,
    /// It knows more process starts than a vector may hold.
    #[error("it knows more process starts than can be kept")]
    TooManyOrigins,
    /// Its clock and this one differ by more than a row's stamp may be ahead.
    #[error("its clock and this tracker's are days apart; set the wrong one")]
    ClockWrong,
    /// It wrote rows whose time is far ahead.
    #[error("it writes records whose time is far ahead")]
    BadTime,
    /// What was made up about another tracker's rows is taken back; what the peer was told of them was too much.
    #[error("this tracker takes back what it was told of another tracker's records; the link begins anew")]
    TakenBack,
    /// It was disconnected a short time ago and is looked at again later.
    #[error("it was disconnected a short time ago; it is let in again soon")]
    Shunned,
}

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Two different votes under one key, or two uids for one settled name: several disks were lost. The lower stamp stays.
    Conflict {
        /// Vote or settled name.
        kind: Kind,
        /// Its key.
        key: Vec<u8>,
    },
    /// This tracker and `peer` know of the same rows and do not hold the same. It is being repaired.
    Diverged {
        /// With whom.
        peer: TrackerNo,
    },
    /// A blob did not have the content that its hash promises.
    BadBlob {
        /// From whom.
        peer: TrackerNo,
        /// Which.
        hash: BlobHash,
    },
    /// A peer sent rows that do not prove themselves, and they were not taken. Raised at most once a minute for each peer.
    Refused {
        /// From whom.
        peer: TrackerNo,
        /// The kind of the last of them.
        kind: Kind,
        /// Its key.
        key: Vec<u8>,
        /// How many this peer has sent since this process began.
        refused: u64,
    },
    /// The vector holds as many origins as it may; nothing of a further process start can be taken.
    TooManyOrigins,
    /// The peer's clock and this one differ by so much that the two are not linked: one of them has to be set.
    ClockWrong {
        /// Whose clock.
        peer: TrackerNo,
        /// By how many milliseconds it is ahead of this one.
        ahead_ms: i64,
    },
    /// The peer sent something whose time is far ahead, which was not taken.
    BadTime {
        /// Who.
        peer: TrackerNo,
        /// The time it bears, in milliseconds since the Unix epoch.
        ms: u64,
    },
    /// The peer said that this tracker wrote what it did not write. That was not believed.
    FalseWord {
        /// Who.
        peer: TrackerNo,
    },
    /// Everything was compared with the peer, and it would have removed rows that others hold, or more than one tracker's
    /// word may: nothing was removed, and an operator has to decide.
    RemovalHeld {
        /// With whom.
        peer: TrackerNo,
        /// How many rows would have been removed.
        rows: u64,
    },
    /// The peer says that everything has to be compared with it, and does not let it come to that.
    NoFreshRound {
        /// Who.
        peer: TrackerNo,
    },
    /// The peer sends more than clients can have written; it is read from slowly.
    Flood {
        /// Who.
        peer: TrackerNo,
    },
    /// The peer brings more new writer ids than honest trackers mint; what goes beyond that is not taken now.
    ManyOrigins {
        /// Who.
        peer: TrackerNo,
    },
}

impl Alarm {
    /// In words for an operator: what happened and what to do.
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
            Self::FalseWord { peer } => format!(
                "tracker {peer} says that this tracker wrote what it did not write; check whether that one, or one that it \
                 heard, was tampered with"
            ),
            Self::RemovalHeld { peer, rows } => format!(
                "by the word of tracker {peer}, {rows} records would have been removed here; nothing was. If this tracker \
                 was restored from an old backup, type allow-removal {peer}; if not, tracker {peer} may have been \
                 tampered with"
            ),
            Self::NoFreshRound { peer } => format!(
                "tracker {peer} says that everything has to be compared with it, and does not serve that; see its log"
            ),
            Self::Flood { peer } => format!(
                "tracker {peer} sends more records than clients can have written; it is read from slowly; check whether it was \
                 tampered with, and watch the disk"
            ),
            Self::ManyOrigins { peer } => format!(
                "tracker {peer} brings more new writer ids than trackers mint by starting; the further ones are not taken \
                 now; check whether some tracker restarts all the time, or was tampered with"
            ),
            other => format!("{other:?}"),
        }
    }
}

/// Something an operator may want to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The wall clocks differ; a positive number of milliseconds says that the peer's is ahead.
    ClockSkew {
        /// Whose clock.
        peer: TrackerNo,
        /// By how much.
        ahead_ms: i64,
    },
    /// No connected tracker has this blob, which a row names: a store was damaged.
    BlobUnavailable {
        /// Which.
        hash: BlobHash,
    },
    /// The peer has dropped tombstones that were not known here: everything is compared with it.
    FreshRound {
        /// With whom.
        peer: TrackerNo,
    },
    /// Somebody had said of this peer's rows what is not true, and it was believed until now.
    TakenBack {
        /// Whose rows.
        peer: TrackerNo,
    },
    /// All rows were looked through, and those with a time far ahead were written anew with the present one.
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
    /// What the replica keeps beside the rows cannot be read: the storage is corrupt.
    #[error("the storage is corrupt: {0} cannot be read")]
    Corrupt(&'static str),
}

/// Why a write failed. After `Refused` nothing has changed; after `Store` the transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The write itself is at fault, or there are too many.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The storage failed.
    #[error("the storage failed")]
    Store(#[source] E),
}

/// Why a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A key, a value, a blob or the whole write is over its limit, or the write is empty.
    #[error("the write is over a limit")]
    TooLarge,
    /// Votes, settled names, and names' keys that cannot be parsed; a deletion where the first row stays or with content.
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
    /// Whether a majority says so, so that nobody can displace it.
    pub definite: bool,
    /// Its claim; `None` while the claim itself has not arrived yet, and the name is taken nevertheless.
    pub claim: Option<Row>,
}

/// How things stand with another tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub no: TrackerNo,
    /// Whether the link stands and both have introduced themselves.
    pub connected: bool,
    /// Whether both hold the same, with nothing missing here.
    pub in_sync: bool,
    /// How many row numbers it still lacks of what is held here, as far as is known.
    pub lag_rows: u64,
    /// How many row numbers are still lacking here of what it holds.
    pub behind_rows: u64,
    /// Milliseconds since something came from it, while the link stands.
    pub silent_ms: Option<u64>,
    /// Whether a round from it was complete since this process began. Until one from each other tracker was, this one does
    /// not vote on names.
    pub heard_out: bool,
    /// Whether writes wait for it: not where it failed to acknowledge lately.
    pub awaited: bool,
    /// How many rows would be removed here by its word, while that is held back.
    pub held_removal: Option<u64>,
}
