//! The messages between peers on a bulk connection.
//!
//! The peer that dials is the *requester*, the one that accepts the *server*. Two peers that trade pieces have one connection
//! each way. A connection carries many files, each on a channel that the requester numbers. Frames have a kind and a payload
//! (`shoal-net` frames them). All payloads are CBOR except that of [`DATA`], which is [`DataHead`] and then bytes.
//!
//! Every request ends exactly once: with the piece's last block, with [`ToRequester::NotNow`] or [`ToRequester::Busy`]
//! for that piece, or with its channel. Until then it counts as in flight, even after it was cancelled.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::ids::{Fid, Gid};

/// Kind of a frame that carries a [`ToServer`].
pub const TO_SERVER: u8 = 1;
/// Kind of a frame that carries a [`ToRequester`].
pub const TO_REQUESTER: u8 = 2;
/// Kind of a frame that carries a block of a piece, from server to requester.
pub const DATA: u8 = 3;

/// From the requester.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToServer {
    /// Opens a file on a channel that is not in use.
    #[n(0)]
    Open {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The file's group.
        #[n(1)]
        group: Gid,
        /// The file.
        #[n(2)]
        file: Fid,
        /// A signed [`crate::tokens::Ticket`] of this peer for the group.
        #[cbor(n(3), with = "minicbor::bytes")]
        ticket: Vec<u8>,
    },
    /// A newer ticket for the channel's group, before the last one runs out.
    #[n(1)]
    Ticket {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The ticket.
        #[cbor(n(1), with = "minicbor::bytes")]
        ticket: Vec<u8>,
    },
    /// Asks for a piece, whole.
    #[n(2)]
    Request {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The piece's index.
        #[n(1)]
        piece: u32,
    },
    /// Cancels a request. Blocks that are under way still arrive, and so does the request's end.
    #[n(3)]
    Cancel {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The piece's index.
        #[n(1)]
        piece: u32,
    },
    /// Pieces that the requester holds now, wherever they came from.
    #[n(4)]
    Have {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The pieces' indices.
        #[n(1)]
        pieces: Vec<u32>,
    },
    /// Closes the channel.
    #[n(5)]
    Close {
        /// The channel.
        #[n(0)]
        channel: u32,
    },
}

/// From the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToRequester {
    /// The channel is open.
    #[n(0)]
    Opened {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// What the server holds of the file; [`crate::Bitfield::to_bytes`], or none for all of it.
        #[cbor(n(1), with = "minicbor::bytes")]
        have: Option<Vec<u8>>,
    },
    /// The channel is not, or no longer, open.
    #[n(1)]
    Refused {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// Why.
        #[n(1)]
        reason: Refused,
        /// What is wrong with the server's copy, if that is the reason.
        #[n(2)]
        copy: Option<CopyTrouble>,
    },
    /// Pieces that the server got since.
    #[n(2)]
    Have {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The pieces' indices.
        #[n(1)]
        pieces: Vec<u32>,
    },
    /// This piece cannot be served now.
    #[n(3)]
    NotNow {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The piece's index.
        #[n(1)]
        piece: u32,
        /// Milliseconds after which it may be asked for again.
        #[n(2)]
        after_ms: u32,
        /// A piece that is better asked for now, if there is one.
        #[n(3)]
        instead: Option<u32>,
    },
    /// No piece can be served now: all upload slots are taken.
    #[n(4)]
    Busy {
        /// The channel.
        #[n(0)]
        channel: u32,
        /// The piece's index.
        #[n(1)]
        piece: u32,
        /// Milliseconds after which it is worth asking again.
        #[n(2)]
        after_ms: u32,
    },
}

/// Why a channel is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Refused {
    /// The ticket is not this peer's, not this group's, forged, or signed by an unknown key.
    #[n(0)]
    Ticket,
    /// The ticket expired; a newer one opens the channel again.
    #[n(1)]
    Expired,
    /// The file is not shared here (any more).
    #[n(2)]
    NotShared,
    /// The file changed on disk since it was shared.
    #[n(3)]
    Changed,
    /// Too many channels or requests.
    #[n(4)]
    Limit,
    /// A message that cannot be understood.
    #[n(5)]
    Malformed,
}

/// Why a server does not serve its copy of a file now. It goes beside a [`Refused`] that peers without this field
/// understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyTrouble {
    /// It was touched, and is being compared with what was shared. It may be served again soon.
    Checked,
    /// It is not where it was, or the drive is not connected. It is served again when it is back.
    Missing,
    /// It cannot be read at present.
    Unreadable,
    /// It holds something else now.
    Changed,
    /// A later version's trouble.
    Unknown,
}

impl CopyTrouble {
    /// The number on the wire.
    fn number(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Checked => 1,
            Self::Missing => 2,
            Self::Unreadable => 3,
            Self::Changed => 4,
        }
    }
}

impl<C> Encode<C> for CopyTrouble {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.u32(self.number()).map(|_| ())
    }
}

impl<'b, C> Decode<'b, C> for CopyTrouble {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        // A number that a later version added is no reason to end a connection.
        let number = d.u32()?;
        let known = [Self::Checked, Self::Missing, Self::Unreadable, Self::Changed];
        Ok(known.into_iter().find(|trouble| trouble.number() == number).unwrap_or(Self::Unknown))
    }
}

/// What precedes the bytes of a [`DATA`] frame: three numbers, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHead {
    /// The channel.
    pub channel: u32,
    /// The piece's index.
    pub piece: u32,
    /// Where in the piece the bytes belong. Blocks of a piece come in order.
    pub offset: u32,
}

impl DataHead {
    /// Length on the wire in bytes.
    pub const BYTES: usize = 12;

    /// The wire form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.channel.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.piece.to_le_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// Reads the wire form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { channel: number(0), piece: number(4), offset: number(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let request = ToServer::Request { channel: 1, piece: 300 };
        assert_eq!(minicbor::to_vec(&request).unwrap(), [0x82, 2, 0x82, 1, 0x19, 1, 44]);
        assert_eq!(minicbor::decode::<ToServer>(&[0x82, 2, 0x82, 1, 0x19, 1, 44]).unwrap(), request);
        let head = DataHead { channel: 1, piece: 2, offset: 0x0403 };
        assert_eq!(head.to_bytes(), [1, 0, 0, 0, 2, 0, 0, 0, 3, 4, 0, 0]);
    }

    #[test]
    fn a_refusal_that_says_more_is_one_that_earlier_versions_read() {
        let refused = |copy| ToRequester::Refused { channel: 1, reason: Refused::NotShared, copy };
        let bytes = |copy| minicbor::to_vec(refused(copy)).unwrap();
        assert_eq!(bytes(None), [0x82, 1, 0x82, 1, 2], "as it ever was");
        assert_eq!(bytes(Some(CopyTrouble::Missing)), [0x82, 1, 0x83, 1, 2, 2]);
        for copy in
            [CopyTrouble::Checked, CopyTrouble::Missing, CopyTrouble::Unreadable, CopyTrouble::Changed]
        {
            assert_eq!(minicbor::decode::<ToRequester>(&bytes(Some(copy))).unwrap(), refused(Some(copy)));
        }
        let later = minicbor::decode::<ToRequester>(&[0x82, 1, 0x84, 1, 2, 0x18, 99, 7]).unwrap();
        assert_eq!(later, refused(Some(CopyTrouble::Unknown)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = minicbor::decode::<ToServer>(&bytes);
            let _ = minicbor::decode::<ToRequester>(&bytes);
        }

        #[test]
        fn data_heads_read_back(channel: u32, piece: u32, offset: u32) {
            let head = DataHead { channel, piece, offset };
            prop_assert_eq!(DataHead::from_bytes(&head.to_bytes()), head);
        }
    }
}
