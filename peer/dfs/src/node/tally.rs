//! What one user does over one connection, as log lines: not one per chunk, but one when a second passed without more, and one
//! at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_common::{PeerId, Uid};
use shoal_session::text;

use super::counters::{Count, Counters};

/// A put or get that pauses for this long gets its line.
const PAUSE: Duration = Duration::from_secs(1);

/// What was done since the last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    stored: usize,
    stored_bytes: u64,
    fetched: usize,
    fetched_bytes: u64,
    deleted: usize,
    refused: usize,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    done: Arc<Mutex<Done>>,
    counters: Counters,
}

impl Tally {
    pub(super) fn new(counters: Counters) -> Self {
        Self { done: Arc::default(), counters }
    }

    /// A chunk was stored.
    pub(super) fn stored(&self, bytes: usize) {
        self.note(|done| {
            (done.stored, done.stored_bytes) = (done.stored + 1, done.stored_bytes + bytes as u64)
        });
        self.counters.add(Count::Stored, 1);
        self.counters.add(Count::StoredBytes, bytes as u64);
    }

    /// A chunk, or a range of one, was read.
    pub(super) fn fetched(&self, bytes: usize) {
        self.note(|done| {
            (done.fetched, done.fetched_bytes) = (done.fetched + 1, done.fetched_bytes + bytes as u64);
        });
        self.counters.add(Count::Fetched, 1);
        self.counters.add(Count::FetchedBytes, bytes as u64);
    }

    /// A chunk was deleted.
    pub(super) fn deleted(&self) {
        self.note(|done| done.deleted += 1);
        self.counters.add(Count::Deleted, 1);
    }

    /// A chunk was not taken.
    pub(super) fn refused(&self) {
        self.note(|done| done.refused += 1);
    }

    /// Logs what was done whenever it pauses. Never ends. Safe to drop.
    pub(super) async fn log_pauses(&self, user: impl Fn() -> Option<Uid>, peer: PeerId) {
        let mut before = Done::default();
        loop {
            tokio::time::sleep(PAUSE).await;
            let now = *self.lock();
            if now == before {
                self.log(user(), peer);
                before = Done::default();
            } else {
                before = now;
            }
        }
    }

    /// Logs what was done since the last line, if anything was.
    pub(super) fn log(&self, user: Option<Uid>, peer: PeerId) {
        let done = std::mem::take(&mut *self.lock());
        if done == Done::default() {
            return;
        }
        let who = user.map_or_else(|| format!("node {peer}"), |user| format!("user {user}"));
        tracing::info!("{who}: {}", words(&done));
    }

    fn note(&self, add: impl FnOnce(&mut Done)) {
        add(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn words(done: &Done) -> String {
    let chunks = |count| text::count(count, "chunk");
    let mut parts = Vec::new();
    if done.stored > 0 {
        parts.push(format!("put {} ({})", chunks(done.stored), text::size(done.stored_bytes)));
    }
    if done.fetched > 0 {
        parts.push(format!("get {} ({})", chunks(done.fetched), text::size(done.fetched_bytes)));
    }
    if done.deleted > 0 {
        parts.push(format!("deleted {}", chunks(done.deleted)));
    }
    if done.refused > 0 {
        parts.push(format!("{} not taken", chunks(done.refused)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_all_that_was_done() {
        let counters = Counters::default();
        let tally = Tally::new(counters.clone());
        tally.stored(1024);
        tally.stored(1024);
        tally.fetched(10);
        tally.deleted();
        tally.refused();
        let done = *tally.lock();
        assert_eq!(
            words(&done),
            "put 2 chunks (2.0 KiB), get 1 chunk (10 B), deleted 1 chunk, 1 chunk not taken"
        );
        tally.log(None, PeerId([1; 32]));
        assert_eq!(*tally.lock(), Done::default());
        assert_eq!((counters.get(Count::Stored), counters.get(Count::FetchedBytes)), (2, 10));
    }
}
