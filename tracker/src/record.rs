//! The replicated records that the service reads and writes: their kinds, keys and values.
//!
//! Claims, votes and settled names are the replica's own. Those here are keyed by ids, never by names, and the last
//! writer wins, but for the decoy secret, of which the first stays (the kind's number decides: [`Kind::rule`]). Values are CBOR maps, so that a later version's fields pass through an earlier one untouched.

use minicbor::{Decode, Encode};
use shoal_common::{Fid, Gid, PeerId, RequestId, Uid};
use shoal_replica::Kind;

/// A user's secrets ([`shoal_common::credentials::Account`]) by uid.
pub const ACCOUNT: Kind = Kind(64);
/// A user's part in a group ([`Membership`]) by gid and uid.
pub const MEMBERSHIP: Kind = Kind(65);
/// A shared file ([`shoal_common::Manifest`]) by gid and fid.
pub const FILE: Kind = Kind(66);
/// A share ([`Share`]) by gid, fid, uid and client.
pub const SHARE: Kind = Kind(67);
/// The key with which a tracker signs tickets ([`PeerId`]) by the tracker's number.
pub const TICKET_KEY: Kind = Kind(68);
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
