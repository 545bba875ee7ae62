//! What a tracker answers, and what the answers are made of.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::storage::{NodeAnswer, StoreAnswer};
use super::ways::{Push, WayAnswer};
use crate::credentials::{Account, CHALLENGE_BYTES, SALT_BYTES};
use crate::digest::Sha1;
use crate::ids::{Fid, Gid, Uid};
use crate::manifest::Manifest;
use crate::names::{FileName, GroupName, UserName};
use crate::peer_id::PeerId;
use crate::vouching::SignedList;

/// What answers a [`Call`](super::Call).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Nothing more to say.
    #[n(0)]
    Ok,
    /// To [`Call::Hello`](super::Call::Hello).
    #[n(1)]
    Welcome {
        /// The tracker's number.
        #[n(0)]
        number: u8,
        /// Milliseconds since 1970 by the trackers' clock.
        #[n(1)]
        now_ms: u64,
        /// Its [`REVISION`](super::REVISION); `None` from an earlier version.
        #[n(2)]
        revision: Option<u32>,
        /// The signed lists of trackers' keys, this one's first; `None` from an earlier version.
        #[n(3)]
        lists: Option<Vec<SignedList>>,
    },
    /// To calls that create a name.
    #[n(2)]
    Created {
        /// Whether another tracker, which is out of reach now, may hold an earlier claim to the name.
        #[n(0)]
        provisional: bool,
    },
    /// To [`Call::Challenge`](super::Call::Challenge).
    #[n(3)]
    Challenge {
        /// The account's salt, or a made-up one for a name that does not exist.
        #[cbor(n(0), with = "minicbor::bytes")]
        salt: [u8; SALT_BYTES],
        /// What to sign; good for one answer on this connection.
        #[cbor(n(1), with = "minicbor::bytes")]
        challenge: [u8; CHALLENGE_BYTES],
    },
    /// To every call that begins or prolongs a session.
    #[n(4)]
    LoggedIn(#[n(0)] Box<Session>),
    /// To [`Call::ListRequests`](super::Call::ListRequests) and [`Call::ListMembers`](super::Call::ListMembers), by name.
    #[n(5)]
    Users {
        /// The users.
        #[n(0)]
        users: Vec<UserEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::ListGroups`](super::Call::ListGroups), by name.
    #[n(6)]
    Groups {
        /// The groups.
        #[n(0)]
        groups: Vec<GroupEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::ListFiles`](super::Call::ListFiles), by name.
    #[n(7)]
    Files {
        /// The files.
        #[n(0)]
        files: Vec<FileEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::Share`](super::Call::Share).
    #[n(8)]
    Shared {
        /// The group's id.
        #[n(0)]
        group: Gid,
        /// The file's id.
        #[n(1)]
        file: Fid,
    },
    /// To [`Call::Find`](super::Call::Find).
    #[n(9)]
    Found {
        /// The group's id.
        #[n(0)]
        group: Gid,
        /// The file's id.
        #[n(1)]
        file: Fid,
        /// The file, with its present name.
        #[n(2)]
        manifest: Box<Manifest>,
    },
    /// To [`Call::PieceList`](super::Call::PieceList).
    #[n(10)]
    PieceList(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To [`Call::Holders`](super::Call::Holders).
    #[n(11)]
    Holders {
        /// The holders except the caller; a random choice if there are more than [`crate::limits::MAX_LIST`].
        #[n(0)]
        holders: Vec<Holder>,
        /// After how many milliseconds it is worth asking again.
        #[n(1)]
        retry_after_ms: u32,
        /// The file's mirrors now, as in [`Answer::Found`]; `None` from a tracker of an earlier version.
        #[n(2)]
        mirrors: Option<Vec<String>>,
    },
    /// To [`Call::Announce`](super::Call::Announce).
    #[n(12)]
    Announced {
        /// Announced files that the trackers know no share of: to be shared again, or forgotten if the caller is no longer a
        /// member.
        #[n(0)]
        unknown: Vec<Holding>,
    },
    /// To [`Call::TicketKeys`](super::Call::TicketKeys).
    #[n(13)]
    TicketKeys(#[n(0)] Vec<PeerId>),
    /// To [`Call::Node`](super::Call::Node).
    #[n(14)]
    Node(#[n(0)] NodeAnswer),
    /// To [`Call::Store`](super::Call::Store).
    #[n(15)]
    Store(#[n(0)] StoreAnswer),
    /// To [`Call::Sessions`](super::Call::Sessions), the caller's own first.
    #[n(16)]
    Sessions(#[n(0)] Vec<SessionEntry>),
    /// To [`Call::Quota`](super::Call::Quota).
    #[n(17)]
    Quota(#[n(0)] Box<QuotaAnswer>),
    /// To [`Call::ForgetClient`](super::Call::ForgetClient).
    #[n(18)]
    Forgotten {
        /// Shares that were taken back now.
        #[n(0)]
        shares: u32,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::Way`](super::Call::Way).
    #[n(19)]
    Way(#[n(0)] WayAnswer),
    /// To no call.
    #[n(20)]
    Push(#[n(0)] Push),
}

/// The quota of a user or a group, and how much of it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct QuotaAnswer {
    /// For a user shares and stored files; for a group shared files.
    #[n(0)]
    pub files: Level,
    /// Bytes that each tracker keeps of them.
    #[n(1)]
    pub bytes: Level,
    /// Groups that a user founded.
    #[n(2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Level>,
    /// A user's bytes on the storage nodes, in all copies.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Level>,
    /// A user's shares by client, the most first.
    #[n(4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<ClientShares>>,
}

/// How many shares of a user belong to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct ClientShares {
    /// The client's key.
    #[n(0)]
    pub peer: PeerId,
    /// How many.
    #[n(1)]
    pub files: u64,
    /// Whether it is the one that asks.
    #[n(2)]
    #[serde(rename = "self")]
    pub own: bool,
}

/// How much of something is used, and its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Level {
    /// How much is used.
    #[n(0)]
    pub used: u64,
    /// The limit; `None` is no limit.
    #[n(1)]
    #[serde(rename = "limit")]
    pub most: Option<u64>,
}

/// A client on which the caller's account is logged in now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct SessionEntry {
    /// The client's key.
    #[n(0)]
    pub peer: PeerId,
    /// `ip:port` where it accepts bulk connections.
    #[n(1)]
    pub address: String,
    /// Whether it is the caller's own.
    #[n(2)]
    #[serde(rename = "self")]
    pub own: bool,
}

/// A session as of now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Session {
    /// Who is logged in.
    #[n(0)]
    pub user: Uid,
    /// The user's present name; not the one that was typed if that was lost to another user.
    #[n(1)]
    pub name: UserName,
    /// Whether the name may still be lost.
    #[n(2)]
    pub provisional: bool,
    /// For [`Call::Resume`](super::Call::Resume) here or at any other tracker.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub token: Vec<u8>,
    /// Milliseconds since 1970 by the trackers' clock.
    #[n(4)]
    pub now_ms: u64,
    /// One for each group that the user is a member of.
    #[n(5)]
    pub tickets: Vec<GroupTicket>,
    /// The keys with which trackers sign tickets.
    #[n(6)]
    pub ticket_keys: Vec<PeerId>,
    /// The account, for opening its key.
    #[n(7)]
    pub account: Account,
}

/// A ticket for one group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupTicket {
    /// The group's id.
    #[n(0)]
    pub group: Gid,
    /// What the group is called now.
    #[n(1)]
    pub name: GroupName,
    /// A signed [`crate::tokens::Ticket`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ticket: Vec<u8>,
}

/// A user in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UserEntry {
    /// The user's name.
    #[n(0)]
    pub name: UserName,
    /// Whether the name may still be lost.
    #[n(1)]
    pub provisional: bool,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct GroupEntry {
    /// The group's name.
    #[n(0)]
    #[serde(rename = "group")]
    pub name: GroupName,
    /// Whether the name may still be lost.
    #[n(1)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
    /// Who owns it.
    #[n(2)]
    pub owner: UserName,
    /// Whether the caller is a member; false without a login.
    #[n(3)]
    pub member: bool,
}

/// A file in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct FileEntry {
    /// The file's name.
    #[n(0)]
    pub name: FileName,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// SHA-1 of the whole file.
    #[n(2)]
    pub sha1: Sha1,
    /// Clients that share it whole now.
    #[n(3)]
    pub sharers: u32,
}

/// How much of a file a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Completeness {
    /// Nothing, or no longer anything.
    #[n(0)]
    None,
    /// Some pieces: it is being downloaded, and pieces are served.
    #[n(1)]
    Some,
    /// All of it.
    #[n(2)]
    Complete,
}

/// What a client holds of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Holding {
    /// In which group.
    #[n(0)]
    pub group: Gid,
    /// Which file.
    #[n(1)]
    pub file: Fid,
    /// How much.
    #[n(2)]
    pub completeness: Completeness,
}

/// A client that holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Holder {
    /// The client's key, proven on every bulk connection.
    #[n(0)]
    pub peer: PeerId,
    /// `ip:port` where it accepts bulk connections.
    #[n(1)]
    pub address: String,
    /// Who is logged in there.
    #[n(2)]
    pub user: UserName,
    /// How much it holds.
    #[n(3)]
    pub completeness: Completeness,
    /// Whether nothing shows that the address is the client's: its connection to its tracker came from another ip. `None` if
    /// it is, and from earlier versions.
    #[n(4)]
    pub unproven: Option<bool>,
    /// `ip:port` of each of its own networks, where it is seen at the same address as the caller.
    #[n(5)]
    pub lan: Option<Vec<String>>,
    /// Whether a tracker reached it at the address; `None` where none looked.
    #[n(6)]
    pub reached: Option<bool>,
}

impl Holder {
    /// Whether nothing shows that the address is the client's.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.unproven == Some(true)
    }
}
