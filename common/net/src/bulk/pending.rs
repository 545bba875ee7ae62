//! Which handshake has to give way when too many are under way: the rule, without the sockets.
//!
//! A new connection is always let in, and an old one that has not finished its handshake goes: real
//! peers finish within a few round trips, while somebody who holds half-open connections only loses
//! their own.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::address::site;

/// Handshakes under way, oldest first. `K` names one.
#[derive(Debug)]
pub(super) struct Pending<K> {
    total: usize,
    per_address: usize,
    order: VecDeque<(K, IpAddr)>,
}

impl<K: Copy + Eq> Pending<K> {
    pub(super) fn new(total: usize, per_address: usize) -> Self {
        Self { total, per_address, order: VecDeque::new() }
    }

    /// Adds one and names the one that has to go: the oldest from the same address if that has its
    /// share already, else the oldest of the address that has most.
    pub(super) fn add(&mut self, key: K, from: IpAddr) -> Option<K> {
        let from = site(from);
        let mine = self.order.iter().filter(|(_, at)| *at == from).count();
        let crowded = if mine >= self.per_address {
            Some(from)
        } else if self.order.len() >= self.total {
            self.most_crowded()
        } else {
            None
        };
        let victim = crowded.and_then(|crowded| self.order.iter().position(|(_, at)| *at == crowded));
        let victim = victim.and_then(|position| self.order.remove(position)).map(|(key, _)| key);
        self.order.push_back((key, from));
        victim
    }

    /// It is done, or was told to go.
    pub(super) fn remove(&mut self, key: K) {
        self.order.retain(|(other, _)| *other != key);
    }

    fn most_crowded(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, at) in &self.order {
            *counts.entry(*at).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(at, count)| (*count, *at)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn an_address_over_its_share_loses_its_own_oldest() {
        let mut pending = Pending::new(10, 2);
        assert_eq!(pending.add(1, address(1)), None);
        assert_eq!(pending.add(2, address(2)), None);
        assert_eq!(pending.add(3, address(1)), None);
        assert_eq!(pending.add(4, address(1)), Some(1));
        assert_eq!(pending.add(5, address(1)), Some(3));
    }

    #[test]
    fn when_all_is_full_the_most_crowded_address_loses() {
        let mut pending = Pending::new(4, 3);
        for (key, from) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
            assert_eq!(pending.add(key, address(from)), None);
        }
        assert_eq!(pending.add(5, address(3)), Some(2));
        pending.remove(3);
        assert_eq!(pending.add(6, address(4)), None);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_a_lone_newcomer_is_never_the_one_to_go(
            arrivals in prop::collection::vec(0_u8..6, 1..100),
        ) {
            let mut pending = Pending::new(8, 3);
            for (key, from) in arrivals.into_iter().enumerate() {
                let victim = pending.add(key, address(from));
                prop_assert_ne!(victim, Some(key));
                prop_assert!(pending.order.len() <= 8);
                for number in 0..6 {
                    let count = pending.order.iter().filter(|(_, at)| *at == address(number)).count();
                    prop_assert!(count <= 3);
                }
            }
        }
    }
}
