//! The replicated records that the service reads and writes: their kinds, keys and values.
//!
//! Claims, votes and settled names are the replica's own. Those here are keyed by ids, never by names, and the last
//! writer wins, but for the decoy secret, of which the first stays (the kind's number decides: [`Kind::rule`]). Values are CBOR maps, so that a later version's fields pass through an earlier one untouched.

use minicbor::{Decode, Encode};
use shoal_common::storage::PointerKey;
use shoal_common::{Blake3, Fid, Gid, NodeName, PeerId, RequestId, Uid};
use shoal_replica::Kind;

/// A user's secrets ([`shoal_common::credentials::Account`]) by uid.
pub const ACCOUNT: Kind = Kind(64);
/// A user's part in a group ([`Membership`]) by gid and uid.
pub const MEMBERSHIP: Kind = Kind(65);
/// A shared file ([`shoal_common::Manifest`]) by gid and fid.
pub const FILE: Kind = Kind(66);
/// A share ([`Share`]) by gid, fid, uid and client.
pub const SHARE: Kind = Kind(67);
/// The key with which a tracker signs tickets ([`PeerId`]) by the tracker's number. Written for earlier versions; nobody's
/// authority rests on it (see [`crate::trust`]).
pub const TICKET_KEY: Kind = Kind(68);
/// A user's stored file ([`Pointer`]) by uid and pointer key; the row names the manifest's blob.
pub const POINTER: Kind = Kind(69);
/// A storage node ([`StorageNode`]) by its key.
pub const STORAGE_NODE: Kind = Kind(70);
/// When a tracker last started without what it held before ([`Caution`]), by the tracker's number.
pub const CAUTION: Kind = Kind(71);
/// When an operator last allowed deletions on storage nodes ([`Allowance`]), under the empty key.
pub const ALLOWANCE: Kind = Kind(72);
/// What a tracker signs of all trackers' keys ([`shoal_common::vouching::TrackerList`]), by its number.
pub const TRACKER_LIST: Kind = Kind(80);
/// The secret behind the salts of names that do not exist (32 bytes), under the empty key.
pub const DECOY_SECRET: Kind = Kind(32);

/// Where a user stands with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Standing {
    /// Asked to join.
    #[n(0)]
    Requested,
    /// Is in.
    #[n(1)]
    Member,
    /// Was in and left.
    #[n(2)]
    Left,
    /// Asked and was turned down.
    #[n(3)]
    Rejected,
}

/// A user's part in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Membership {
    /// Where the user stands.
    #[n(0)]
    pub standing: Standing,
    /// Since when, in milliseconds since 1970: decides who joined first.
    #[n(1)]
    pub since_ms: u64,
    /// The request that made it so.
    #[n(2)]
    pub request: RequestId,
}

/// The immutable part of a group: the value of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Founding {
    /// Who founded it.
    #[n(0)]
    pub founder: Uid,
}

/// "This user shares this file from this client."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Share {
    /// The request that made it so.
    #[n(0)]
    pub request: RequestId,
}

/// "Under this key the user stored that file."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pointer {
    /// BLAKE3 of the manifest's public part, which is a blob.
    #[n(0)]
    pub version: Blake3,
    /// The sealed part.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// When, in milliseconds since 1970.
    #[n(2)]
    pub stored_ms: u64,
    /// The request that made it so.
    #[n(3)]
    pub request: RequestId,
}

/// A storage node, kept so that it is known while it is down.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StorageNode {
    /// What its operator calls it.
    #[n(0)]
    pub name: NodeName,
    /// `ip:port` of its bulk lane.
    #[n(1)]
    pub address: String,
    /// The key that answers there since, and stands in this one's place.
    #[n(2)]
    pub heir: Option<PeerId>,
}

/// "This tracker started without what it had held before."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Caution {
    /// When, in milliseconds since 1970.
    #[n(0)]
    pub since_ms: u64,
}

/// "What nothing named at this moment may be deleted."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Allowance {
    /// When, in milliseconds since 1970.
    #[n(0)]
    pub at_ms: u64,
}

/// Key of an [`ACCOUNT`].
#[must_use]
pub fn account_key(user: Uid) -> Vec<u8> {
    user.0.to_vec()
}

/// Key of a [`MEMBERSHIP`].
#[must_use]
pub fn membership_key(group: Gid, user: Uid) -> Vec<u8> {
    [group.0, user.0].concat()
}

/// Key of a [`FILE`].
#[must_use]
pub fn file_key(group: Gid, file: Fid) -> Vec<u8> {
    [group.0, file.0].concat()
}

/// Key of a [`SHARE`].
#[must_use]
pub fn share_key(group: Gid, file: Fid, user: Uid, peer: PeerId) -> Vec<u8> {
    [&group.0[..], &file.0, &user.0, &peer.0].concat()
}

/// Key of a [`POINTER`].
#[must_use]
pub fn pointer_key(user: Uid, key: PointerKey) -> Vec<u8> {
    [&user.0[..], &key.0].concat()
}

/// Reads the key of a [`POINTER`].
#[must_use]
pub fn parse_pointer_key(key: &[u8]) -> Option<(Uid, PointerKey)> {
    Some((Uid(part(key, 0)?), PointerKey(part(key, 16)?)))
}

/// Reads the `N` bytes at `at` of a key; `None` where a later version's key is shorter.
#[must_use]
pub fn part<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..)?.first_chunk().copied()
}

/// Encodes a record's value.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes every write")
}
