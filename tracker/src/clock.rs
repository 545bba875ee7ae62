//! The wall clock of this process: the only place that reads it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_replica::limits::MAX_AHEAD_MS;

/// By how much it is shifted, in milliseconds.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// How far another tracker's time may be ahead of this tracker's clock: as far as a record's stamp, and the day by which a
/// sign-out is written ahead.
const FAR_AHEAD_MS: u64 = MAX_AHEAD_MS + 24 * 3_600_000;

/// Whether a time from a record or token is credible: trackers that lie write any.
#[must_use]
pub fn is_credible(at_ms: u64, now_ms: u64) -> bool {
    at_ms <= now_ms.saturating_add(FAR_AHEAD_MS)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_far_ahead_is_not_believed() {
        assert!(is_credible(0, 1) && is_credible(1_000 + FAR_AHEAD_MS, 1_000));
        assert!(!is_credible(1_001 + FAR_AHEAD_MS, 1_000) && !is_credible(u64::MAX, 1_000));
        assert!(is_credible(u64::MAX, u64::MAX));
    }
}
