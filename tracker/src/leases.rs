//! Which users put or get stored files now. While a user does, none of that user's chunks is deleted.
//!
//! Presence owns the leases and passes them to the other trackers. A lease that is not renewed ends by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shoal_common::tracker_api::storage::LEASE_LIFE_MS;
use shoal_common::{RequestId, Uid};

/// Leases in the whole cluster at most.
const MAX_LEASES: usize = 100_000;
/// Leases of one user at most: more than one user's transfers at a time, and few enough to leave room for others.
const MAX_OF_USER: usize = 64;

#[derive(Debug)]
struct Lease {
    until: Instant,
    /// Whether this tracker gave it, and passes it to the others.
    own: bool,
}

/// The leases that hold, as far as this tracker knows.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<(Uid, RequestId), Lease>,
}

impl Leases {
    /// Begins, renews or (`life` zero) ends a lease; false if there are too many, of this user or in all.
    pub(crate) fn set(&mut self, user: Uid, id: RequestId, life: Duration, own: bool, now: Instant) -> bool {
        if life.is_zero() {
            self.held.remove(&(user, id));
            return true;
        }
        if self.held.len() >= MAX_LEASES && !self.held.contains_key(&(user, id)) {
            self.held.retain(|_, lease| lease.until > now);
            if self.held.len() >= MAX_LEASES {
                return false;
            }
        }
        if !self.held.contains_key(&(user, id)) && self.of_user(user, now).count() >= MAX_OF_USER {
            return false;
        }
        let until = now + life.min(Duration::from_millis(LEASE_LIFE_MS));
        self.held.insert((user, id), Lease { until, own });
        true
    }

    /// Whether any lease of that user holds.
    pub(crate) fn holds(&self, user: Uid, now: Instant) -> bool {
        self.of_user(user, now).next().is_some()
    }

    fn of_user(&self, user: Uid, now: Instant) -> impl Iterator<Item = &Lease> {
        let of_user = self.held.range((user, RequestId([0; 16]))..=(user, RequestId([u8::MAX; 16])));
        of_user.map(|(_, lease)| lease).filter(move |lease| lease.until > now)
    }

    /// The leases that this tracker gave, and how long each still holds.
    pub(crate) fn own(&self, now: Instant) -> Vec<(Uid, RequestId, Duration)> {
        let own = self.held.iter().filter(|(_, lease)| lease.own && lease.until > now);
        own.map(|(&(user, id), lease)| (user, id, lease.until - now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_it_ends_or_is_not_renewed() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let (alice, bob, life) = (Uid([1; 16]), Uid([2; 16]), Duration::from_millis(LEASE_LIFE_MS));
        leases.set(alice, RequestId([1; 16]), life, true, now);
        leases.set(alice, RequestId([2; 16]), life * 10, false, now);
        assert!(leases.holds(alice, now) && !leases.holds(bob, now));
        assert_eq!(leases.own(now).len(), 1, "of alice's two, one came from another tracker");
        for number in 10..100 {
            let taken = leases.set(bob, RequestId([number; 16]), life, true, now);
            assert_eq!(taken, usize::from(number) < 10 + MAX_OF_USER, "{number}");
        }
        assert!(leases.set(bob, RequestId([10; 16]), life, true, now), "one that is held is renewed");
        leases.set(alice, RequestId([1; 16]), Duration::ZERO, true, now);
        assert!(leases.holds(alice, now + life / 2));
        assert!(!leases.holds(alice, now + life));
    }
}
