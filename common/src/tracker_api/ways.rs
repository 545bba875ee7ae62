//! How two clients that cannot simply connect come together: what a client says of where it is, what it asks of a sharer, and what
//! a tracker says without being asked.

use minicbor::{Decode, Encode};

use crate::ids::{Fid, Gid};
use crate::peer_id::PeerId;

/// The [`REVISION`](super::REVISION) from which on clients and trackers know what is here.
pub const WAYS: u32 = 4;
/// The number of a message that answers no call. Calls begin with 1.
pub const PUSH: u32 = 0;
/// Addresses on its own networks that a client names at most.
pub const MAX_LAN: usize = 8;
/// Bytes of the secret that one end of a relayed connection shows to the relay.
pub const RELAY_TOKEN: usize = 32;

/// What a client asks about ways. → [`Answer::Way`](super::Answer::Way)
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum WayCall {
    /// After each login: where the caller is on its own networks. The tracker looks whether it reaches the caller, and says so by
    /// [`Push::Reached`]. → [`WayAnswer::Here`]
    #[n(0)]
    Here {
        /// `ip:port` of each, at most [`MAX_LAN`]. They are told to members of a common group that are seen at the same address alone.
        #[n(0)]
        lan: Vec<String>,
    },
    /// Asks a holder of a file to connect to the caller. → [`WayAnswer::Asked`] or [`WayAnswer::Relayed`]
    #[n(1)]
    Knock {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
        /// The holder.
        #[n(2)]
        peer: PeerId,
        /// A signed [`crate::tokens::Knock`], which is passed on.
        #[cbor(n(3), with = "minicbor::bytes")]
        knock: Vec<u8>,
        /// Whether both are to meet at the tracker, which passes on what they say.
        #[n(4)]
        relay: bool,
    },
}

/// What answers a [`WayCall`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum WayAnswer {
    /// To [`WayCall::Here`].
    #[n(0)]
    Here {
        /// `ip:port` that others are given for the caller.
        #[n(0)]
        address: String,
        /// Whether the caller's connection comes from that ip. Only then the tracker looks whether it reaches the caller there.
        #[n(1)]
        proven: bool,
        /// Whether this tracker passes on what two clients say that cannot connect.
        #[n(2)]
        relays: bool,
    },
    /// To [`WayCall::Knock`]: it is passed on.
    #[n(1)]
    Asked,
    /// The same, where both meet at a tracker.
    #[n(2)]
    Relayed(#[n(0)] Meeting),
}

/// Where one end of a relayed connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Meeting {
    /// The tracker's number. Where that is, each end knows by itself.
    #[n(0)]
    pub tracker: u8,
    /// What to show there, once.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub token: [u8; RELAY_TOKEN],
}

/// What a tracker says without being asked, under the number [`PUSH`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Push {
    /// Whether the tracker reached the client at the address that others are given.
    #[n(0)]
    Reached {
        /// That address.
        #[n(0)]
        address: String,
        /// Whether it answers there with its key.
        #[n(1)]
        reached: bool,
    },
    /// Another client asks this one to connect to it.
    #[n(1)]
    Knock {
        /// A signed [`crate::tokens::Knock`].
        #[cbor(n(0), with = "minicbor::bytes")]
        knock: Vec<u8>,
        /// Where to meet; without it the client is to be dialled.
        #[n(1)]
        meeting: Option<Meeting>,
    },
}
