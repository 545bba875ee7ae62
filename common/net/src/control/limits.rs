//! How many connections others may open on the control plane.

use crate::admission::{Full, Limit, LimitScope, Refused};

/// Bounds on what others may open. An address is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlLimits {
    /// Inbound connections in their handshakes, all together.
    pub pending: usize,
    /// Inbound connections in their handshakes from one address, so that half-open ones from one
    /// machine leave room for all others.
    pub pending_per_address: usize,
    /// Inbound connections that finished their handshakes, all together.
    pub established: usize,
    /// The same from one address.
    pub established_per_address: usize,
    /// The same from one peer. Its oldest connection gives way to a new one: after a broken connection the peer is back
    /// before we know that the old one is dead.
    pub established_per_peer: usize,
    /// Channels that the other side may have open on one connection.
    pub channels_per_connection: usize,
}

impl Default for ControlLimits {
    /// What a tracker needs: thousands of clients, hundreds of them on one machine or behind one NAT.
    fn default() -> Self {
        Self {
            pending: 512,
            pending_per_address: 64,
            established: 16_384,
            established_per_address: 2_048,
            established_per_peer: 4,
            channels_per_connection: 16,
        }
    }
}

impl ControlLimits {
    pub(super) fn of_handshakes(&self) -> Vec<Limit> {
        vec![
            Limit::new(LimitScope::All, self.pending, Full::Refuse),
            Limit::new(LimitScope::Address, self.pending_per_address, Full::Refuse),
        ]
    }

    pub(super) fn of_connections(&self) -> Vec<Limit> {
        vec![
            Limit::new(LimitScope::Peer, self.established_per_peer, Full::OldestGivesWay),
            Limit::new(LimitScope::All, self.established, Full::Refuse),
            Limit::new(LimitScope::Address, self.established_per_address, Full::Refuse),
        ]
    }
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("{0}, in their handshakes")]
    Handshake(Refused),
    #[error("{0}")]
    Connection(Refused),
    #[error("its key is not Ed25519")]
    ForeignKey,
    #[error("it comes from no IP address")]
    NoAddress,
}
