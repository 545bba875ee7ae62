//! What a node has done since it started, as its operator sees it. Cheap to clone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Connections that are open now.
    Connections,
    /// Chunks that users stored.
    Stored,
    /// Their bytes.
    StoredBytes,
    /// Chunks that users and other nodes fetched.
    Fetched,
    /// Their bytes.
    FetchedBytes,
    /// Copies made by the trackers' orders.
    Copied,
    /// Copies that failed.
    CopiesFailed,
    /// Chunks that were deleted, or went into the bin.
    Deleted,
}

const COUNTS: usize = Count::Deleted as usize + 1;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<[AtomicU64; COUNTS]>);

impl Counters {
    /// Adds to a count.
    pub(super) fn add(&self, count: Count, more: u64) {
        self.0[count as usize].fetch_add(more, Ordering::Relaxed);
    }

    /// Takes one off a count.
    pub(super) fn less(&self, count: Count) {
        self.0[count as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// A count.
    pub(super) fn get(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }
}
