//! Waiting for what must happen, for the session's, the application's and the swarm's tests.

use std::time::Duration;

/// Longest time that anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits for what must come to its end.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Looks again and again until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, looking).await;
}
