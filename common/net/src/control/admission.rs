//! How many connections there may be: the counting, without the connections.
//!
//! Asked by `behaviour` before each step of an inbound connection. Connections that we dial ourselves
//! are not counted: our own code decides how many it wants.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use shoal_common::PeerId;

use crate::address::site;

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
    /// The same from one peer. Its oldest connection gives way to a new one: after a broken link the
    /// peer is back before we know that the old connection is dead.
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

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too many connections in their handshakes")]
    Pending,
    #[error("too many connections in their handshakes from this address")]
    PendingFromAddress,
    #[error("too many connections")]
    Established,
    #[error("too many connections from this address")]
    EstablishedFromAddress,
    #[error("its key is not Ed25519")]
    ForeignKey,
    #[error("it comes from no IP address")]
    NoAddress,
}

/// Inbound connections by id. `C` is the connection's id.
#[derive(Debug)]
pub(crate) struct Admission<C> {
    limits: ControlLimits,
    pending: HashMap<C, IpAddr>,
    pending_at: HashMap<IpAddr, usize>,
    established: HashMap<C, (IpAddr, PeerId)>,
    established_at: HashMap<IpAddr, usize>,
    /// Oldest first.
    by_peer: HashMap<PeerId, Vec<C>>,
}

impl<C: Copy + Eq + Hash> Admission<C> {
    pub(crate) fn new(limits: ControlLimits) -> Self {
        Self {
            limits,
            pending: HashMap::new(),
            pending_at: HashMap::new(),
            established: HashMap::new(),
            established_at: HashMap::new(),
            by_peer: HashMap::new(),
        }
    }

    /// A connection came in; its handshakes may begin.
    pub(crate) fn begin(&mut self, connection: C, from: IpAddr) -> Result<(), Refused> {
        let from = site(from);
        if self.pending.len() >= self.limits.pending {
            return Err(Refused::Pending);
        }
        if count(&self.pending_at, from) >= self.limits.pending_per_address {
            return Err(Refused::PendingFromAddress);
        }
        self.pending.insert(connection, from);
        *self.pending_at.entry(from).or_default() += 1;
        Ok(())
    }

    /// The handshakes failed, or [`establish`](Self::establish) follows.
    pub(crate) fn end_handshake(&mut self, connection: C) {
        if let Some(from) = self.pending.remove(&connection) {
            decrease(&mut self.pending_at, from);
        }
    }

    /// The handshakes are done. `Some` names the connection of the same peer that has to go.
    pub(crate) fn establish(
        &mut self,
        connection: C,
        from: IpAddr,
        peer: PeerId,
    ) -> Result<Option<C>, Refused> {
        self.end_handshake(connection);
        let from = site(from);
        let mine = self.by_peer.get(&peer).map_or(&[][..], Vec::as_slice);
        let oldest =
            (mine.len() >= self.limits.established_per_peer).then(|| mine.first().copied()).flatten();
        if oldest.is_none() {
            if self.established.len() >= self.limits.established {
                return Err(Refused::Established);
            }
            if count(&self.established_at, from) >= self.limits.established_per_address {
                return Err(Refused::EstablishedFromAddress);
            }
        }
        if let Some(oldest) = oldest {
            self.close(oldest);
        }
        self.established.insert(connection, (from, peer));
        *self.established_at.entry(from).or_default() += 1;
        self.by_peer.entry(peer).or_default().push(connection);
        Ok(oldest)
    }

    /// The connection is gone; unknown ones are none of ours.
    pub(crate) fn close(&mut self, connection: C) {
        let Some((from, peer)) = self.established.remove(&connection) else { return };
        decrease(&mut self.established_at, from);
        if let Entry::Occupied(mut mine) = self.by_peer.entry(peer) {
            mine.get_mut().retain(|other| *other != connection);
            if mine.get().is_empty() {
                mine.remove();
            }
        }
    }
}

fn count(counts: &HashMap<IpAddr, usize>, at: IpAddr) -> usize {
    counts.get(&at).copied().unwrap_or(0)
}

fn decrease(counts: &mut HashMap<IpAddr, usize>, at: IpAddr) {
    if let Entry::Occupied(mut entry) = counts.entry(at) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ControlLimits = ControlLimits {
        pending: 5,
        pending_per_address: 2,
        established: 6,
        established_per_address: 3,
        established_per_peer: 2,
        channels_per_connection: 1,
    };

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    #[test]
    fn half_open_connections_of_one_address_leave_room_for_others() {
        let mut admission = Admission::new(LIMITS);
        assert_eq!(admission.begin(1, address(1)), Ok(()));
        assert_eq!(admission.begin(2, address(1)), Ok(()));
        assert_eq!(admission.begin(3, address(1)), Err(Refused::PendingFromAddress));
        assert_eq!(admission.begin(4, address(2)), Ok(()));
        admission.end_handshake(1);
        assert_eq!(admission.begin(5, address(1)), Ok(()));
        assert_eq!(admission.begin(6, address(3)), Ok(()));
        assert_eq!(admission.begin(7, address(3)), Ok(()));
        assert_eq!(admission.begin(8, address(4)), Err(Refused::Pending));
    }

    #[test]
    fn a_peers_newest_connection_replaces_its_oldest() {
        let mut admission = Admission::new(LIMITS);
        assert_eq!(admission.establish(1, address(1), peer(1)), Ok(None));
        assert_eq!(admission.establish(2, address(1), peer(1)), Ok(None));
        assert_eq!(admission.establish(3, address(1), peer(1)), Ok(Some(1)));
        assert_eq!(admission.establish(4, address(1), peer(1)), Ok(Some(2)));
        admission.close(1);
        assert_eq!(admission.established.len(), 2);
    }

    #[test]
    fn totals_hold() {
        let mut admission = Admission::new(LIMITS);
        for number in 1..=3 {
            assert_eq!(admission.establish(number, address(1), peer(number)), Ok(None));
        }
        assert_eq!(admission.establish(4, address(1), peer(4)), Err(Refused::EstablishedFromAddress));
        for number in 5..=7 {
            assert_eq!(admission.establish(number, address(2), peer(number)), Ok(None));
        }
        assert_eq!(admission.establish(8, address(3), peer(8)), Err(Refused::Established));
        admission.close(1);
        assert_eq!(admission.establish(9, address(3), peer(9)), Ok(None));
    }

    proptest! {
        #[test]
        fn counts_agree_with_the_connections_and_end_at_nothing(
            steps in prop::collection::vec((0_u8..4, 0_u32..20, 0_u8..4, 0_u8..4), 0..200),
        ) {
            let mut admission = Admission::new(LIMITS);
            for (step, connection, from, who) in steps {
                match step {
                    0 if !admission.pending.contains_key(&connection) => {
                        let _ = admission.begin(connection, address(from));
                    }
                    1 if !admission.established.contains_key(&connection) => {
                        let _ = admission.establish(connection, address(from), peer(who));
                    }
                    2 => admission.end_handshake(connection),
                    _ => admission.close(connection),
                }
                prop_assert_eq!(admission.pending_at.values().sum::<usize>(), admission.pending.len());
                prop_assert_eq!(admission.established_at.values().sum::<usize>(), admission.established.len());
                prop_assert_eq!(
                    admission.by_peer.values().map(Vec::len).sum::<usize>(),
                    admission.established.len()
                );
                prop_assert!(admission.pending_at.values().all(|n| *n <= LIMITS.pending_per_address));
                prop_assert!(admission.by_peer.values().all(|c| c.len() <= LIMITS.established_per_peer));
                prop_assert!(admission.established.len() <= LIMITS.established);
            }
            for connection in 0..20 {
                admission.end_handshake(connection);
                admission.close(connection);
            }
            prop_assert!(admission.pending_at.is_empty() && admission.established_at.is_empty());
            prop_assert!(admission.by_peer.is_empty());
        }
    }
}
