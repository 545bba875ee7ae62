//! The encrypted file store's part of the API: storage nodes' reports and trackers' orders, and users' calls about their stored
//! files.
//!
//! A node keeps a connection to *every* tracker and sends each the same reports. Only the lowest-numbered tracker orders copies.
//! Every tracker orders deletions on its own, and the node deletes what the majority orders. Orders are idempotent: one that
//! was carried out already, or is obsolete, is done.

use minicbor::{Decode, Encode};

use crate::digest::Blake3;
use crate::ids::{RequestId, Uid};
use crate::join::JoinProof;
use crate::names::NodeName;
use crate::peer_id::PeerId;
use crate::storage::{ChunkId, PointerKey};

/// Storage nodes that a tracker keeps at most.
pub const MAX_NODES: usize = 256;
/// Chunks that one node may report at most: 8 TB in the longest chunks, 100 MB of a tracker's memory.
pub const MAX_NODE_CHUNKS: usize = 2_000_000;
/// Changes in one report at most.
pub const MAX_REPORT: usize = 1_000;
/// Orders in one answer at most.
pub const MAX_ORDERS: usize = 64;
/// Stored files in one page of a list at most: their sealed parts fit one message.
pub const MAX_STORED_PAGE: usize = 250;
/// How long a lease holds without being renewed, in milliseconds; renew at a third of it.
pub const LEASE_LIFE_MS: u64 = 60_000;

/// A chunk of one user. Nodes and trackers identify chunks by both, so that naming another user's chunk gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct OwnedChunk {
    /// Whose it is: the user whose ticket it was stored under.
    #[n(0)]
    pub owner: Uid,
    /// Which.
    #[n(1)]
    pub chunk: ChunkId,
}

/// What a storage node says. [`NodeAnswer`] names the variant that answers each.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NodeCall {
    /// First, after [`Call::Hello`](super::Call::Hello) with the address at which the node accepts bulk connections. The tracker
    /// dials it to see who answers. → [`NodeAnswer::Registered`]
    #[n(0)]
    Register {
        /// What operators call it.
        #[n(0)]
        name: NodeName,
        /// Proof that it knows the cluster's join secret. A node without one waits for an operator to admit it.
        #[n(1)]
        proof: Option<JoinProof>,
    },
    /// What the node holds, or what changed; also its sign of life. Sent every [`NodeAnswer::Orders::retry_after_ms`] at the
    /// latest, and at once when something changed. → [`NodeAnswer::Orders`]
    #[n(1)]
    Report(#[n(0)] Box<NodeReport>),
}

/// What a node holds. The first report on a connection begins a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeReport {
    /// Whether a snapshot begins here. Once it is complete, what was reported before is void.
    #[n(0)]
    pub reset: bool,
    /// Whether more pages of the snapshot follow. Until the last came, the one before counts.
    #[n(1)]
    pub more: bool,
    /// Chunks that are stored, checked and durable now; at most [`MAX_REPORT`] with `gone` and `failed`. One that was
    /// stored again is reported again.
    #[n(2)]
    pub held: Vec<OwnedChunk>,
    /// Chunks that are not, or no longer readable: deleted, rotten, never found.
    #[n(3)]
    pub gone: Vec<OwnedChunk>,
    /// Orders that could not be carried out; after a while they are given again, perhaps to another node.
    #[n(4)]
    pub failed: Vec<OwnedChunk>,
    /// Bytes that the node may hold.
    #[n(5)]
    pub capacity: u64,
    /// Bytes that it could still take.
    #[n(6)]
    pub free: u64,
}

/// What answers a [`NodeCall`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NodeAnswer {
    /// To [`NodeCall::Register`].
    #[n(0)]
    Registered {
        /// Where the tracker reaches the node; clients get this address.
        #[n(0)]
        address: String,
    },
    /// To [`NodeCall::Report`].
    #[n(1)]
    Orders {
        /// What to do.
        #[n(0)]
        orders: Vec<Order>,
        /// The keys with which trackers sign tickets and copy orders.
        #[n(1)]
        ticket_keys: Vec<PeerId>,
        /// Milliseconds since 1970 by the trackers' clock.
        #[n(2)]
        now_ms: u64,
        /// After how many milliseconds the next report is due at the latest.
        #[n(3)]
        retry_after_ms: u32,
    },
}

/// What a node is to do.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Order {
    /// Fetch a chunk from another node and store it under its owner.
    #[n(0)]
    Copy {
        /// Which.
        #[n(0)]
        chunk: OwnedChunk,
        /// Length of its sealed bytes.
        #[n(1)]
        sealed: u32,
        /// Who holds it.
        #[n(2)]
        from: PeerId,
        /// `ip:port` where that node accepts bulk connections.
        #[n(3)]
        address: String,
        /// A signed [`crate::tokens::CopyOrder`], to be shown there.
        #[cbor(n(4), with = "minicbor::bytes")]
        order: Vec<u8>,
    },
    /// Delete a chunk that no file names, unless it was stored, or stored again, less than `min_age_ms` ago. One tracker's
    /// order: the node follows the majority of the trackers that it was started with, and rules of its own.
    #[n(1)]
    Delete {
        /// Which.
        #[n(0)]
        chunk: OwnedChunk,
        /// By the node's own clock.
        #[n(1)]
        min_age_ms: u64,
    },
}

/// What a logged-in user asks about the store. [`StoreAnswer`] names the variant that answers each.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum StoreCall {
    /// A ticket to show to storage nodes; at half its life at the latest. → [`StoreAnswer::Ticket`]
    #[n(0)]
    Ticket,
    /// The storage nodes that the trackers know; needs no login. → [`StoreAnswer::Nodes`]
    #[n(1)]
    Nodes,
    /// Names a stored file, or a new version in place of the old one. To be called once min(copies, 2) copies of every chunk are
    /// durable. → [`StoreAnswer::Ok`]
    #[n(2)]
    Put {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Under which key.
        #[n(1)]
        key: PointerKey,
        /// An encoded [`crate::storage::StoreManifest`].
        #[cbor(n(2), with = "minicbor::bytes")]
        manifest: Vec<u8>,
        /// The sealed part, at most [`crate::storage::MAX_SEALED_PART`].
        #[cbor(n(3), with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
    /// A stored file. → [`StoreAnswer::File`]
    #[n(3)]
    Get {
        /// Under which key.
        #[n(0)]
        key: PointerKey,
    },
    /// The caller's stored files. → [`StoreAnswer::Files`]
    #[n(4)]
    List {
        /// Begins behind this key.
        #[n(0)]
        after: Option<PointerKey>,
    },
    /// Forgets a stored file. → [`StoreAnswer::Removed`]
    #[n(5)]
    Remove {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Under which key.
        #[n(1)]
        key: PointerKey,
    },
    /// While a PUT or GET runs: keeps the trackers from having any chunk of this user deleted for [`LEASE_LIFE_MS`].
    /// → [`StoreAnswer::Ok`]
    #[n(6)]
    Lease {
        /// The PUT's or GET's id.
        #[n(0)]
        id: RequestId,
        /// Whether it ends now.
        #[n(1)]
        end: bool,
    },
    /// The store's status. → [`StoreAnswer::Status`]
    #[n(7)]
    Status,
}

/// What answers a [`StoreCall`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum StoreAnswer {
    /// Done.
    #[n(0)]
    Ok,
    /// To [`StoreCall::Ticket`].
    #[n(1)]
    Ticket {
        /// A signed [`crate::tokens::StorageTicket`].
        #[cbor(n(0), with = "minicbor::bytes")]
        ticket: Vec<u8>,
        /// Milliseconds since 1970 by the trackers' clock.
        #[n(1)]
        now_ms: u64,
    },
    /// To [`StoreCall::Nodes`], by name.
    #[n(2)]
    Nodes(#[n(0)] Vec<NodeEntry>),
    /// To [`StoreCall::Get`].
    #[n(3)]
    File(#[n(0)] Box<StoredFile>),
    /// To [`StoreCall::List`], by key.
    #[n(4)]
    Files {
        /// The files.
        #[n(0)]
        files: Vec<StoredEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`StoreCall::Remove`].
    #[n(5)]
    Removed {
        /// Whether there was such a file.
        #[n(0)]
        existed: bool,
        /// Whether a PUT or GET of this user holds a lease. If none does, the client may have the nodes delete the file's
        /// chunks at once; otherwise the trackers have them deleted later.
        #[n(1)]
        leased: bool,
    },
    /// To [`StoreCall::Status`].
    #[n(6)]
    Status(#[n(0)] Box<StoreStatus>),
}

/// A storage node as the trackers know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeEntry {
    /// Its key, proven on every bulk connection.
    #[n(0)]
    pub peer: PeerId,
    /// What its operator calls it.
    #[n(1)]
    pub name: NodeName,
    /// `ip:port` where it accepts bulk connections, as the tracker reaches it.
    #[n(2)]
    pub address: String,
    /// Whether it is connected to this tracker now.
    #[n(3)]
    pub up: bool,
    /// Milliseconds since it last reported, if it did.
    #[n(4)]
    pub silent_ms: Option<u64>,
    /// Bytes that it may hold.
    #[n(5)]
    pub capacity: u64,
    /// Bytes that it could still take.
    #[n(6)]
    pub free: u64,
    /// Chunks that it holds.
    #[n(7)]
    pub chunks: u64,
    /// The key that took this one's place, if the server came back with another: manifests that name this one mean that one.
    #[n(8)]
    pub successor: Option<PeerId>,
}

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoredFile {
    /// BLAKE3 of `manifest`: which version it is.
    #[n(0)]
    pub version: Blake3,
    /// An encoded [`crate::storage::StoreManifest`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    /// The sealed part.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// When it was stored, in milliseconds since 1970.
    #[n(3)]
    pub stored_ms: u64,
}

/// A stored file in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoredEntry {
    /// Its key.
    #[n(0)]
    pub key: PointerKey,
    /// Which version it is.
    #[n(1)]
    pub version: Blake3,
    /// The sealed part.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// When it was stored, in milliseconds since 1970.
    #[n(3)]
    pub stored_ms: u64,
    /// The state of its copies.
    #[n(4)]
    pub health: Health,
}

/// The state of a file's copies, by its servers' reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Health {
    /// Copies of each chunk that are wanted.
    #[n(0)]
    pub wanted: u8,
    /// The least live copies of any chunk, on servers that are up; `wanted` for an empty file.
    #[n(1)]
    pub copies: u8,
    /// Chunks of the file.
    #[n(2)]
    pub chunks: u32,
    /// Chunks without a live copy.
    #[n(3)]
    pub missing: u32,
}

/// The store's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreStatus {
    /// The nodes.
    #[n(0)]
    pub nodes: Vec<NodeEntry>,
    /// Stored files, of all users.
    #[n(1)]
    pub files: u64,
    /// Chunks that they name.
    #[n(2)]
    pub chunks: u64,
    /// Copies that are to be made: of chunks with fewer than wanted.
    #[n(3)]
    pub missing_copies: u64,
    /// Chunks of which no server reports a copy.
    #[n(4)]
    pub lost_chunks: u64,
    /// Copies under way now by order of this tracker.
    #[n(5)]
    pub copying: u64,
    /// The number of the tracker that gives orders now.
    #[n(6)]
    pub ordered_by: u8,
    /// Chunks on nodes that no file names.
    #[n(7)]
    pub unnamed: u64,
    /// Why nothing is deleted now, in words; `None` while deletions go on.
    #[n(8)]
    pub deletions_held: Option<String>,
    /// Bytes that the caller may still store, in all copies; `None` without a limit, and from earlier versions.
    #[n(9)]
    pub room: Option<u64>,
}
