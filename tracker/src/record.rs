//! The replicated records that the service reads and writes: their kinds, keys and values.
//!
//! Claims, votes and decided names are the replica's own. The records here are keyed by ids, never by names. The kind's number
//! decides which of two records stays ([`Kind::rule`]): the last one written. Before that counts, of two accounts the one with
//! more signed changes stays ([`crate::proof`]), and of two memberships the one of the later [`Term`]. Values are CBOR maps, so
//! that an earlier version keeps the fields of a later one.

use minicbor::{Decode, Encode};
use shoal_common::credentials::{Account, ChangeSignature, SALT_BYTES, SEALED_BYTES};
use shoal_common::names::Skeleton;
use shoal_common::storage::{PointerKey, StoreManifest, room_of};
use shoal_common::{AccountDigest, Blake3, Fid, Gid, NodeName, Nonce, PeerId, RequestId, Uid};
use shoal_replica::{Kind, Write};

/// A user's secrets ([`AccountRecord`]) by uid.
pub const ACCOUNT: Kind = Kind(64);
/// A user's part in a group ([`Membership`]) by gid and uid.
pub const MEMBERSHIP: Kind = Kind(65);
/// A shared file ([`shoal_common::Manifest`]) by gid and fid.
pub const FILE: Kind = Kind(66);
/// A share ([`Share`]) by gid, fid, uid and client.
pub const SHARE: Kind = Kind(67);
/// The key with which a tracker signs tickets ([`PeerId`]) by the tracker's number. It is written for earlier versions and
/// gives no authority (see [`crate::trust`]).
pub const TICKET_KEY: Kind = Kind(68);
/// A user's stored file ([`Pointer`]) by uid and pointer key; the row names the manifest's blob.
pub const POINTER: Kind = Kind(69);
/// A storage node ([`StorageNode`]) by its key.
pub const STORAGE_NODE: Kind = Kind(70);
/// When a tracker last started without what it held before ([`Caution`]), by the tracker's number.
pub const CAUTION: Kind = Kind(71);
/// When an operator last allowed deletions on storage nodes ([`Allowance`]), under the empty key.
pub const ALLOWANCE: Kind = Kind(72);
/// A storage node that an operator took out of the cluster ([`Expulsion`]), by its key.
pub const EXPELLED: Kind = Kind(73);
/// All trackers' keys as one tracker signs them ([`shoal_common::vouching::TrackerList`]), by its number.
pub const TRACKER_LIST: Kind = Kind(80);
/// Up to when a user's logins on a client are void ([`SignOut`]), by uid and the client's key.
pub const SIGN_OUT: Kind = Kind(84);
/// What one user or group may have ([`Quota`]), or each of them, by [`QuotaOf::key`].
pub const QUOTA: Kind = Kind(85);
/// An invitation to create one account ([`Invitation`]), by a hash of its code.
pub const INVITATION: Kind = Kind(86);

/// That an operator took a storage node out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Expulsion {
    /// When, in milliseconds since 1970.
    #[n(0)]
    pub at_ms: u64,
}

/// A user's standing in a group.
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
    /// The user's standing.
    #[n(0)]
    pub standing: Standing,
    /// Since when, in milliseconds since 1970: decides who joined first.
    #[n(1)]
    pub since_ms: u64,
    /// The request that made it so.
    #[n(2)]
    pub request: RequestId,
    /// The group's term when it was written; `None` is the first, and what an earlier version writes.
    #[n(3)]
    pub term: Option<Term>,
}

/// How often a group has changed its owner: what an owner decided counts less than what a later owner did, whatever the clocks
/// say. Every record of a membership carries it, so that two of them are compared without others.
///
/// The founder's return counts more than any number of owners who left, because the founder is the owner while a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Term(#[n(0)] u64);

impl Term {
    /// What the founder's return counts for.
    const RETURN: u64 = 1 << 32;
    /// The last term: SQLite counts with a sign. In it later records stay, as in the first.
    const LAST: u64 = i64::MAX as u64;

    /// The term of that number.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self(number.min(Self::LAST))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.min(Self::LAST)
    }

    /// The term that begins when the owner leaves.
    #[must_use]
    pub fn after_leaving(self) -> Self {
        Self::of(self.number() + 1)
    }

    /// The term that begins when the founder is let in again.
    #[must_use]
    pub fn after_return(self) -> Self {
        Self::of(self.number() + Self::RETURN)
    }

    /// As a record has it.
    #[must_use]
    pub fn noted(self) -> Option<Self> {
        Some(self).filter(|term| term.number() > 0)
    }
}

/// A user's secrets and their history, which anyone who knows the user's id can check. [`Account`] reads the secrets out of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AccountRecord {
    /// As in [`Account`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; SALT_BYTES],
    /// As in [`Account`].
    #[n(1)]
    pub login_key: PeerId,
    /// As in [`Account`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed_account_key: [u8; SEALED_BYTES],
    /// Where the secrets come from; `None` if an earlier version wrote them and they were never changed since.
    #[n(3)]
    pub history: Option<History>,
}

/// How an account came to its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct History {
    /// The account as it was created, or, of an earlier version, as it was before its first signed change.
    #[n(0)]
    pub first: AccountDigest,
    /// What ties that to the user's id; `None` if an earlier version chose the id at random.
    #[n(1)]
    pub birth: Option<Birth>,
    /// All changes since, the oldest first.
    #[n(2)]
    pub changes: Vec<Change>,
}

/// What a user's id was derived from, besides the account.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Birth {
    /// The nonce.
    #[n(0)]
    pub nonce: Nonce,
    /// The name that was claimed.
    #[n(1)]
    pub name: String,
}

/// A change of an account's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Change {
    /// To what.
    #[n(0)]
    pub to: AccountDigest,
    /// The signature of the login key before.
    #[n(1)]
    pub signature: ChangeSignature,
}

/// What proves a claim to a user name: its value. Empty where an earlier version chose the id at random.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Naming {
    /// What the id was derived with.
    #[n(0)]
    pub nonce: Nonce,
    /// The account as it was created.
    #[n(1)]
    pub account: AccountDigest,
    /// What the name looks like, by the tables of the tracker that took the claim; `None` from an earlier version.
    #[n(2)]
    pub skeleton: Option<Skeleton>,
}

/// The immutable part of a group: the value of its claim.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Founding {
    /// Who founded it.
    #[n(0)]
    pub founder: Uid,
    /// What the id was derived with; `None` if an earlier version chose the id at random.
    #[n(1)]
    pub nonce: Option<Nonce>,
    /// What the name looks like, as in [`Naming`].
    #[n(2)]
    pub skeleton: Option<Skeleton>,
}

impl AccountRecord {
    /// These secrets with that history.
    #[must_use]
    pub fn new(account: Account, history: Option<History>) -> Self {
        let Account { salt, login_key, sealed_account_key } = account;
        Self { salt, login_key, sealed_account_key, history }
    }

    /// The secrets alone.
    #[must_use]
    pub fn account(&self) -> Account {
        let Self { salt, login_key, sealed_account_key, .. } = *self;
        Account { salt, login_key, sealed_account_key }
    }
}

/// "This user shares this file from this client."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Share {
    /// The request that made it so.
    #[n(0)]
    pub request: RequestId,
    /// The mirrors that this sharer names; they end with the share. `None`: no mirrors.
    #[n(1)]
    pub mirrors: Option<Vec<String>>,
    /// Bytes that the trackers keep of the file, counted for the sharer; `None` from an earlier version.
    #[n(2)]
    pub file_bytes: Option<u64>,
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
    /// How much room it takes; `None` from an earlier version.
    #[n(4)]
    pub size: Option<StoredSize>,
}

/// How much room a stored file takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoredSize {
    /// Bytes on the storage nodes, in all copies.
    #[n(0)]
    pub stored: u64,
    /// Bytes of the manifest's public part, which every tracker keeps.
    #[n(1)]
    pub manifest: u64,
}

impl StoredSize {
    /// The size of a file with this manifest; `encoded` is its encoded form.
    #[must_use]
    pub fn of(manifest: &StoreManifest, encoded: &[u8]) -> Self {
        let copy: u64 = manifest.chunks.iter().map(|chunk| room_of(chunk.sealed)).sum();
        Self { stored: copy * u64::from(manifest.copies), manifest: encoded.len() as u64 }
    }
}

/// A storage node, kept so that it is known while it is down.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StorageNode {
    /// What its operator calls it.
    #[n(0)]
    pub name: NodeName,
    /// `ip:port` where it accepts bulk connections.
    #[n(1)]
    pub address: String,
    /// The key that answers there now and took this one's place.
    #[n(2)]
    pub successor: Option<PeerId>,
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

/// "Anyone with the code whose hash is this record's key may create one account."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invitation {
    /// Until when, in milliseconds since 1970.
    #[n(0)]
    pub until_ms: u64,
}

/// Whose quota a record sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaOf {
    /// Each user without a quota of their own.
    Users,
    /// Each group without a quota of its own.
    Groups,
    /// One user.
    User(Uid),
    /// One group.
    Group(Gid),
}

impl QuotaOf {
    /// The record's key.
    #[must_use]
    pub fn key(self) -> Vec<u8> {
        match self {
            Self::Users => vec![0],
            Self::Groups => vec![1],
            Self::User(user) => [&[2][..], &user.0].concat(),
            Self::Group(group) => [&[3][..], &group.0].concat(),
        }
    }

    /// Reads the key; `None` if a later version wrote it.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        match (key.first()?, key.len()) {
            (0, 1) => Some(Self::Users),
            (1, 1) => Some(Self::Groups),
            (2, 17) => part(key, 1).map(|id| Self::User(Uid(id))),
            (3, 17) => part(key, 1).map(|id| Self::Group(Gid(id))),
            _ => None,
        }
    }
}

/// What one user or group may have. A figure that is not set is that of all users or groups. `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Quota {
    /// Of a user: shares and stored files; of a group: files.
    #[n(0)]
    pub files: Option<u64>,
    /// Bytes of metadata on each tracker.
    #[n(1)]
    pub bytes: Option<u64>,
    /// Groups that a user may found.
    #[n(2)]
    pub groups: Option<u64>,
    /// Bytes on the storage nodes, in all copies.
    #[n(3)]
    pub stored: Option<u64>,
}

/// "Logins of this user on this client up to this moment are void."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignOut {
    /// The moment, in milliseconds since 1970.
    #[n(0)]
    pub until_ms: u64,
}

/// Key of a [`SIGN_OUT`].
#[must_use]
pub fn sign_out_key(user: Uid, peer: PeerId) -> Vec<u8> {
    [&user.0[..], &peer.0].concat()
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

/// Reads the `N` bytes at `at` of a key; `None` if the key is shorter.
#[must_use]
pub fn part<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..)?.first_chunk().copied()
}

/// Writes a record.
#[must_use]
pub fn put<T: Encode<()>>(kind: Kind, key: Vec<u8>, value: &T) -> Write {
    Write { kind, key, value: encode(value), ..Write::default() }
}

/// Deletes a record.
#[must_use]
pub fn delete(kind: Kind, key: Vec<u8>) -> Write {
    Write { kind, key, tombstone: true, ..Write::default() }
}

/// Encodes a record's value.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes every write")
}
