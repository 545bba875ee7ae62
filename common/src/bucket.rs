//! Token buckets without a clock: what is left of an allowance that refills with time. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much may be used at once, and how fast it refills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Units that may be used at once.
    pub burst: u32,
    /// The time in which one unit comes back.
    pub refill: Duration,
}

/// What is left of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// When it will be full again; in the past when it is full.
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes `units` if they are there.
    ///
    /// # Errors
    /// How long to wait for them.
    pub fn take(&mut self, units: u32, allowance: Allowance, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + allowance.refill * units;
        let most = now + allowance.refill * allowance.burst;
        if full_at > most {
            return Err(full_at - most);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Takes `units` whether they are there or not. Returns how long it takes until the debt is paid; zero without one.
    #[must_use]
    pub fn charge(&mut self, units: u32, allowance: Allowance, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + allowance.refill * units;
        self.full_at.saturating_duration_since(now + allowance.refill * allowance.burst)
    }

    /// Puts `units` back.
    pub fn put_back(&mut self, units: u32, allowance: Allowance, now: Instant) {
        let back = allowance.refill * units;
        self.full_at = self.full_at.checked_sub(back).map_or(now, |at| at.max(now));
    }

    /// Units that are missing from a full bucket.
    #[must_use]
    pub fn spent(&self, allowance: Allowance, now: Instant) -> u32 {
        let refill = allowance.refill.as_nanos().max(1);
        let missing = self.full_at.saturating_duration_since(now).as_nanos() / refill;
        u32::try_from(missing).unwrap_or(u32::MAX)
    }
}

/// Buckets by key, no more than so many: the fullest are forgotten first.
#[derive(Debug, Clone)]
pub struct Buckets<K> {
    most: usize,
    buckets: HashMap<K, Bucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// None yet. At most `most` are remembered.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, buckets: HashMap::new() }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The bucket of a key, a full one unless another is remembered.
    #[must_use]
    pub fn of(&self, key: K, now: Instant) -> Bucket {
        self.buckets.get(&key).copied().unwrap_or(Bucket::full(now))
    }

    /// Remembers the bucket of a key.
    pub fn set(&mut self, key: K, bucket: Bucket, now: Instant) {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
            if let Some(&fullest) =
                self.buckets.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(key, _)| key)
                && self.buckets.len() >= self.most
            {
                self.buckets.remove(&fullest);
            }
        }
        self.buckets.insert(key, bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { burst: 10, refill: Duration::from_millis(100) };

    #[test]
    fn what_is_used_comes_back_with_time() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        assert_eq!(bucket.take(10, ALLOWANCE, start), Ok(()));
        assert_eq!(bucket.take(1, ALLOWANCE, start), Err(ALLOWANCE.refill));
        assert_eq!(bucket.take(1, ALLOWANCE, start + ALLOWANCE.refill), Ok(()));
        assert_eq!(bucket.spent(ALLOWANCE, start + ALLOWANCE.refill), 10);
        assert_eq!(bucket.spent(ALLOWANCE, start + Duration::from_secs(9)), 0);
    }

    #[test]
    fn a_debt_is_paid_with_time_or_by_what_is_put_back() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        assert_eq!(bucket.charge(10, ALLOWANCE, start), Duration::ZERO);
        assert_eq!(bucket.charge(5, ALLOWANCE, start), 5 * ALLOWANCE.refill);
        assert_eq!(bucket.charge(0, ALLOWANCE, start + 2 * ALLOWANCE.refill), 3 * ALLOWANCE.refill);
        bucket.put_back(4, ALLOWANCE, start + 2 * ALLOWANCE.refill);
        assert_eq!(bucket.take(1, ALLOWANCE, start + 2 * ALLOWANCE.refill), Ok(()));
        bucket.put_back(1_000, ALLOWANCE, start + Duration::from_secs(1));
        assert_eq!(bucket.spent(ALLOWANCE, start + Duration::from_secs(1)), 0, "no more than is full");
    }

    #[test]
    fn no_more_buckets_than_allowed_and_the_emptiest_stay() {
        let start = Instant::now();
        let mut buckets = Buckets::new(3);
        for key in 0..10 {
            let mut bucket = buckets.of(key, start);
            bucket.take(10 - key, ALLOWANCE, start).unwrap();
            buckets.set(key, bucket, start);
        }
        assert_eq!(buckets.len(), 3);
        assert_eq!(buckets.of(0, start).spent(ALLOWANCE, start), 10);
    }
}
