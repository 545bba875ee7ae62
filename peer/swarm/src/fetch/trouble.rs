//! Why a source is over, for programs; the words beside it are for people.

use shoal_common::peer_wire::CopyTrouble;

/// Why a source is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Nothing listens at the peer's address: it refuses connections.
    Refuses,
    /// Nothing answers at the peer's address, or the peer does not answer any more.
    Silent,
    /// Another key answers at the peer's address.
    OtherKey,
    /// The network does not lead to the peer's address, or no address was given.
    NoWay,
    /// This process may not open more connections.
    Connections,
    /// The peer serves too many others.
    Busy,
    /// The peer does not share the file any more.
    NotShared,
    /// Something is the matter with the peer's copy of the file.
    Copy(CopyTrouble),
    /// The peer does not accept this client's ticket.
    Ticket,
    /// The peer does not understand this client: it is of another version.
    Version,
    /// The connection broke.
    Lost,
}

/// Why a peer cannot be connected to: in words that read on behind its name, and for programs.
#[derive(Debug, Clone)]
pub(super) struct Unreached {
    pub(super) reason: String,
    pub(super) trouble: Trouble,
}

impl Trouble {
    /// What is the matter with the peer's copy of the file, if that is why.
    #[must_use]
    pub fn copy(self) -> Option<CopyTrouble> {
        if let Self::Copy(copy) = self { Some(copy) } else { None }
    }
}
