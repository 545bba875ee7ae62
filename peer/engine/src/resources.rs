//! What the downloads of one engine share, and what the caller wants one of them to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::pool::Pool;
use crate::rate::Limiter;

/// The memory and the rate limit of all downloads.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) pool: Pool,
    pub(crate) limiter: Limiter,
    /// Bytes that sources delivered to all downloads so far.
    pub(crate) fetched: AtomicU64,
    active: AtomicUsize,
    moving: AtomicUsize,
}

/// Counts a download as running while it lives.
pub(crate) struct ActiveGuard {
    resources: Arc<Resources>,
    moving: bool,
}

impl Resources {
    pub(crate) fn new(pool: Pool, limiter: Limiter) -> Self {
        Self {
            pool,
            limiter,
            fetched: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            moving: AtomicUsize::new(0),
        }
    }

    pub(crate) fn activate(self: &Arc<Self>) -> ActiveGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveGuard { resources: self.clone(), moving: false }
    }

    /// What one download may have in flight beyond one piece per source: its share of three quarters of the pool. The rest is
    /// for pieces that are being checked and written.
    pub(crate) fn budget(&self) -> u64 {
        self.pool.bytes() / 4 * 3 / self.active.load(Ordering::Relaxed).max(1) as u64
    }

    /// What one download may receive, in bytes per second: its share of the limit of all, and no more than its `own`.
    pub(crate) fn rate_share(&self, own: &Limiter) -> Option<u64> {
        let among = self.moving.load(Ordering::Relaxed).max(1) as u64;
        let share = self.limiter.rate().map(|rate| (rate / among).max(1));
        share.into_iter().chain(own.rate()).min()
    }
}

impl ActiveGuard {
    /// Sets whether the download receives anything. Downloads that only wait take no share of the rate limit.
    pub(crate) fn set_moving(&mut self, moving: bool) {
        let moved = std::mem::replace(&mut self.moving, moving);
        if moving && !moved {
            self.resources.moving.fetch_add(1, Ordering::Relaxed);
        } else if moved && !moving {
            self.resources.moving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.set_moving(false);
        if self.resources.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.resources.pool.shrink();
        }
    }
}

/// What the caller wants a running download to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Run,
    Pause,
    Cancel,
}
