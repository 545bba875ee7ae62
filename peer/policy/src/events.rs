//! The events that go into the policy and the actions that come out.

use std::time::Duration;

use shoal_common::{Fid, Gid, Layout, PeerId, PieceIndex, Uid};

/// A file as peers name it to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// The group whose members may have it.
    pub group: Gid,
    /// The file.
    pub file: Fid,
}

/// One file opened on one connection by one requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(
    /// Chosen by the caller.
    pub u64,
);

/// What happened.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each event's doc says what its fields are")]
pub enum Event {
    /// A requester, a peer of that user, opened a file. `seeding`: whether the whole of it is here. While a peer has
    /// something open, it counts as a peer of the first user that was named for it.
    Opened { channel: ChannelId, user: Uid, peer: PeerId, key: FileKey, layout: Layout, seeding: bool },
    /// The whole file is here now.
    Completed { key: FileKey },
    /// A requester holds these pieces.
    Have { channel: ChannelId, pieces: Vec<PieceIndex> },
    /// A requester asks for a piece that is here.
    Request { channel: ChannelId, piece: PieceIndex },
    /// It cancels that request.
    Cancel { channel: ChannelId, piece: PieceIndex },
    /// A piece went out whole.
    Sent { channel: ChannelId, piece: PieceIndex },
    /// A piece that was to be served did not go out whole.
    Aborted { channel: ChannelId, piece: PieceIndex },
    /// A channel closed.
    Closed { channel: ChannelId },
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each action's doc says what its fields are")]
pub enum Action {
    /// Send the piece, then report [`Event::Sent`] or [`Event::Aborted`].
    Serve { channel: ChannelId, piece: PieceIndex },
    /// Stop sending the piece, then report [`Event::Aborted`].
    Stop { channel: ChannelId, piece: PieceIndex },
    /// Answer that the piece is not served now.
    NotNow { channel: ChannelId, piece: PieceIndex, after: Duration, instead: Option<PieceIndex> },
    /// Answer that nothing is served now.
    Busy { channel: ChannelId, piece: PieceIndex, after: Duration },
}

impl Action {
    /// The channel that it is about.
    pub fn channel(&self) -> ChannelId {
        match *self {
            Self::Serve { channel, .. }
            | Self::Stop { channel, .. }
            | Self::NotNow { channel, .. }
            | Self::Busy { channel, .. } => channel,
        }
    }
}
