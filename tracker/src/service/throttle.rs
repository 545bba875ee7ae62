//! Failed logins make further tries wait, by account and address, so that no one can lock a user out from elsewhere.
//!
//! Accounts are counted, not names, which several accounts may have claimed: a success with one of them proves nothing about
//! the others. A name without an account counts as itself: it may get one later, or have one at another tracker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use shoal_common::{Uid, UserName};
use shoal_net::site;

/// Failed logins that cost nothing.
const FREE_TRIES: u32 = 5;
/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Failures are forgotten after this long without another one.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Pairs remembered at most: some 10 MB.
const MAX_PAIRS: usize = 50_000;
/// Pairs of one address among them: more than the accounts of a school behind one address that fail within [`FORGET`].
const MAX_PAIRS_OF_SITE: usize = 2_000;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn wait_until(&self) -> Instant {
        let over = self.count.saturating_sub(FREE_TRIES);
        if over == 0 && self.count < FREE_TRIES {
            return self.last;
        }
        let seconds = 1u64.checked_shl(over).unwrap_or(u64::MAX).min(MAX_WAIT.as_secs());
        self.last + Duration::from_secs(seconds)
    }
}

/// The account whose password is guessed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Guessed {
    /// This one.
    Account(Uid),
    /// None: the name has no account.
    Nobody(UserName),
}

/// The failures of one address.
type OfSite = HashMap<Guessed, Failures>;

/// The failed logins by account and address ([`site`]). When it is full it forgets pairs of the address with the most, so that
/// guesses elsewhere make no pair forgotten: first names without an account, which anyone can make up, then the oldest.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    sites: HashMap<IpAddr, OfSite>,
    pairs: usize,
}

impl Throttle {
    /// How long this pair must wait before the next try.
    #[must_use]
    pub(super) fn wait(&self, whose: &Guessed, from: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.sites.get(&site(from))?.get(whose)?;
        Some(failures.wait_until().saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Remembers a failed try.
    pub(super) fn failed(&mut self, whose: &Guessed, from: IpAddr, now: Instant) {
        let at = site(from);
        if !self.sites.get(&at).is_some_and(|pairs| pairs.contains_key(whose)) {
            self.make_room(at, now);
            self.pairs += 1;
        }
        let first = Failures { count: 0, last: now };
        let failures = self.sites.entry(at).or_default().entry(whose.clone()).or_insert(first);
        if now.duration_since(failures.last) > FORGET {
            failures.count = 0;
        }
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
    }

    /// Forgets a pair that logged in.
    pub(super) fn succeeded(&mut self, whose: &Guessed, from: IpAddr) {
        self.forget(site(from), whose);
    }

    fn make_room(&mut self, at: IpAddr, now: Instant) {
        if self.pairs >= MAX_PAIRS {
            self.sites.retain(|_, pairs| {
                pairs.retain(|_, failures| now.duration_since(failures.last) <= FORGET);
                !pairs.is_empty()
            });
            self.pairs = self.sites.values().map(HashMap::len).sum();
        }
        if self.sites.get(&at).is_some_and(|pairs| pairs.len() >= MAX_PAIRS_OF_SITE) {
            self.forget_one(at);
        }
        if self.pairs >= MAX_PAIRS
            && let Some(&most) = self.sites.iter().max_by_key(|(_, pairs)| pairs.len()).map(|(at, _)| at)
        {
            self.forget_one(most);
        }
    }

    fn forget_one(&mut self, at: IpAddr) {
        let Some(pairs) = self.sites.get(&at) else { return };
        let rank =
            |(whose, failures): &(&Guessed, &Failures)| (matches!(whose, Guessed::Account(_)), failures.last);
        if let Some(first) = pairs.iter().min_by_key(rank).map(|(whose, _)| whose.clone()) {
            self.forget(at, &first);
        }
    }

    fn forget(&mut self, at: IpAddr, whose: &Guessed) {
        let Some(pairs) = self.sites.get_mut(&at) else { return };
        if pairs.remove(whose).is_some() {
            self.pairs -= 1;
        }
        if pairs.is_empty() {
            self.sites.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_try_waits_and_waits_grow_to_thirty_seconds() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (whose, here, elsewhere) =
            (Guessed::Account(Uid([1; 16])), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut waits = Vec::new();
        for _ in 0..12 {
            throttle.failed(&whose, here, start);
            waits.push(throttle.wait(&whose, here, start).map_or(0, |wait| wait.as_secs()));
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(throttle.wait(&whose, elsewhere, start), None);
        assert_eq!(throttle.wait(&whose, here, start + MAX_WAIT), None);
        throttle.succeeded(&whose, here);
        assert_eq!(throttle.wait(&whose, here, start), None);
    }

    #[test]
    fn names_that_are_made_up_make_neither_the_guesser_nor_others_forgotten() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (ann, here) = (Guessed::Account(Uid([1; 16])), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..9 {
            throttle.failed(&ann, here, start);
        }
        let later = start + Duration::from_secs(1);
        let nobody = |number: usize| Guessed::Nobody(UserName::create(&format!("nobody{number}")).unwrap());
        for number in 0..2 * MAX_PAIRS_OF_SITE {
            throttle.failed(&nobody(number), here, later);
        }
        assert_eq!(throttle.pairs, MAX_PAIRS_OF_SITE);
        assert!(throttle.wait(&ann, here, later).is_some());
        // Many addresses, each full: a guess from a new one is counted, and no pair elsewhere is forgotten.
        for site in 0..30 {
            for number in 0..MAX_PAIRS_OF_SITE {
                throttle.failed(&nobody(number), IpAddr::from([10, 0, 1, site]), later);
            }
        }
        let new = IpAddr::from([10, 0, 2, 1]);
        for _ in 0..9 {
            throttle.failed(&ann, new, later);
        }
        assert_eq!(throttle.pairs, MAX_PAIRS);
        assert!(throttle.wait(&ann, new, later).is_some() && throttle.wait(&ann, here, later).is_some());
        // Those that guess no more give way.
        throttle.failed(&ann, new, later + 2 * FORGET);
        throttle.failed(&nobody(0), new, later + 2 * FORGET);
        assert_eq!(throttle.pairs, 2);
    }

    #[test]
    fn an_ipv6_subscriber_guesses_no_more_than_an_ipv4_address() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let whose = Guessed::Account(Uid([1; 16]));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for host in 0..9 {
            throttle.failed(&whose, ip(&format!("2001:db8:1:2::{host:x}")), start);
        }
        assert!(
            throttle.wait(&whose, ip("2001:db8:1:2:ffff::1"), start).is_some(),
            "another address of the /64"
        );
        assert_eq!(throttle.wait(&whose, ip("2001:db8:1:3::1"), start), None);
        throttle.succeeded(&whose, ip("2001:db8:1:2::99"));
        assert_eq!(throttle.wait(&whose, ip("2001:db8:1:2:ffff::1"), start), None);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let (whose, here) = (Guessed::Account(Uid([1; 16])), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..9 {
            throttle.failed(&whose, here, start);
        }
        let later = start + FORGET + Duration::from_secs(1);
        throttle.failed(&whose, here, later);
        assert_eq!(throttle.wait(&whose, here, later), None);
    }
}
