//! A record and the small types it is made of. Values are opaque here and are relayed as they came.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::limits::{BUCKETS, MAX_BLOBS_PER_ROW, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::names;

/// A tracker's number: its line in `tracker_info.txt`, counted from 1, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TrackerNo(#[n(0)] pub u8);

impl fmt::Display for TrackerNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who numbered a row: 128 random bits, minted by the driver at every process start. A tracker restored from an old
/// backup therefore never uses a sequence number twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Origin(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// The id of what claims a name, derived from what created it, so that a retry is the same claim; random where an earlier
/// version chose it.
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
hex_debug!(Origin Uid BlobHash);

/// A hybrid logical time: 48 bits of milliseconds since the Unix epoch, then 16 bits of a counter. Clocks count in steps of
/// 16; the last four bits say how often a row was given a new number since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Stamp(#[n(0)] u64);

impl Stamp {
    /// The last stamp that is accepted, in the year 6429: it fits SQLite's signed integers, and a later write always
    /// finds a stamp above it.
    pub const MAX: Self = Self((1 << 63) - (1 << 32));

    /// The first stamp of millisecond `ms`.
    pub const fn at_ms(ms: u64) -> Self {
        Self(if ms >> 47 == 0 { ms << 16 } else { Self::MAX.0 })
    }

    /// The stamp with this integer form.
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// As an integer that sorts as the stamp does.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next step of the clock, after this stamp and everything that it can become by renumbering.
    pub const fn next(self) -> Self {
        Self((self.0 | RENUMBERINGS).saturating_add(1))
    }

    /// The stamp without what renumbering did to it.
    pub const fn instant(self) -> Self {
        Self(self.0 & !RENUMBERINGS)
    }

    /// The stamp of a row that is written at this step of the clock: with room for renumbering in the direction in
    /// which rows of this rule win.
    pub(crate) const fn of_new_row(self, rule: Rule) -> Self {
        match rule {
            Rule::LastWins => self.instant(),
            Rule::FirstStays => Self(self.0 | RENUMBERINGS),
        }
    }

    /// The stamp that lets a row with a new number win over the same row with its old number, and over nothing that was
    /// written later; `None` once that was done 15 times.
    pub(crate) const fn renumbered(self, rule: Rule) -> Option<Self> {
        match (rule, self.0 & RENUMBERINGS) {
            (Rule::LastWins, RENUMBERINGS) | (Rule::FirstStays, 0) => None,
            (Rule::LastWins, _) => Some(Self(self.0 + 1)),
            (Rule::FirstStays, _) => Some(Self(self.0 - 1)),
        }
    }
}

const RENUMBERINGS: u64 = 0xf;

/// What a row is about. The number decides the merge rule, so that versions that do not know a kind still merge it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Kind(#[n(0)] pub u8);

impl Kind {
    /// Somebody's claim to a user name.
    pub const USER_CLAIM: Self = Self(1);
    /// Somebody's claim to a group name.
    pub const GROUP_CLAIM: Self = Self(2);
    /// A tracker's vote for a claim to a user name.
    pub const USER_VOTE: Self = Self(3);
    /// A tracker's vote for a claim to a group name.
    pub const GROUP_VOTE: Self = Self(4);
    /// The claim to a user name that a majority voted for.
    pub const USER_SETTLED: Self = Self(5);
    /// The claim to a group name that a majority voted for.
    pub const GROUP_SETTLED: Self = Self(6);
    /// First of the kinds whose first row stays (numbers 32 to 63) and whose meaning the tracker gives.
    pub const FIRST_STAYS: Self = Self(32);
    /// First of the kinds whose last row wins (numbers 64 to 255) and whose meaning the tracker gives.
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
    /// Its key within the kind, at most [`MAX_KEY_BYTES`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// When it was written.
    #[n(2)]
    pub stamp: Stamp,
    /// Who numbered it.
    #[n(3)]
    pub origin: Origin,
    /// Its number there, from 1.
    #[n(4)]
    pub seq: u64,
    /// When what the key names came into being: the stamp of the first of the writes in a row without a deletion.
    #[n(5)]
    pub born: Stamp,
    /// Whether it says that the key was deleted; value and blobs are empty then.
    #[n(6)]
    pub tombstone: bool,
    /// The content, at most [`MAX_VALUE_BYTES`].
    #[cbor(n(7), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// The blobs it names, at most [`MAX_BLOBS_PER_ROW`].
    #[n(8)]
    pub blobs: Vec<BlobHash>,
}

impl Row {
    /// About what it takes in a frame, in bytes; never less.
    pub fn weight(&self) -> usize {
        self.key.len() + self.value.len() + 34 * self.blobs.len() + 80
    }

    /// The part of the digest that `(kind, key)` falls into, below [`BUCKETS`].
    pub fn bucket(&self) -> u16 {
        bucket_of(self.kind, &self.key)
    }

    /// What this row adds (wrapping) to its bucket's sum: nothing for a tombstone, because trackers drop those at
    /// different times.
    pub fn sum(&self) -> u128 {
        if self.tombstone { 0 } else { self.digest() }
    }

    /// A digest of everything in it.
    pub fn digest(&self) -> u128 {
        let mut hasher = key_hasher(self.kind, &self.key);
        hasher.update(&self.stamp.as_u64().to_le_bytes());
        hasher.update(&self.origin.0);
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

    /// Whether a peer may send this: every bound kept, and what this crate itself reads well formed.
    pub(crate) fn is_valid(&self) -> bool {
        let sizes = self.key.len() <= MAX_KEY_BYTES
            && self.value.len() <= MAX_VALUE_BYTES
            && self.blobs.len() <= MAX_BLOBS_PER_ROW;
        let numbers =
            self.stamp <= Stamp::MAX && self.born <= Stamp::MAX && is_valid_seq(self.seq) && self.seq > 0;
        let deletion = !self.tombstone
            || (self.kind.rule() == Rule::LastWins && self.value.is_empty() && self.blobs.is_empty());
        sizes && numbers && deletion && names::is_valid(self)
    }
}

/// Whether a sequence number fits SQLite's signed integers.
pub(crate) fn is_valid_seq(seq: u64) -> bool {
    i64::try_from(seq).is_ok()
}

/// The part of the digest that a key falls into, below [`BUCKETS`].
pub fn bucket_of(kind: Kind, key: &[u8]) -> u16 {
    let hash = key_hasher(kind, key).finalize();
    let [low, high, ..] = *hash.as_bytes();
    u16::from_le_bytes([low, high]) & BUCKET_MASK
}

/// A short stand-in for `(kind, key)`, without collisions in practice.
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
