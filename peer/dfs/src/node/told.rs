//! Up to which change of what is held each connected tracker was told.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// A tracker that is connected and yet takes no report for so long is not waited for: one that hangs must not hold up a PUT.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(watch::Sender<BTreeMap<u8, u64>>);

impl Told {
    /// The tracker of that number knows everything up to that change.
    pub(super) fn note(&self, tracker: u8, change: u64) {
        self.0.send_if_modified(|told| told.insert(tracker, change) != Some(change));
    }

    /// The tracker of that number is not connected any more.
    pub(super) fn forget(&self, tracker: u8) {
        self.0.send_if_modified(|told| told.remove(&tracker).is_some());
    }

    /// Waits until every connected tracker knows everything up to `change`, for a second at most.
    pub(super) async fn settle(&self, change: u64) {
        let mut told = self.0.subscribe();
        let all = told.wait_for(|told| told.values().all(|&told| told >= change));
        if timeout(SETTLE_WITHIN, all).await.is_err() {
            tracing::debug!(change, "a connected tracker takes no reports");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_every_connected_tracker_and_for_no_other() {
        let told = Told::default();
        told.settle(7).await;
        told.note(1, 7);
        told.note(2, 6);
        let (waits, other) = (told.clone(), told.clone());
        let begun = tokio::time::Instant::now();
        let waiting = tokio::spawn(async move { waits.settle(7).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        other.note(2, 8);
        waiting.await.unwrap();
        told.note(2, 6);
        told.forget(2);
        told.settle(7).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracker_that_hangs_is_waited_for_no_longer_than_a_second() {
        let told = Told::default();
        told.note(1, 1);
        let begun = tokio::time::Instant::now();
        told.settle(2).await;
        assert_eq!(begun.elapsed(), SETTLE_WITHIN);
    }
}
