//! Rate limits in bytes per second: a pure token bucket that says how long to wait, and a shared limiter that waits. The
//! engine holds one for all downloads of a process; the uploads have another.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How much time's worth of bytes may pass at once after a pause: enough to make up for timers that fire late, and too
/// little to disturb other users of the network.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket without a clock. It keeps one instant: the time at which everything that passed will be paid for.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: Option<NonZeroU64>,
    paid_at: Option<Instant>,
}

impl TokenBucket {
    /// A bucket that lets `bytes_per_second` through; `None` or 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { rate: bytes_per_second.and_then(NonZeroU64::new), paid_at: None }
    }

    /// The limit in bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate.map(NonZeroU64::get)
    }

    /// Changes the limit. Debts are forgotten: what passed under the old limit does not delay anything under the new.
    pub fn set_rate(&mut self, bytes_per_second: Option<u64>) {
        *self = Self::new(bytes_per_second);
    }

    /// Lets `bytes` through and charges for them, or says how long to wait before asking again. Any number of bytes
    /// passes once earlier ones are paid for, so that an amount larger than the limit is delayed and never stuck.
    ///
    /// # Errors
    /// The time after which to ask again.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = self.paid_at.map_or(earliest, |paid| paid.max(earliest));
        if start > now {
            return Err(start - now);
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST_DEBT);
        self.paid_at = Some(start + cost);
        Ok(())
    }
}

/// Longest time that one amount can block the next: keeps additions to an instant in range for absurd limits.
const LONGEST_DEBT: Duration = Duration::from_secs(24 * 3600);

/// A [`TokenBucket`] that many tasks share, in the order in which they asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<LimiterState>,
}

#[derive(Debug)]
struct LimiterState {
    bucket: Mutex<TokenBucket>,
    /// Whether there is a limit; without one no lock is taken.
    limited: AtomicBool,
    /// Waiting tasks, in order: tokio's mutex is fair.
    queue: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Limiter {
    /// A limiter that lets `bytes_per_second` through; `None` or 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let bucket = TokenBucket::new(bytes_per_second);
        Self {
            shared: Arc::new(LimiterState {
                limited: AtomicBool::new(bucket.rate().is_some()),
                bucket: Mutex::new(bucket),
                queue: tokio::sync::Mutex::default(),
                changed: Notify::new(),
            }),
        }
    }

    /// The limit in bytes per second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.bucket().rate()
    }

    /// Changes the limit, also for tasks that wait already.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        let mut bucket = self.bucket();
        bucket.set_rate(bytes_per_second);
        self.shared.limited.store(bucket.rate().is_some(), Ordering::Release);
        drop(bucket);
        self.shared.changed.notify_waiters();
    }

    /// Waits until `bytes` may pass. Dropping the future takes nothing.
    pub async fn acquire(&self, bytes: u64) {
        if !self.shared.limited.load(Ordering::Acquire) {
            return;
        }
        let _queue = self.shared.queue.lock().await;
        loop {
            let changed = self.shared.changed.notified();
            let taken = self.bucket().take(bytes, tokio::time::Instant::now().into_std());
            let Err(wait) = taken else { return };
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    fn bucket(&self) -> MutexGuard<'_, TokenBucket> {
        self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two limits of a download: its own, and that of all together.
#[derive(Debug, Clone)]
pub(crate) struct Limiters {
    pub(crate) own: Limiter,
    pub(crate) all: Limiter,
}

impl Limiters {
    /// No limits.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn none() -> Self {
        Self { own: Limiter::new(None), all: Limiter::new(None) }
    }

    /// Waits until `bytes` may pass both. Its own first: what waits there must not have taken from the others. Dropping the
    /// future may have taken from its own.
    pub(crate) async fn acquire(&self, bytes: u64) {
        self.own.acquire(bytes).await;
        self.all.acquire(bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_limit_never_waits() {
        let now = Instant::now();
        for rate in [None, Some(0)] {
            let mut bucket = TokenBucket::new(rate);
            assert!((0..10).all(|_| bucket.take(u64::MAX, now).is_ok()));
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let mut bucket = TokenBucket::new(Some(1_000));
        let start = Instant::now() + Duration::from_secs(1_000);
        assert_eq!(bucket.take(1_000, start), Ok(()));
        assert_eq!(bucket.take(1, start), Err(Duration::from_millis(900)));
        let later = start + Duration::from_secs(100);
        assert_eq!(bucket.take(200, later), Ok(()));
        assert_eq!(bucket.take(1, later), Err(Duration::from_millis(100)));
    }

    #[test]
    fn a_new_rate_forgets_debts() {
        let mut bucket = TokenBucket::new(Some(1));
        let now = Instant::now();
        assert_eq!(bucket.take(1 << 40, now), Ok(()));
        assert!(bucket.take(1, now).is_err());
        bucket.set_rate(Some(1_000_000));
        assert_eq!(bucket.take(1, now), Ok(()));
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_rate_allows(rate in 1u64..10_000_000, amounts in proptest::collection::vec(1u64..100_000, 1..100)) {
            let mut bucket = TokenBucket::new(Some(rate));
            let start = Instant::now();
            let mut now = start;
            let mut passed_before_last = 0;
            for (index, &amount) in amounts.iter().enumerate() {
                while let Err(wait) = bucket.take(amount, now) {
                    now += wait;
                }
                if index + 1 < amounts.len() {
                    passed_before_last += amount;
                }
            }
            // All but the last amount are paid for, save for the burst and a nanosecond's rounding an amount.
            let due = u128::from(passed_before_last) * 1_000_000_000 / u128::from(rate);
            let slack = BURST.as_nanos() + amounts.len() as u128;
            prop_assert!((now - start).as_nanos() + slack >= due);
            prop_assert!((now - start).as_nanos() <= due + 1);
        }
    }

    #[tokio::test]
    async fn a_change_wakes_those_who_wait() {
        let limiter = Limiter::new(Some(1));
        limiter.acquire(1 << 30).await;
        let waiting = {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.acquire(1).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        limiter.set_rate(None);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(limiter.rate(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn both_limits_hold_and_one_download_takes_nothing_from_the_others() {
        let all = Limiter::new(Some(1_000_000));
        let slow = Limiters { own: Limiter::new(Some(10_000)), all: all.clone() };
        let fast = Limiters { own: Limiter::new(None), all };
        let begun = tokio::time::Instant::now();
        let slow = tokio::spawn(async move {
            for _ in 0..10 {
                slow.acquire(10_000).await;
            }
            begun.elapsed()
        });
        for _ in 0..20 {
            fast.acquire(100_000).await;
        }
        let fast = begun.elapsed();
        assert!(fast > Duration::from_millis(1_700) && fast < Duration::from_millis(2_100), "{fast:?}");
        let slow = slow.await.unwrap();
        assert!(slow > Duration::from_millis(8_500) && slow < Duration::from_millis(9_500), "{slow:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_a_wait_leaves_the_turn_to_the_next() {
        let limiter = Limiter::new(Some(1_000_000));
        limiter.acquire(300_000).await;
        assert!(tokio::time::timeout(Duration::from_millis(1), limiter.acquire(1 << 40)).await.is_err());
        tokio::time::timeout(Duration::from_secs(10), limiter.acquire(1)).await.unwrap();
    }
}
