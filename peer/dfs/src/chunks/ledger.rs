//! What a node holds, in memory: chunks, bytes, and numbered changes. Pure: time comes in as an argument.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use shoal_common::tracker_api::storage::{MAX_NODE_CHUNKS, OwnedChunk};

use super::Found;

/// Changes that are remembered: some minutes at full speed. Whoever is further behind takes a snapshot.
const MAX_CHANGES: usize = 100_000;

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What may be held.
    pub capacity: u64,
    /// What could still be taken.
    pub free: u64,
    /// Chunks that are held.
    pub chunks: usize,
}

/// A change of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is held; perhaps it was before.
    Held(OwnedChunk),
    /// It is not held, or not any more.
    Gone(OwnedChunk),
    /// What a tracker ordered to be done with it could not be done.
    Failed(OwnedChunk),
}

/// Changes in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<Change>,
    /// The number of the last of them.
    pub last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    length: u32,
    stored: SystemTime,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    held: HashMap<OwnedChunk, Entry>,
    capacity: u64,
    used: u64,
    reserved: u64,
    changes: VecDeque<Change>,
    /// Number of the last change.
    number: u64,
}

impl Ledger {
    pub(super) fn new(capacity: u64) -> Self {
        Self { held: HashMap::new(), capacity, used: 0, reserved: 0, changes: VecDeque::new(), number: 0 }
    }

    /// A chunk that was there before.
    pub(super) fn found(&mut self, found: Found) {
        self.hold(found);
    }

    pub(super) fn room(&self) -> Room {
        let taken = self.used + self.reserved;
        let full = self.held.len() >= MAX_NODE_CHUNKS;
        let free = if full { 0 } else { self.capacity.saturating_sub(taken) };
        Room { capacity: self.capacity, free, chunks: self.held.len() }
    }

    pub(super) fn length(&self, chunk: &OwnedChunk) -> Option<u32> {
        self.held.get(chunk).map(|entry| entry.length)
    }

    /// One that is held counts as stored at `now`.
    pub(super) fn touch(&mut self, chunk: &OwnedChunk, now: SystemTime) -> bool {
        let Some(entry) = self.held.get_mut(chunk) else { return false };
        entry.stored = now;
        self.note(Change::Held(*chunk));
        true
    }

    pub(super) fn reserve(&mut self, length: u32) -> bool {
        let fits = self.room().free >= u64::from(length);
        if fits {
            self.reserved += u64::from(length);
        }
        fits
    }

    pub(super) fn release(&mut self, length: u32) {
        self.reserved -= u64::from(length);
    }

    /// A chunk is durable now; its reservation is released apart.
    pub(super) fn stored(&mut self, found: Found) {
        self.hold(found);
        self.note(Change::Held(found.chunk));
    }

    pub(super) fn forget(&mut self, chunk: &OwnedChunk) -> bool {
        let Some(entry) = self.held.remove(chunk) else { return false };
        self.used -= u64::from(entry.length);
        self.note(Change::Gone(*chunk));
        true
    }

    /// Forgets a chunk that was stored at `before` or earlier; with no such time, none.
    pub(super) fn forget_older(&mut self, chunk: &OwnedChunk, before: Option<SystemTime>) -> bool {
        let old = |entry: &Entry| before.is_some_and(|before| entry.stored <= before);
        self.held.get(chunk).is_some_and(old) && self.forget(chunk)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn snapshot(&self) -> (Vec<OwnedChunk>, u64) {
        (self.held.keys().copied().collect(), self.number)
    }

    pub(super) fn changes_after(&self, number: u64, most: usize) -> Option<Changes> {
        let behind = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let skipped = self.changes.len().checked_sub(behind)?;
        let changes: Vec<Change> = self.changes.iter().skip(skipped).take(most).copied().collect();
        let last = number + changes.len() as u64;
        Some(Changes { changes, last })
    }

    fn hold(&mut self, found: Found) {
        let entry = Entry { length: found.length, stored: found.stored };
        if let Some(before) = self.held.insert(found.chunk, entry) {
            self.used -= u64::from(before.length);
        }
        self.used += u64::from(found.length);
    }

    /// Numbers a change, so that the trackers are told.
    pub(super) fn note(&mut self, change: Change) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        self.number += 1;
    }
}
