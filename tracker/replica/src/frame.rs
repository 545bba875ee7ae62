//! What trackers say to each other, and its bounded encoding: CBOR by index, so that a later version may add fields and
//! kinds of frames that this one skips.

use minicbor::{Decode, Decoder, Encode};

use crate::limits::{
    BLOB_CHUNK_BYTES, BUCKETS, MAX_ACKS_PER_FRAME, MAX_BLOB_BYTES, MAX_FRAME_BYTES, MAX_ROUND_CREDIT,
    MAX_ROWS_PER_FRAME, VECTOR_ENTRIES_PER_FRAME,
};
use crate::row::{BlobHash, Origin, Row, Stamp, TrackerNo, is_valid_seq};

/// The version of the protocol that is spoken here.
pub(crate) const VERSION: u16 = 1;
/// The oldest version that is understood here.
pub(crate) const MIN_VERSION: u16 = 1;

/// One message between two trackers. A link begins with `Hello`, the vector and the floor in parts, and `Ready`.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Frame {
    /// Who speaks.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Entries by which the sender's vector has risen since it last said so on this link.
    #[n(1)]
    Vector(#[n(0)] Vec<Entry>),
    /// Entries of the vector up to which tombstones may be missing at the sender, as they were dropped; once more when it
    /// has risen because somebody else dropped them.
    #[n(2)]
    Floor {
        /// The entries.
        #[n(0)]
        entries: Vec<Entry>,
        /// No dropped tombstone has a later stamp.
        #[n(1)]
        dropped: Stamp,
    },
    /// The introduction is complete.
    #[n(3)]
    Ready,
    /// Asks for a round.
    #[n(4)]
    Pull(#[n(0)] Pull),
    /// Rows of the round that was asked for.
    #[n(5)]
    Rows {
        /// The puller's number for it.
        #[n(0)]
        round: u64,
        /// The rows.
        #[n(1)]
        rows: Vec<Row>,
    },
    /// The puller has stored that many frames of rows and takes as many more.
    #[n(6)]
    More {
        /// Its number for the round.
        #[n(0)]
        round: u64,
        /// How many.
        #[n(1)]
        frames: u32,
    },
    /// The round is complete, up to the sender's vector as said on this link.
    #[n(7)]
    End {
        /// The puller's number for it.
        #[n(0)]
        round: u64,
    },
    /// The round cannot be served now.
    #[n(8)]
    Busy {
        /// The puller's number for it.
        #[n(0)]
        round: u64,
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
        /// Up to which number all rows of the receiver's origin are held.
        #[n(1)]
        held: u64,
    },
    /// A sign of life.
    #[n(11)]
    Ping,
    /// Digest of all of the sender's rows, at its vector as said on this link.
    #[n(12)]
    Digest {
        /// The wrapping sum of all bucket sums, little endian.
        #[cbor(n(0), with = "minicbor::bytes")]
        root: [u8; 16],
    },
    /// Asks for a chunk of a blob.
    #[n(13)]
    Want {
        /// Which blob.
        #[n(0)]
        hash: BlobHash,
        /// From which byte on.
        #[n(1)]
        offset: u64,
    },
    /// A chunk of a blob.
    #[n(14)]
    Chunk(#[n(0)] Chunk),
    /// A blob that was asked for is not held.
    #[n(15)]
    Gone {
        /// Which.
        #[n(0)]
        hash: BlobHash,
    },
    /// A frame of a later version; means nothing here.
    #[n(16)]
    Unknown,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// The version it speaks.
    #[n(0)]
    pub version: u16,
    /// The oldest version it understands.
    #[n(1)]
    pub min_version: u16,
    /// Its cluster.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub cluster: [u8; 16],
    /// Its number.
    #[n(3)]
    pub no: TrackerNo,
    /// Its origin since this process start.
    #[n(4)]
    pub origin: Origin,
    /// Its wall clock, in milliseconds since the Unix epoch.
    #[n(5)]
    pub wall_ms: u64,
}

/// One entry of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Which origin.
    #[n(0)]
    pub origin: Origin,
    /// Up to which number.
    #[n(1)]
    pub seq: u64,
}

/// Asks for a round.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Pull {
    /// The puller's number for it.
    #[n(0)]
    pub round: u64,
    /// How many frames of rows it takes at once.
    #[n(1)]
    pub credit: u32,
    /// Everything instead of what lies above the puller's vector.
    #[n(2)]
    pub fresh: bool,
    /// With the puller's bucket sums (little endian): the rows of the buckets that differ, instead.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sums: Option<Vec<u8>>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Live {
    /// The sender's number for it on this link.
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
    /// Which blob.
    #[n(0)]
    pub hash: BlobHash,
    /// From which byte on.
    #[n(1)]
    pub offset: u64,
    /// The blob's length in bytes.
    #[n(2)]
    pub total: u64,
    /// The bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub data: Vec<u8>,
}

/// Why bytes are no frame. Whoever sent them should be disconnected.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// Not the encoding of a frame.
    #[error("malformed frame")]
    Malformed(#[source] minicbor::decode::Error),
    /// A number in it is over its bound.
    #[error("a frame breaks a limit")]
    OverLimit,
}

impl Frame {
    /// Its bytes, at most [`MAX_FRAME_BYTES`] for every frame that a replica gives out.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.weight());
        minicbor::encode(self, &mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// Reads a frame and checks every bound. What trails it is ignored. Allocates no more than the input's length
    /// justifies.
    ///
    /// # Errors
    /// When the bytes are no frame, or a frame that no correct tracker sends.
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

    /// About how long its encoding is, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Rows { rows, .. } | Self::Live(Live { rows, .. }) => {
                32 + rows.iter().map(Row::weight).sum::<usize>()
            }
            Self::Vector(entries) | Self::Floor { entries, .. } => 32 + 28 * entries.len(),
            Self::Ack { ids, .. } => 24 + 9 * ids.len(),
            Self::Chunk(chunk) => 80 + chunk.data.len(),
            Self::Pull(pull) => 40 + pull.sums.as_ref().map_or(0, Vec::len),
            _ => 96,
        }
    }

    fn is_within_limits(&self) -> bool {
        let rows_fit = |rows: &[Row]| rows.len() <= MAX_ROWS_PER_FRAME && rows.iter().all(Row::is_valid);
        match self {
            Self::Floor { dropped, .. } if *dropped > Stamp::MAX => false,
            Self::Vector(entries) | Self::Floor { entries, .. } => {
                entries.len() <= VECTOR_ENTRIES_PER_FRAME
                    && entries.iter().all(|entry| is_valid_seq(entry.seq))
            }
            Self::Pull(pull) => {
                pull.credit <= MAX_ROUND_CREDIT
                    && pull.sums.as_ref().is_none_or(|sums| sums.len() == BUCKETS * 16)
            }
            Self::Rows { rows, .. } => rows_fit(rows),
            Self::More { frames, .. } => *frames <= MAX_ROUND_CREDIT,
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
