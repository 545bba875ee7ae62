//! A record and the small types that it is made of. Values are opaque here and are relayed unchanged.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::limits::BUCKETS;

/// A tracker's number: its line in `tracker_info.txt`, counted from 1. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TrackerNo(#[n(0)] pub u8);

impl fmt::Display for TrackerNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who numbered a row: 128 random bits, minted by the driver at every process start. A tracker restored from
/// an old backup therefore never uses a sequence number twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct WriterId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// The id of the user or group that claims a name. It is derived from what created it, so a retry is the same
/// claim. Ids of an earlier version are random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Uid(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// BLAKE3 of a blob's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BlobHash(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl BlobHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

macro_rules! hex_debug {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, ")")
            }
        }
    )*};
}
hex_debug!(WriterId Uid BlobHash);

/// A hybrid logical time: 48 bits of milliseconds since the Unix epoch, then 16 bits of a counter. Clocks
/// count in steps of 16. The last four bits say how often a row was renumbered since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Stamp(#[n(0)] u64);

impl Stamp {
    /// The last stamp that is accepted, in the year 6429. It fits SQLite's signed integers, and a later write
    /// always finds a stamp above it.
    pub const MAX: Self = Self((1 << 63) - (1 << 32));

    /// The first stamp of millisecond `ms`.
    pub const fn at_ms(ms: u64) -> Self {
        Self(if ms >> 47 == 0 { ms << 16 } else { Self::MAX.0 })
    }

    /// The stamp with this integer value.
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// The integer value, which sorts as the stamp does.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next step of the clock, after this stamp and all stamps that renumbering can make of it.
    pub const fn next(self) -> Self {
        Self((self.0 | RENUMBERINGS).saturating_add(1))
    }

    /// The stamp without renumbering.
    pub const fn instant(self) -> Self {
        Self(self.0 & !RENUMBERINGS)
    }

    /// The stamp of a row that is written at this step of the clock, with room for renumbering in the
    /// direction in which rows of this rule win.
    pub(crate) const fn of_new_row(self, rule: Rule) -> Self {
        match rule {
            Rule::LastWins => self.instant(),
            Rule::FirstStays => Self(self.0 | RENUMBERINGS),
        }
    }

    /// The stamp that lets a renumbered row win over the same row with its old number, and over nothing that
    /// was written later. `None` after 15 times.
    pub(crate) const fn renumbered(self, rule: Rule) -> Option<Self> {
        match (rule, self.0 & RENUMBERINGS) {
            (Rule::LastWins, RENUMBERINGS) | (Rule::FirstStays, 0) => None,
            (Rule::LastWins, _) => Some(Self(self.0 + 1)),
            (Rule::FirstStays, _) => Some(Self(self.0 - 1)),
        }
    }
}

const RENUMBERINGS: u64 = 0xf;

/// The kind of a row. Its number decides the merge rule, so that versions that do not know a kind merge it
/// alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Kind(#[n(0)] pub u8);

impl Kind {
    /// A claim to a user name.
    pub const USER_CLAIM: Self = Self(1);
    /// A claim to a group name.
    pub const GROUP_CLAIM: Self = Self(2);
    /// A tracker's vote for a claim to a user name.
    pub const USER_VOTE: Self = Self(3);
    /// A tracker's vote for a claim to a group name.
    pub const GROUP_VOTE: Self = Self(4);
    /// The decision on a user name: the claim that a majority voted for.
    pub const USER_DECISION: Self = Self(5);
    /// The decision on a group name: the claim that a majority voted for.
    pub const GROUP_DECISION: Self = Self(6);
    /// First of the kinds whose first row stays (numbers 32 to 63) and whose meaning the tracker defines.
    pub const FIRST_STAYS: Self = Self(32);
    /// First of the kinds whose last row wins (numbers 64 to 255) and whose meaning the tracker defines.
    pub const LAST_WINS: Self = Self(64);

    /// How two rows of this kind under one key merge.
    pub const fn rule(self) -> Rule {
        if self.0 < Self::LAST_WINS.0 { Rule::FirstStays } else { Rule::LastWins }
    }
}

/// How two rows under one key merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The row with the lowest stamp stays, and is never deleted.
    FirstStays,
    /// The row with the highest stamp stays; a tombstone is such a row.
    LastWins,
}

/// One record: the current state under a key, not an operation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Row {
    /// What it is about.
    #[n(0)]
    pub kind: Kind,
    /// Its key within the kind, at most [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// When it was written.
    #[n(2)]
    pub stamp: Stamp,
    /// The process that wrote it.
    #[n(3)]
    pub writer: WriterId,
    /// Its sequence number for that writer, from 1.
    #[n(4)]
    pub seq: u64,
    /// When the key was created: the stamp of the first of the consecutive writes without a deletion.
    #[n(5)]
    pub born: Stamp,
    /// Whether the key was deleted. Value and blobs are empty then.
    #[n(6)]
    pub tombstone: bool,
    /// The content, at most [`MAX_VALUE_BYTES`](crate::limits::MAX_VALUE_BYTES).
    #[cbor(n(7), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// The blobs that it names, at most [`MAX_BLOBS_PER_ROW`](crate::limits::MAX_BLOBS_PER_ROW).
    #[n(8)]
    pub blobs: Vec<BlobHash>,
}

impl Row {
    /// An upper estimate of its size in a frame, in bytes.
    pub fn weight(&self) -> usize {
        self.key.len() + self.value.len() + 34 * self.blobs.len() + 80
    }

    /// The digest's bucket of its key, below [`BUCKETS`].
    pub fn bucket(&self) -> u16 {
        bucket_of(self.kind, &self.key)
    }

    /// What it adds (wrapping) to its bucket's sum. Zero for a tombstone, because trackers drop those at
    /// different times.
    pub fn sum(&self) -> u128 {
        if self.tombstone { 0 } else { self.digest() }
    }

    /// A digest of all its fields.
    pub fn digest(&self) -> u128 {
        let mut hasher = key_hasher(self.kind, &self.key);
        hasher.update(&self.stamp.as_u64().to_le_bytes());
        hasher.update(&self.writer.0);
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.born.as_u64().to_le_bytes());
        hasher.update(&[u8::from(self.tombstone)]);
        hasher.update(&(self.value.len() as u64).to_le_bytes());
        hasher.update(&self.value);
        for blob in &self.blobs {
            hasher.update(&blob.0);
        }
        first_16(&hasher)
    }
}

/// Whether a sequence number fits SQLite's signed integers.
pub(crate) fn is_valid_seq(seq: u64) -> bool {
    i64::try_from(seq).is_ok()
}

/// The digest's bucket of a key, below [`BUCKETS`].
pub fn bucket_of(kind: Kind, key: &[u8]) -> u16 {
    let hash = key_hasher(kind, key).finalize();
    let [low, high, ..] = *hash.as_bytes();
    u16::from_le_bytes([low, high]) & BUCKET_MASK
}

/// A short digest of `(kind, key)`, without collisions in practice.
pub(crate) fn key_digest(kind: Kind, key: &[u8]) -> u128 {
    first_16(&key_hasher(kind, key))
}

const BUCKET_MASK: u16 = 0x0fff;
const _: () = assert!(BUCKET_MASK as usize + 1 == BUCKETS);

fn key_hasher(kind: Kind, key: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind.0]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher
}

fn first_16(hasher: &blake3::Hasher) -> u128 {
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    u128::from_le_bytes(first)
}
