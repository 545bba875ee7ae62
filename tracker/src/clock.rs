//! The wall clock of this process: the only place that reads it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// By how much it is shifted, in milliseconds.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Shifts the clock of the whole process by so many milliseconds, as a test of wrong clocks does.
pub fn shift(by_ms: i64) {
    OFFSET_MS.store(by_ms, Ordering::Relaxed);
}

/// Milliseconds since 1970; 0 before.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let real = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    real.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed))
}
