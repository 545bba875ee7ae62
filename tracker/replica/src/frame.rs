//! The messages between trackers and their bounded encoding: CBOR by index, so that a later version can add
//! fields and frames that this one skips.

use minicbor::{Decode, Decoder, Encode};

use crate::limits::{
    BLOB_CHUNK_BYTES, BUCKETS, MAX_ACKS_PER_FRAME, MAX_BLOB_BYTES, MAX_BLOBS_PER_ROW, MAX_FRAME_BYTES,
    MAX_KEY_BYTES, MAX_ROWS_PER_FRAME, MAX_SYNC_CREDIT, MAX_VALUE_BYTES, VECTOR_ENTRIES_PER_FRAME,
};
use crate::names;
use crate::row::{BlobHash, Row, Rule, Stamp, TrackerNo, WriterId, is_valid_seq};

/// The protocol version of this program.
pub(crate) const VERSION: u16 = 1;
/// The oldest version that this program understands.
pub(crate) const MIN_VERSION: u16 = 1;

/// One message between two trackers. A link begins with `Hello`, the vector and the GC watermark in parts,
/// and `Ready`.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Frame {
    /// The sender's identity.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// The entries by which the sender's vector has risen since it was last announced on this link.
    #[n(1)]
    Vector(#[n(0)] Vec<Entry>),
    /// The sender's GC watermark: tombstones up to it may be missing there. Sent again when it has risen.
    #[n(2)]
    GcWatermark {
        /// The entries.
        #[n(0)]
        entries: Vec<Entry>,
        /// No dropped tombstone has a later stamp.
        #[n(1)]
        dropped: Stamp,
    },
    /// The handshake is complete.
    #[n(3)]
    Ready,
    /// Asks for a sync.
    #[n(4)]
    Pull(#[n(0)] Pull),
    /// Rows of the sync.
    #[n(5)]
    Rows {
        /// The puller's id of the sync.
        #[n(0)]
        sync_id: u64,
        /// The rows.
        #[n(1)]
        rows: Vec<Row>,
    },
    /// Credit: the puller has stored this many frames of rows and takes as many more.
    #[n(6)]
    More {
        /// The puller's id of the sync.
        #[n(0)]
        sync_id: u64,
        /// The number of frames.
        #[n(1)]
        frames: u32,
    },
    /// The sync is complete up to the sender's vector as announced on this link.
    #[n(7)]
    End {
        /// The puller's id of the sync.
        #[n(0)]
        sync_id: u64,
    },
    /// The sync cannot be served now.
    #[n(8)]
    Busy {
        /// The puller's id of the sync.
        #[n(0)]
        sync_id: u64,
    },
    /// One transaction of the sender, just committed.
    #[n(9)]
    Live(#[n(0)] Live),
    /// LIVE transactions are durable here.
    #[n(10)]
    Ack {
        /// Their ids.
        #[n(0)]
        ids: Vec<u64>,
        /// The number up to which all rows of the receiver are held.
        #[n(1)]
        held: u64,
    },
    /// Shows that the sender is alive.
    #[n(11)]
    Ping,
    /// Digest of all of the sender's rows, at its vector as announced on this link.
    #[n(12)]
    Digest {
        /// The wrapping sum of all bucket sums, little endian.
        #[cbor(n(0), with = "minicbor::bytes")]
        root: [u8; 16],
    },
    /// Requests a chunk of a blob.
    #[n(13)]
    Want {
        /// The blob's hash.
        #[n(0)]
        hash: BlobHash,
        /// The chunk's offset in bytes.
        #[n(1)]
        offset: u64,
    },
    /// A chunk of a blob.
    #[n(14)]
    Chunk(#[n(0)] Chunk),
    /// A requested blob is not held.
    #[n(15)]
    Gone {
        /// The blob's hash.
        #[n(0)]
        hash: BlobHash,
    },
    /// A frame of a later version. It is ignored.
    #[n(16)]
    Unknown,
}

/// The sender's identity.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// The version that it speaks.
    #[n(0)]
    pub version: u16,
    /// The oldest version that it understands.
    #[n(1)]
    pub min_version: u16,
    /// Its cluster.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub cluster: [u8; 16],
    /// Its number.
    #[n(3)]
    pub no: TrackerNo,
    /// Its writer id since this process start.
    #[n(4)]
    pub writer: WriterId,
    /// Its wall clock, in milliseconds since the Unix epoch.
    #[n(5)]
    pub wall_ms: u64,
}

/// One entry of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The writer.
    #[n(0)]
    pub writer: WriterId,
    /// The number up to which its rows are held.
    #[n(1)]
    pub seq: u64,
}

/// Asks for a sync.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Pull {
    /// The puller's id of the sync.
    #[n(0)]
    pub sync_id: u64,
    /// The initial credit: how many frames of rows the puller takes at once.
    #[n(1)]
    pub credit: u32,
    /// Whether all rows are wanted, not only those above the puller's vector.
    #[n(2)]
    pub full: bool,
    /// The puller's bucket sums (little endian). If present, the rows of the buckets that differ are sent
    /// instead.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sums: Option<Vec<u8>>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Live {
    /// The sender's id of the transaction on this link.
    #[n(0)]
    pub id: u64,
    /// The sender's last row number before it.
    #[n(1)]
    pub from: u64,
    /// The sender's last row number in it.
    #[n(2)]
    pub to: u64,
    /// Its rows.
    #[n(3)]
    pub rows: Vec<Row>,
}

/// A chunk of a blob.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Chunk {
    /// The blob's hash.
    #[n(0)]
    pub hash: BlobHash,
    /// The chunk's offset in bytes.
    #[n(1)]
    pub offset: u64,
    /// The blob's length in bytes.
    #[n(2)]
    pub total: u64,
    /// The bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// Why bytes are not a frame. The driver should disconnect their sender.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// Not the encoding of a frame.
    #[error("malformed frame")]
    Malformed(#[source] minicbor::decode::Error),
    /// A number in it exceeds its limit.
    #[error("a frame breaks a limit")]
    OverLimit,
}

impl Frame {
    /// The encoding, at most [`MAX_FRAME_BYTES`] for every frame that a replica returns.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.weight());
        minicbor::encode(self, &mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// Reads a frame and checks every limit. Trailing bytes are ignored. Allocates no more than the input's
    /// length justifies.
    ///
    /// # Errors
    /// If the bytes are not a frame, or are one that no correct tracker sends.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(bytes.len()));
        }
        if variant_of(bytes).map_err(FrameError::Malformed)? >= UNKNOWN {
            return Ok(Self::Unknown);
        }
        let frame: Self = minicbor::decode(bytes).map_err(FrameError::Malformed)?;
        if frame.is_within_limits() { Ok(frame) } else { Err(FrameError::OverLimit) }
    }

    /// An upper estimate of the encoding's length, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Rows { rows, .. } | Self::Live(Live { rows, .. }) => {
                32 + rows.iter().map(Row::weight).sum::<usize>()
            }
            Self::Vector(entries) | Self::GcWatermark { entries, .. } => 32 + 28 * entries.len(),
            Self::Ack { ids, .. } => 24 + 9 * ids.len(),
            Self::Chunk(chunk) => 80 + chunk.data.len(),
            Self::Pull(pull) => 40 + pull.sums.as_ref().map_or(0, Vec::len),
            _ => 96,
        }
    }

    /// The puller's id of the anti-entropy sync that the frame belongs to, if any.
    pub fn sync_id(&self) -> Option<u64> {
        match self {
            Self::Pull(Pull { sync_id, .. })
            | Self::Rows { sync_id, .. }
            | Self::More { sync_id, .. }
            | Self::End { sync_id }
            | Self::Busy { sync_id } => Some(*sync_id),
            _ => None,
        }
    }

    fn is_within_limits(&self) -> bool {
        let rows_fit = |rows: &[Row]| rows.len() <= MAX_ROWS_PER_FRAME && rows.iter().all(is_valid_row);
        match self {
            Self::GcWatermark { dropped, .. } if *dropped > Stamp::MAX => false,
            Self::Vector(entries) | Self::GcWatermark { entries, .. } => {
                entries.len() <= VECTOR_ENTRIES_PER_FRAME
                    && entries.iter().all(|entry| is_valid_seq(entry.seq))
            }
            Self::Pull(pull) => {
                pull.credit <= MAX_SYNC_CREDIT
                    && pull.sums.as_ref().is_none_or(|sums| sums.len() == BUCKETS * 16)
            }
            Self::Rows { rows, .. } => rows_fit(rows),
            Self::More { frames, .. } => *frames <= MAX_SYNC_CREDIT,
            Self::Live(live) => rows_fit(&live.rows) && live.from <= live.to && is_valid_seq(live.to),
            Self::Ack { ids, held } => ids.len() <= MAX_ACKS_PER_FRAME && is_valid_seq(*held),
            Self::Chunk(chunk) => {
                let end = chunk.offset.saturating_add(chunk.data.len() as u64);
                chunk.total <= MAX_BLOB_BYTES as u64
                    && chunk.data.len() <= BLOB_CHUNK_BYTES
                    && end <= chunk.total
            }
            _ => true,
        }
    }
}

const UNKNOWN: u32 = 16;

fn variant_of(bytes: &[u8]) -> Result<u32, minicbor::decode::Error> {
    let mut decoder = Decoder::new(bytes);
    decoder.array()?;
    decoder.u32()
}

/// Whether a peer may send this row: every limit is kept, and what this crate itself reads is well formed.
fn is_valid_row(row: &Row) -> bool {
    let sizes = row.key.len() <= MAX_KEY_BYTES
        && row.value.len() <= MAX_VALUE_BYTES
        && row.blobs.len() <= MAX_BLOBS_PER_ROW;
    let numbers = row.stamp <= Stamp::MAX && row.born <= Stamp::MAX && is_valid_seq(row.seq) && row.seq > 0;
    let deletion =
        !row.tombstone || (row.kind.rule() == Rule::LastWins && row.value.is_empty() && row.blobs.is_empty());
    sizes && numbers && deletion && names::is_valid(row)
}
