//! What the downloads of one engine share, and what a caller wants of one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::Pool;
use crate::rate::Limiter;

/// What drivers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) limiter: Limiter,
    active: AtomicUsize,
    moving: AtomicUsize,
}

/// Counts a download as running while it lives.
pub(crate) struct ActiveGuard {
    shared: Arc<Shared>,
    moving: bool,
}

impl Shared {
    pub(crate) fn new(pool: Pool, limiter: Limiter) -> Self {
        Self { pool, limiter, active: AtomicUsize::new(0), moving: AtomicUsize::new(0) }
    }

    pub(crate) fn activate(self: &Arc<Self>) -> ActiveGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveGuard { shared: self.clone(), moving: false }
    }

    /// What one download may have in flight beyond a piece a source: its share of three quarters of the pool, so that
    /// pieces that are being checked and written find room beside those that are coming in.
    pub(crate) fn budget(&self) -> u64 {
        self.pool.bytes() / 4 * 3 / self.active.load(Ordering::Relaxed).max(1) as u64
    }

    /// One download's share of the rate limit, in bytes a second.
    pub(crate) fn rate_share(&self) -> Option<u64> {
        let among = self.moving.load(Ordering::Relaxed).max(1) as u64;
        self.limiter.rate().map(|rate| (rate / among).max(1))
    }
}

impl ActiveGuard {
    /// Says whether the download receives anything: those that only wait take no share of the rate limit.
    pub(crate) fn set_moving(&mut self, moving: bool) {
        let moved = std::mem::replace(&mut self.moving, moving);
        if moving && !moved {
            self.shared.moving.fetch_add(1, Ordering::Relaxed);
        } else if moved && !moving {
            self.shared.moving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.set_moving(false);
        if self.shared.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shared.pool.shrink();
        }
    }
}

/// What the caller wants of a running download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Run,
    Pause,
    Cancel,
}
