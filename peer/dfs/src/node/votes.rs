//! Counts the trackers' votes to delete a chunk. A majority of the trackers that this node was started with decides. Pure: time
//! is an argument.
//!
//! A tracker's vote counts for its number and its proven key together: one tracker that answers on two lines is one. It
//! counts for a short while only, because every tracker repeats it as long as it stands, and a tracker that has the chunk
//! copied to here takes it back.
//!
//! A tracker that the others call removed still counts. Otherwise one of two trackers could call the other removed, and would
//! then be a majority alone. Only the operator's file reduces the number.

use std::collections::{HashMap, HashSet};

use shoal_common::PeerId;
use shoal_common::tracker_api::storage::OwnedChunk;

/// For how long a tracker's vote counts, in milliseconds: trackers repeat it every ten seconds.
const VOTE_MS: u64 = 45_000;
/// Chunks of which one tracker's vote is remembered at most: more than trackers ask for at once.
const MAX_VOTES: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct DeletionVotes {
    trackers: usize,
    needed: usize,
    /// Numbers of the trackers that were removed.
    removed: HashSet<u8>,
    /// By the tracker's number.
    votes: HashMap<u8, HashMap<OwnedChunk, Vote>>,
}

#[derive(Debug, Clone, Copy)]
struct Vote {
    peer: PeerId,
    at_ms: u64,
}

/// How many of so many trackers must order a deletion: more than half; of two, both.
pub(super) fn majority(trackers: usize) -> usize {
    trackers / 2 + 1
}

impl DeletionVotes {
    /// For a node that was started with so many trackers.
    pub(super) fn new(trackers: usize) -> Self {
        let (removed, votes) = (HashSet::new(), HashMap::new());
        Self { trackers, needed: majority(trackers), removed, votes }
    }

    /// The tracker of that number is none any more, or is one again; how many are needed, if from now on too few are left.
    pub(super) fn remove(&mut self, number: u8, removed: bool) -> Option<usize> {
        let enough = |votes: &Self| votes.trackers.saturating_sub(votes.removed.len()) >= votes.needed;
        let before = enough(self);
        if removed {
            self.removed.insert(number);
        } else {
            self.removed.remove(&number);
        }
        (before && !enough(self)).then_some(self.needed)
    }

    /// A tracker orders that a chunk be deleted; whether enough of them do so now.
    pub(super) fn order(&mut self, (number, peer): (u8, PeerId), chunk: OwnedChunk, now_ms: u64) -> bool {
        let votes = self.votes.entry(number).or_default();
        if votes.len() >= MAX_VOTES && !votes.contains_key(&chunk) {
            votes.retain(|_, vote| is_fresh(vote, now_ms));
            if votes.len() >= MAX_VOTES {
                return false;
            }
        }
        votes.insert(chunk, Vote { peer, at_ms: now_ms });
        let mut peers: Vec<PeerId> = self
            .votes
            .values()
            .filter_map(|votes| votes.get(&chunk).filter(|vote| is_fresh(vote, now_ms)))
            .map(|vote| vote.peer)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers.len() >= self.needed
    }

    /// Withdraws a vote: the tracker needs the chunk here.
    pub(super) fn withdraw(&mut self, number: u8, chunk: &OwnedChunk) {
        if let Some(votes) = self.votes.get_mut(&number) {
            votes.remove(chunk);
        }
    }

    /// Removes all votes on a chunk.
    pub(super) fn close(&mut self, chunk: &OwnedChunk) {
        for votes in self.votes.values_mut() {
            votes.remove(chunk);
        }
    }

    /// The tracker of that number is not connected any more.
    pub(super) fn forget(&mut self, number: u8) {
        self.votes.remove(&number);
    }
}

fn is_fresh(vote: &Vote, now_ms: u64) -> bool {
    now_ms.saturating_sub(vote.at_ms) < VOTE_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::Uid;
    use shoal_common::storage::ChunkId;

    fn chunk(number: u32) -> OwnedChunk {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        OwnedChunk { owner: Uid([1; 16]), chunk: ChunkId(id) }
    }

    fn tracker(number: u8) -> (u8, PeerId) {
        (number, PeerId([number; 32]))
    }

    #[test]
    fn more_than_half_must_agree_and_both_of_two() {
        for (trackers, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
            let mut votes = DeletionVotes::new(trackers);
            for number in 1..=u8::try_from(trackers).unwrap() {
                // Saying it again makes it no more.
                votes.order(tracker(number), chunk(1), 0);
                assert_eq!(
                    votes.order(tracker(number), chunk(1), 0),
                    usize::from(number) >= needed,
                    "{number} of {trackers}"
                );
            }
        }
    }

    #[test]
    fn removed_trackers_count_on_and_it_is_said_once_when_too_few_are_left() {
        for (trackers, spare) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            let mut votes = DeletionVotes::new(trackers);
            for number in 1..=u8::try_from(trackers).unwrap() {
                let too_few = usize::from(number) == spare + 1;
                assert_eq!(votes.remove(number, true).is_some(), too_few, "{number} of {trackers}");
                assert_eq!(votes.remove(number, true), None, "it was said");
            }
        }
        let mut votes = DeletionVotes::new(2);
        assert_eq!(votes.remove(2, true), Some(2));
        assert!(
            !votes.order(tracker(1), chunk(1), 0),
            "one of two is no majority, whatever it says of the other"
        );
        assert_eq!(votes.remove(2, false), None);
        assert_eq!(votes.remove(2, true), Some(2));
    }

    #[test]
    fn a_vote_is_for_one_chunk_expires_and_can_be_withdrawn() {
        let mut votes = DeletionVotes::new(3);
        assert!(!votes.order(tracker(1), chunk(1), 0));
        assert!(!votes.order(tracker(2), chunk(2), 0), "another chunk");
        assert!(!votes.order(tracker(2), chunk(1), VOTE_MS), "too long ago");
        votes.withdraw(2, &chunk(1));
        assert!(!votes.order(tracker(3), chunk(1), VOTE_MS));
        votes.forget(3);
        assert!(!votes.order(tracker(1), chunk(1), VOTE_MS));
        assert!(votes.order(tracker(2), chunk(1), VOTE_MS));
        votes.close(&chunk(1));
        assert!(!votes.order(tracker(3), chunk(1), VOTE_MS), "it was dealt with");
        let under_another_number = (2, tracker(3).1);
        assert!(!votes.order(under_another_number, chunk(1), VOTE_MS), "one tracker on two lines is one");
    }

    #[test]
    fn one_trackers_flood_is_bounded_and_stops_nobody_else() {
        let mut votes = DeletionVotes::new(3);
        for number in 0..20_000 {
            votes.order(tracker(1), chunk(number), 0);
        }
        assert_eq!(votes.votes[&1].len(), MAX_VOTES);
        assert!(!votes.order(tracker(2), chunk(30_000), 0));
        assert!(votes.order(tracker(3), chunk(30_000), 0));
        votes.order(tracker(1), chunk(30_001), VOTE_MS);
        assert!(votes.votes[&1].contains_key(&chunk(30_001)), "old votes give way");
    }
}
