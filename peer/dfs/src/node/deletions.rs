//! Takes the trackers' orders to delete chunks: once enough of them agree, a chunk goes into the bin.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::PeerId;
use shoal_common::tracker_api::storage::OwnedChunk;
use tokio_util::task::TaskTracker;

use super::counters::{Count, Counters};
use super::votes::DeletionVotes;
use crate::chunks::{Change, Chunks, Discarded};

/// How often the log says that the day's share is spent.
const SAY_EVERY: Duration = Duration::from_secs(3_600);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Deletions(Arc<DeletionsInner>);

#[derive(Debug)]
struct DeletionsInner {
    min_age: Duration,
    chunks: Chunks,
    counters: Counters,
    votes: Mutex<DeletionVotes>,
    started: Instant,
    /// When the log last said that the day's share is spent.
    said: Mutex<Option<Instant>>,
    tasks: TaskTracker,
}

impl Deletions {
    /// For a node that was started with so many trackers, and deletes nothing below that age.
    #[must_use]
    pub(super) fn new(
        trackers: usize,
        min_age: Duration,
        chunks: Chunks,
        counters: Counters,
        tasks: TaskTracker,
    ) -> Self {
        let votes = Mutex::new(DeletionVotes::new(trackers));
        let (started, said) = (Instant::now(), Mutex::default());
        Self(Arc::new(DeletionsInner { min_age, chunks, counters, votes, started, said, tasks }))
    }

    /// Takes a tracker's orders: which chunk, and the least age in milliseconds that this tracker asks for.
    pub(super) fn take(&self, tracker: (u8, PeerId), orders: &[(OwnedChunk, u64)]) {
        let now_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut agreed = Vec::new();
        let mut min_age = self.0.min_age;
        for &(chunk, min_age_ms) in orders {
            if !self.0.chunks.holds(&chunk) {
                // It may not have heard so yet.
                self.0.chunks.report(Change::Gone(chunk));
            } else if self.votes().order(tracker, chunk, now_ms) {
                min_age = min_age.max(Duration::from_millis(min_age_ms));
                agreed.push(chunk);
            }
        }
        if !agreed.is_empty() {
            let this = self.clone();
            self.0.tasks.spawn(async move { this.discard(agreed, min_age).await });
        }
    }

    /// A tracker needs the chunk here after all.
    pub(super) fn withdraw(&self, tracker: u8, chunk: &OwnedChunk) {
        self.votes().withdraw(tracker, chunk);
    }

    /// A tracker is none any more, as the others say, or is one after all. What to tell the operator, if from now on no
    /// deletion can be agreed on.
    pub(super) fn remove(&self, tracker: u8, removed: bool) -> Option<String> {
        let needed = self.votes().remove(tracker, removed)?;
        Some(format!(
            "trackers of this node's file were removed, and fewer are left than the {needed} that must agree on a deletion: \
             nothing that the trackers want deleted is, until this node is restarted with the new file"
        ))
    }

    /// A tracker is not connected any more.
    pub(super) fn forget(&self, tracker: u8) {
        self.votes().forget(tracker);
    }

    async fn discard(&self, chunks: Vec<OwnedChunk>, min_age: Duration) {
        // Failures were logged; the trackers give the orders again.
        let Ok(done) = self.0.chunks.discard(&chunks, min_age).await else { return };
        for (chunk, done) in chunks.into_iter().zip(done) {
            match done {
                Discarded::Binned => {
                    self.votes().close(&chunk);
                    self.0.counters.add(Count::Deleted, 1);
                    tracing::info!(owner = %chunk.owner, chunk = %chunk.chunk, "into the bin, by the trackers' order");
                }
                Discarded::Young => self.0.chunks.report(Change::Failed(chunk)),
                Discarded::Spent => self.say_spent(),
                Discarded::Absent => {}
            }
        }
    }

    fn say_spent(&self) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            tracing::error!(
                "the trackers want more chunks deleted than this node deletes in a day; if no file is missing, restart \
                 it with a larger --daily-deletions, else look at the trackers, and restart it with --restore-bin"
            );
        }
    }

    fn votes(&self) -> MutexGuard<'_, DeletionVotes> {
        self.0.votes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
