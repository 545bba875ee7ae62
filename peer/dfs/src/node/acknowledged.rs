//! The last change of what is held that each connected tracker acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// A connected tracker that acknowledges nothing for this long is not waited for: one that hangs must not hold up a PUT.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(watch::Sender<BTreeMap<u8, u64>>);

impl Acknowledged {
    /// The tracker of that number knows everything up to that change.
    pub(super) fn note(&self, tracker: u8, change: u64) {
        self.0.send_if_modified(|acknowledged| acknowledged.insert(tracker, change) != Some(change));
    }

    /// The tracker of that number is not connected any more.
    pub(super) fn forget(&self, tracker: u8) {
        self.0.send_if_modified(|acknowledged| acknowledged.remove(&tracker).is_some());
    }

    /// The numbers of the trackers that are connected and took a report.
    pub(super) fn connected(&self) -> Vec<u8> {
        self.0.borrow().keys().copied().collect()
    }

    /// Waits until every connected tracker knows everything up to `change`, for a second at most.
    pub(super) async fn wait_for(&self, change: u64) {
        let mut acknowledged = self.0.subscribe();
        let all = acknowledged
            .wait_for(|acknowledged| acknowledged.values().all(|&acknowledged| acknowledged >= change));
        if timeout(REPORTED_WITHIN, all).await.is_err() {
            tracing::debug!(change, "a connected tracker takes no reports");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_every_connected_tracker_and_for_no_other() {
        let acknowledged = Acknowledged::default();
        acknowledged.wait_for(7).await;
        acknowledged.note(1, 7);
        acknowledged.note(2, 6);
        let (waits, other) = (acknowledged.clone(), acknowledged.clone());
        let begun = tokio::time::Instant::now();
        let waiting = tokio::spawn(async move { waits.wait_for(7).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        other.note(2, 8);
        waiting.await.unwrap();
        acknowledged.note(2, 6);
        acknowledged.forget(2);
        acknowledged.wait_for(7).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracker_that_hangs_is_waited_for_no_longer_than_a_second() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(1, 1);
        let begun = tokio::time::Instant::now();
        acknowledged.wait_for(2).await;
        assert_eq!(begun.elapsed(), REPORTED_WITHIN);
    }
}
