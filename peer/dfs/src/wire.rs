//! What `dfs`, and a storage node that copies, say to a storage node on the bulk lane. The dialling side asks; every request
//! has a number and ends exactly once. All payloads are CBOR but those of [`CHUNK`] and [`DATA`], which are a small head and
//! then bytes.

use minicbor::{Decode, Encode};
use shoal_common::storage::{ChunkId, MAX_SEALED_CHUNK};

/// Kind of a frame that carries a [`ToNode`].
pub const TO_NODE: u8 = 16;
/// Kind of a frame that carries a [`ToClient`].
pub const TO_CLIENT: u8 = 17;
/// Kind of a frame that carries a chunk to be stored: [`ChunkHead`], then the sealed bytes, all of them.
pub const CHUNK: u8 = 18;
/// Kind of a frame that carries bytes of a chunk that was asked for: [`DataHead`], then bytes, in order.
pub const DATA: u8 = 19;

/// Longest message in CBOR, in bytes: a thousand chunk ids and some words.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Chunks in one message at most.
pub const MAX_CHUNK_LIST: usize = 1_000;
/// Chunks in one message with their removal keys at most.
pub const MAX_DELETES: usize = 500;
/// Bytes of a chunk in one [`DATA`] frame: large enough that its head costs nothing, small enough that other answers on
/// the connection do not wait long.
pub const SLICE: usize = 128 * 1024;
/// The longest frame to a node, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "some 4 MiB")]
pub const MAX_TO_NODE: u32 = MAX_SEALED_CHUNK + ChunkHead::BYTES as u32;
/// The longest frame to a client, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "some 128 KiB")]
pub const MAX_TO_CLIENT: u32 = (SLICE + DataHead::BYTES) as u32;
/// Requests under way on one connection at most.
pub const MAX_REQUESTS: usize = 64;

/// What has one chunk deleted at once: known to its owner alone, until it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RemovalKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl RemovalKey {
    /// What a chunk that it deletes ends with.
    #[must_use]
    pub fn lock(&self) -> [u8; 32] {
        *blake3::hash(&self.0).as_bytes()
    }
}

impl std::fmt::Debug for RemovalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RemovalKey")
    }
}

/// To a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToNode {
    /// Shows a [`shoal_common::tokens::StorageTicket`]; everything after it is done for its user. → [`ToClient::Granted`]
    #[n(0)]
    Show {
        /// The ticket.
        #[cbor(n(0), with = "minicbor::bytes")]
        ticket: Vec<u8>,
    },
    /// Asks for a range of a chunk. → [`DATA`] frames, or [`ToClient::Failed`]
    #[n(1)]
    Fetch {
        /// The request's number.
        #[n(0)]
        request: u32,
        /// The chunk.
        #[n(1)]
        chunk: ChunkId,
        /// Where the range begins, in sealed bytes.
        #[n(2)]
        offset: u32,
        /// Its length; at least 1.
        #[n(3)]
        length: u32,
        /// From a node that copies: a signed [`shoal_common::tokens::CopyOrder`] instead of a ticket.
        #[cbor(n(4), with = "minicbor::bytes")]
        order: Option<Vec<u8>>,
    },
    /// Takes a request back. What is under way still comes, and so does its end.
    #[n(2)]
    Cancel {
        /// Its number.
        #[n(0)]
        request: u32,
    },
    /// Asks which of these chunks are stored and durable. They count as stored now, so that no rule deletes them soon.
    /// → [`ToClient::Held`]
    #[n(3)]
    Holds {
        /// The request's number.
        #[n(0)]
        request: u32,
        /// The chunks, at most [`MAX_CHUNK_LIST`].
        #[n(1)]
        chunks: Vec<ChunkId>,
    },
    /// Deletes chunks of the user whose removal key is shown. Others stay, and the answer is [`Failure::NotAllowed`]: a ticket
    /// that a tracker made up could name them as well. → [`ToClient::Done`]
    #[n(4)]
    Delete {
        /// The request's number.
        #[n(0)]
        request: u32,
        /// The chunks, at most [`MAX_CHUNK_LIST`], with keys [`MAX_DELETES`].
        #[n(1)]
        chunks: Vec<ChunkId>,
        /// Their removal keys, as many as chunks.
        #[n(2)]
        keys: Option<Vec<RemovalKey>>,
    },
    /// Says that a chunk came wrong: the node reads it again and, if it is rotten, reports so. → [`ToClient::Done`]
    #[n(5)]
    Check {
        /// The request's number.
        #[n(0)]
        request: u32,
        /// The chunk.
        #[n(1)]
        chunk: ChunkId,
    },
    /// Asks for an answer once the trackers know what is held now. → [`ToClient::Done`]
    #[n(6)]
    AwaitReported {
        /// The request's number.
        #[n(0)]
        request: u32,
    },
    /// Asks how the node is. Only its own machine gets an answer. → [`ToClient::Status`]
    #[n(7)]
    Status {
        /// The request's number.
        #[n(0)]
        request: u32,
    },
}

/// To a client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToClient {
    /// The ticket is good.
    #[n(0)]
    Granted {
        /// What the node's operator calls it.
        #[n(0)]
        name: String,
        /// Bytes that it could still take.
        #[n(1)]
        free: u64,
    },
    /// The ticket is not good, or not any more.
    #[n(1)]
    Refused {
        /// Whether a newer ticket would be.
        #[n(0)]
        expired: bool,
    },
    /// The chunk is stored, checked and durable.
    #[n(2)]
    Stored {
        /// The request.
        #[n(0)]
        request: u32,
    },
    /// The request was carried out.
    #[n(3)]
    Done {
        /// The request.
        #[n(0)]
        request: u32,
    },
    /// Which chunks are held.
    #[n(4)]
    Held {
        /// The request.
        #[n(0)]
        request: u32,
        /// One byte per chunk asked for: 1 if it is held.
        #[cbor(n(1), with = "minicbor::bytes")]
        held: Vec<u8>,
    },
    /// The request was not carried out.
    #[n(5)]
    Failed {
        /// The request.
        #[n(0)]
        request: u32,
        /// Why.
        #[n(1)]
        reason: Failure,
    },
    /// How the node is.
    #[n(6)]
    Status {
        /// The request.
        #[n(0)]
        request: u32,
        /// The status as JSON.
        #[n(1)]
        status: String,
    },
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
pub enum Failure {
    /// No room.
    #[error("it is full")]
    #[n(0)]
    Full,
    /// There is no such chunk of that user.
    #[error("it does not have the chunk")]
    #[n(1)]
    NotFound,
    /// The bytes are not those that the id names.
    #[error("the bytes are not those of the chunk")]
    #[n(2)]
    Damaged,
    /// Too much at once.
    #[error("it is busy")]
    #[n(3)]
    Busy,
    /// No ticket, or an order that does not hold.
    #[error("it does not allow that")]
    #[n(4)]
    NotAllowed,
    /// Its disk or object store failed.
    #[error("its disk or object store failed")]
    #[n(5)]
    Storage,
    /// It holds as much of the user's as the trackers allow. Earlier versions do not know this one.
    #[error("it holds as much of yours as the trackers allow")]
    #[n(6)]
    Quota,
}

/// What precedes a chunk to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    /// The request's number.
    pub request: u32,
    /// The chunk.
    pub chunk: ChunkId,
}

impl ChunkHead {
    /// Its length on the wire.
    pub const BYTES: usize = 36;

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.request.to_le_bytes());
        bytes[4..].copy_from_slice(&self.chunk.0);
        bytes
    }

    /// Reads them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut request, mut chunk) = ([0; 4], [0; 32]);
        request.copy_from_slice(&bytes[..4]);
        chunk.copy_from_slice(&bytes[4..]);
        Self { request: u32::from_le_bytes(request), chunk: ChunkId(chunk) }
    }
}

/// What precedes bytes of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHead {
    /// The request that they answer.
    pub request: u32,
    /// Where they begin, counted from the range's start.
    pub offset: u32,
}

impl DataHead {
    /// Its length on the wire.
    pub const BYTES: usize = 8;

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.request.to_le_bytes());
        bytes[4..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// Reads them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { request: u32::from_le_bytes([a, b, c, d]), offset: u32::from_le_bytes([e, f, g, h]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_read_back() {
        let head = ChunkHead { request: 0x0102_0304, chunk: ChunkId([7; 32]) };
        assert_eq!(head.to_bytes()[..5], [4, 3, 2, 1, 7]);
        assert_eq!(ChunkHead::from_bytes(&head.to_bytes()), head);
        let head = DataHead { request: 1, offset: 0x0a0b_0c0d };
        assert_eq!(head.to_bytes(), [1, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
        assert_eq!(DataHead::from_bytes(head.to_bytes()), head);
    }

    #[test]
    fn messages_read_back_and_have_their_form() {
        let chunks = vec![ChunkId([3; 32]); MAX_CHUNK_LIST];
        let longest = minicbor::to_vec(ToNode::Holds { request: u32::MAX, chunks: chunks.clone() }).unwrap();
        assert!(longest.len() <= MAX_MESSAGE);
        assert_eq!(
            minicbor::decode::<ToNode>(&longest).unwrap(),
            ToNode::Holds { request: u32::MAX, chunks }
        );
        let (chunks, keys) =
            (vec![ChunkId([3; 32]); MAX_DELETES], Some(vec![RemovalKey([4; 32]); MAX_DELETES]));
        let longest = ToNode::Delete { request: u32::MAX, chunks, keys };
        let bytes = minicbor::to_vec(&longest).unwrap();
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(minicbor::decode::<ToNode>(&bytes).unwrap(), longest);
        // As a client before removal keys says it: without them.
        let old = minicbor::decode::<ToNode>(&[0x82, 4, 0x82, 9, 0x80]).unwrap();
        assert_eq!(old, ToNode::Delete { request: 9, chunks: vec![], keys: None });
        let failed = ToClient::Failed { request: 5, reason: Failure::NotFound };
        let bytes = minicbor::to_vec(&failed).unwrap();
        assert_eq!(bytes, [0x82, 5, 0x82, 5, 1]);
        assert_eq!(minicbor::decode::<ToClient>(&bytes).unwrap(), failed);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = minicbor::decode::<ToNode>(&bytes);
            let _ = minicbor::decode::<ToClient>(&bytes);
        }
    }
}
