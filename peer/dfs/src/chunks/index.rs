//! What a node holds, in memory: chunks, bytes, what is in the bin, and numbered changes. Pure: time comes in as an argument.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use shoal_common::Uid;
use shoal_common::storage::room_of;
use shoal_common::tracker_api::storage::{MAX_NODE_CHUNKS, OwnedChunk};

use super::Found;
use crate::wire::Failure;

/// Changes that are remembered: some minutes at full speed. A reader that is further behind takes a snapshot.
const MAX_CHANGES: usize = 100_000;
/// Chunks of one user at most: a quarter of what a node takes, so that no user fills one with chunks that take little room. 2 TB
/// in the longest, or several times the small files of a user's quota.
pub(super) const MAX_CHUNKS_OF_USER: usize = MAX_NODE_CHUNKS / 4;
/// The span in which no more than a share of the chunks goes into the bin, in milliseconds.
const DAY_MS: u64 = 24 * 3_600_000;

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What may be held.
    pub capacity: u64,
    /// What the chunks take, those in the bin included.
    pub used: u64,
    /// What could still be taken: the rest of the capacity, or what the disk has left if that is less.
    pub free: u64,
    /// Whether the disk has less left than the capacity allows.
    pub short_of_disk: bool,
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

/// A chunk in the bin.
#[derive(Debug, Clone, Copy)]
struct Binned {
    entry: Entry,
    since_ms: u64,
}

/// What one user's chunks take.
#[derive(Debug, Clone, Copy, Default)]
struct Owned {
    room: u64,
    chunks: usize,
}

/// What became of a chunk that was to go into the bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It is in the bin.
    Binned,
    /// It is not held.
    Absent,
    /// It was stored, or stored again, too lately.
    Young,
    /// The day's share has gone already.
    Spent,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ChunkIndex {
    held: HashMap<OwnedChunk, Entry>,
    binned: HashMap<OwnedChunk, Binned>,
    /// When chunks went into the bin within the last day, in milliseconds since 1970.
    day: VecDeque<u64>,
    /// Percentage of the chunks that may go into the bin per day.
    percent: u8,
    capacity: u64,
    used: u64,
    reserved: u64,
    /// What the disk has left, as last measured; the most there is where that is not known.
    left: u64,
    /// What each user's chunks take, but those in the bin; those on their way included.
    owned: HashMap<Uid, Owned>,
    changes: VecDeque<Change>,
    /// Number of the last change.
    number: u64,
}

impl ChunkIndex {
    pub(super) fn new(capacity: u64, percent: u8) -> Self {
        Self {
            held: HashMap::new(),
            binned: HashMap::new(),
            day: VecDeque::new(),
            percent,
            capacity,
            used: 0,
            reserved: 0,
            left: u64::MAX,
            owned: HashMap::new(),
            changes: VecDeque::new(),
            number: 0,
        }
    }

    /// A chunk that was there before.
    pub(super) fn found(&mut self, found: Found) {
        self.hold(found);
    }

    /// A chunk that was in the bin before.
    pub(super) fn found_binned(&mut self, found: Found, since_ms: u64) {
        let entry = Entry { length: found.length, stored: found.stored };
        self.binned.insert(found.chunk, Binned { entry, since_ms });
        self.used += room_of(found.length);
    }

    /// Some chunk went into the bin at that time.
    pub(super) fn count_binned(&mut self, at_ms: u64) {
        self.day.push_back(at_ms);
    }

    pub(super) fn room(&self) -> Room {
        let full = self.held.len() + self.binned.len() >= MAX_NODE_CHUNKS;
        let rest = self.capacity.saturating_sub(self.used);
        let free = if full { 0 } else { rest.min(self.left).saturating_sub(self.reserved) };
        let short_of_disk = self.left < rest;
        Room { capacity: self.capacity, used: self.used, free, short_of_disk, chunks: self.held.len() }
    }

    /// What the disk has left was measured.
    pub(super) fn measured(&mut self, left: u64) {
        self.left = left;
    }

    pub(super) fn length(&self, chunk: &OwnedChunk) -> Option<u32> {
        self.held.get(chunk).map(|entry| entry.length)
    }

    /// Its length, whether it is held or in the bin.
    pub(super) fn length_anywhere(&self, chunk: &OwnedChunk) -> Option<u32> {
        self.length(chunk).or_else(|| self.binned.get(chunk).map(|binned| binned.entry.length))
    }

    /// One that is held counts as stored at `now`.
    pub(super) fn touch(&mut self, chunk: &OwnedChunk, now: SystemTime) -> bool {
        let Some(entry) = self.held.get_mut(chunk) else { return false };
        entry.stored = now;
        self.note(Change::Held(*chunk));
        true
    }

    /// Keeps room for a chunk of a user's, of whose no more than `allowance` bytes may be held. Without an allowance it is a copy
    /// that trackers ordered, of a chunk that is held elsewhere.
    pub(super) fn reserve(&mut self, owner: Uid, length: u32, allowance: Option<u64>) -> Result<(), Failure> {
        let room = room_of(length);
        if self.room().free < room {
            return Err(Failure::Full);
        }
        let owned = self.owned.get(&owner).copied().unwrap_or_default();
        let too_many = owned.chunks >= MAX_CHUNKS_OF_USER && allowance.is_some();
        if too_many || allowance.is_some_and(|allowance| owned.room.saturating_add(room) > allowance) {
            return Err(Failure::Quota);
        }
        self.reserved += room;
        self.own(owner, length);
        Ok(())
    }

    pub(super) fn release(&mut self, owner: Uid, length: u32) {
        self.reserved -= room_of(length);
        self.disown(owner, length);
    }

    fn own(&mut self, owner: Uid, length: u32) {
        let owned = self.owned.entry(owner).or_default();
        owned.room += room_of(length);
        owned.chunks += 1;
    }

    fn disown(&mut self, owner: Uid, length: u32) {
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.room = owned.room.saturating_sub(room_of(length));
            owned.chunks = owned.chunks.saturating_sub(1);
            if owned.chunks == 0 {
                self.owned.remove(&owner);
            }
        }
    }

    /// A chunk is durable now; its reservation is released apart.
    pub(super) fn stored(&mut self, found: Found) {
        self.hold(found);
        self.note(Change::Held(found.chunk));
    }

    pub(super) fn forget(&mut self, chunk: &OwnedChunk) -> bool {
        let Some(entry) = self.held.remove(chunk) else { return false };
        self.used -= room_of(entry.length);
        self.disown(chunk.owner, entry.length);
        self.note(Change::Gone(*chunk));
        true
    }

    /// Puts a chunk into the bin if it was stored at `before` or earlier (with no such time, none was) and the day's share
    /// is not spent. It is not held any more, and takes its room until it is removed.
    pub(super) fn discard(
        &mut self,
        chunk: &OwnedChunk,
        before: Option<SystemTime>,
        now_ms: u64,
    ) -> Discarded {
        let Some(entry) = self.held.get(chunk).copied() else { return Discarded::Absent };
        if before.is_none_or(|before| entry.stored > before) {
            return Discarded::Young;
        }
        self.day.retain(|at_ms| at_ms.saturating_add(DAY_MS) > now_ms);
        // What comes out of the bin stays counted; what was removed for good is not part of the whole any more.
        let all = self.held.len() + self.binned.len();
        let share = (all * usize::from(self.percent)).div_ceil(100);
        if self.percent < 100 && self.day.len() >= share {
            return Discarded::Spent;
        }
        self.day.push_back(now_ms);
        self.held.remove(chunk);
        self.disown(chunk.owner, entry.length);
        self.binned.insert(*chunk, Binned { entry, since_ms: now_ms });
        self.note(Change::Gone(*chunk));
        Discarded::Binned
    }

    /// A chunk that was put into the bin at that time was not, after all; nor does it count.
    pub(super) fn take_back(&mut self, chunk: &OwnedChunk, at_ms: u64) {
        if self.restore(chunk, None)
            && let Some(counted) = self.day.iter().rposition(|&counted_ms| counted_ms == at_ms)
        {
            self.day.remove(counted);
        }
    }

    /// Takes a chunk out of the bin; from now on it is held, and counts as stored at `stored` if that is said.
    pub(super) fn restore(&mut self, chunk: &OwnedChunk, stored: Option<SystemTime>) -> bool {
        let Some(Binned { entry, .. }) = self.binned.remove(chunk) else { return false };
        let stored = stored.unwrap_or(entry.stored);
        self.own(chunk.owner, entry.length);
        self.held.insert(*chunk, Entry { stored, ..entry });
        self.note(Change::Held(*chunk));
        true
    }

    pub(super) fn is_binned(&self, chunk: &OwnedChunk) -> bool {
        self.binned.contains_key(chunk)
    }

    /// Chunks that went into the bin at that time or before.
    pub(super) fn binned_until(&self, until_ms: u64) -> Vec<OwnedChunk> {
        let old = self.binned.iter().filter(|(_, binned)| binned.since_ms <= until_ms);
        old.map(|(chunk, _)| *chunk).collect()
    }

    /// Removes a chunk from the bin for good.
    pub(super) fn remove_binned(&mut self, chunk: &OwnedChunk) -> bool {
        let Some(binned) = self.binned.remove(chunk) else { return false };
        self.used -= room_of(binned.entry.length);
        true
    }

    /// What is in the bin, since when, and when else chunks went into it within the last day.
    pub(super) fn bin(&self, now_ms: u64) -> (Vec<(OwnedChunk, u64)>, Vec<u64>) {
        let binned: Vec<(OwnedChunk, u64)> =
            self.binned.iter().map(|(chunk, binned)| (*chunk, binned.since_ms)).collect();
        let mut still: HashMap<u64, usize> = HashMap::new();
        for (_, since_ms) in &binned {
            *still.entry(*since_ms).or_default() += 1;
        }
        let mut day = Vec::new();
        for &at_ms in self.day.iter().filter(|&&at_ms| at_ms.saturating_add(DAY_MS) > now_ms) {
            match still.get_mut(&at_ms).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => day.push(at_ms),
            }
        }
        (binned, day)
    }

    /// Chunks in the bin.
    pub(super) fn bin_len(&self) -> usize {
        self.binned.len()
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
            self.used -= room_of(before.length);
            self.disown(found.chunk.owner, before.length);
        }
        self.used += room_of(found.length);
        self.own(found.chunk.owner, found.length);
    }

    /// Numbers a change, so that it is reported to the trackers.
    pub(super) fn note(&mut self, change: Change) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::storage::ChunkId;

    #[test]
    fn no_user_fills_a_node_with_chunks_that_take_little_room() {
        let mut index = ChunkIndex::new(u64::MAX, 10);
        let (eve, ann) = (Uid([1; 16]), Uid([2; 16]));
        for _ in 0..MAX_CHUNKS_OF_USER {
            index.reserve(eve, 3, Some(u64::MAX)).unwrap();
        }
        assert_eq!(index.reserve(eve, 3, Some(u64::MAX)), Err(Failure::Quota));
        index.reserve(ann, 3, Some(u64::MAX)).unwrap();
        // What is named and lost elsewhere is copied here all the same.
        index.reserve(eve, 3, None).unwrap();
        index.release(eve, 3);
        index.release(eve, 3);
        let id = |number: u8| OwnedChunk { owner: eve, chunk: ChunkId([number; 32]) };
        index.stored(Found { chunk: id(1), length: 3, stored: SystemTime::UNIX_EPOCH });
        assert_eq!(index.reserve(eve, 3, Some(u64::MAX)), Err(Failure::Quota), "one that is held counts");
        assert!(index.forget(&id(1)));
        index.reserve(eve, 3, Some(u64::MAX)).unwrap();
    }
}
