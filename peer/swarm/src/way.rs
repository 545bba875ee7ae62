//! Over which way a connection runs.

use std::net::SocketAddr;

/// Over which way a connection between two clients runs, the best first. Every way carries the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Within this machine's own network.
    Lan,
    /// The one that asks dialled the one that serves.
    Direct,
    /// The one that serves dialled the one that asks, which was reached where it was not.
    Reversed,
    /// Both met at a tracker, which passes on what it cannot read.
    Relayed,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lan, Self::Direct, Self::Reversed, Self::Relayed];

    /// Its name: `lan`, `direct`, `reversed` or `relayed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Reversed => "reversed",
            Self::Relayed => "relayed",
        }
    }
}

/// How a connection to a peer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// By dialling that address.
    To(SocketAddr),
    /// The peer dialled.
    Reversed,
    /// Through a relay.
    Relayed,
}
