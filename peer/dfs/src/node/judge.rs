//! Whose word has a chunk deleted: a majority of the trackers that this node was started with. Pure: time is an argument.
//!
//! A tracker's word counts for its number and its proven key together: one tracker that answers on two lines is one. It
//! counts for a short while only, because every tracker repeats it as long as it stands, and a tracker that has the chunk
//! copied to here takes it back.
//!
//! Trackers that the others say are none any more count on: with two, one that lies could say so of the other, and would then
//! be a majority alone. Only the operator's file makes them fewer.

use std::collections::{HashMap, HashSet};

use shoal_common::PeerId;
use shoal_common::tracker_api::storage::OwnedChunk;

/// For how long a tracker's word counts, in milliseconds: trackers repeat it every ten seconds.
const WORD_MS: u64 = 45_000;
/// Chunks of which one tracker's word is remembered at most: more than trackers ask for at once.
const MAX_WORDS: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    trackers: usize,
    needed: usize,
    /// Those that are trackers no more, by number.
    removed: HashSet<u8>,
    /// By the tracker's number.
    words: HashMap<u8, HashMap<OwnedChunk, Word>>,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    peer: PeerId,
    at_ms: u64,
}

/// How many of so many trackers must order a deletion: more than half; of two, both.
pub(super) fn majority(trackers: usize) -> usize {
    trackers / 2 + 1
}

impl Judge {
    /// For a node that was started with so many trackers.
    pub(super) fn new(trackers: usize) -> Self {
        let (removed, words) = (HashSet::new(), HashMap::new());
        Self { trackers, needed: majority(trackers), removed, words }
    }

    /// The tracker of that number is none any more, or is one again; how many are needed, if from now on too few are left.
    pub(super) fn remove(&mut self, number: u8, removed: bool) -> Option<usize> {
        let enough = |judge: &Self| judge.trackers.saturating_sub(judge.removed.len()) >= judge.needed;
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
        let words = self.words.entry(number).or_default();
        if words.len() >= MAX_WORDS && !words.contains_key(&chunk) {
            words.retain(|_, word| is_fresh(word, now_ms));
            if words.len() >= MAX_WORDS {
                return false;
            }
        }
        words.insert(chunk, Word { peer, at_ms: now_ms });
        let mut peers: Vec<PeerId> = self
            .words
            .values()
            .filter_map(|words| words.get(&chunk).filter(|word| is_fresh(word, now_ms)))
            .map(|word| word.peer)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers.len() >= self.needed
    }

    /// A tracker needs the chunk here after all.
    pub(super) fn withdraw(&mut self, number: u8, chunk: &OwnedChunk) {
        if let Some(words) = self.words.get_mut(&number) {
            words.remove(chunk);
        }
    }

    /// The chunk is dealt with.
    pub(super) fn settle(&mut self, chunk: &OwnedChunk) {
        for words in self.words.values_mut() {
            words.remove(chunk);
        }
    }

    /// The tracker of that number is not connected any more.
    pub(super) fn forget(&mut self, number: u8) {
        self.words.remove(&number);
    }
}

fn is_fresh(word: &Word, now_ms: u64) -> bool {
    now_ms.saturating_sub(word.at_ms) < WORD_MS
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
            let mut judge = Judge::new(trackers);
            for number in 1..=u8::try_from(trackers).unwrap() {
                // Saying it again makes it no more.
                judge.order(tracker(number), chunk(1), 0);
                assert_eq!(
                    judge.order(tracker(number), chunk(1), 0),
                    usize::from(number) >= needed,
                    "{number} of {trackers}"
                );
            }
        }
    }

    #[test]
    fn removed_trackers_count_on_and_it_is_said_once_when_too_few_are_left() {
        for (trackers, spare) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            let mut judge = Judge::new(trackers);
            for number in 1..=u8::try_from(trackers).unwrap() {
                let too_few = usize::from(number) == spare + 1;
                assert_eq!(judge.remove(number, true).is_some(), too_few, "{number} of {trackers}");
                assert_eq!(judge.remove(number, true), None, "it was said");
            }
        }
        let mut judge = Judge::new(2);
        assert_eq!(judge.remove(2, true), Some(2));
        assert!(
            !judge.order(tracker(1), chunk(1), 0),
            "one of two is no majority, whatever it says of the other"
        );
        assert_eq!(judge.remove(2, false), None);
        assert_eq!(judge.remove(2, true), Some(2));
    }

    #[test]
    fn a_word_is_for_one_chunk_fades_and_can_be_taken_back() {
        let mut judge = Judge::new(3);
        assert!(!judge.order(tracker(1), chunk(1), 0));
        assert!(!judge.order(tracker(2), chunk(2), 0), "another chunk");
        assert!(!judge.order(tracker(2), chunk(1), WORD_MS), "too long ago");
        judge.withdraw(2, &chunk(1));
        assert!(!judge.order(tracker(3), chunk(1), WORD_MS));
        judge.forget(3);
        assert!(!judge.order(tracker(1), chunk(1), WORD_MS));
        assert!(judge.order(tracker(2), chunk(1), WORD_MS));
        judge.settle(&chunk(1));
        assert!(!judge.order(tracker(3), chunk(1), WORD_MS), "it was dealt with");
        let under_another_number = (2, tracker(3).1);
        assert!(!judge.order(under_another_number, chunk(1), WORD_MS), "one tracker on two lines is one");
    }

    #[test]
    fn one_trackers_flood_is_bounded_and_stops_nobody_else() {
        let mut judge = Judge::new(3);
        for number in 0..20_000 {
            judge.order(tracker(1), chunk(number), 0);
        }
        assert_eq!(judge.words[&1].len(), MAX_WORDS);
        assert!(!judge.order(tracker(2), chunk(30_000), 0));
        assert!(judge.order(tracker(3), chunk(30_000), 0));
        judge.order(tracker(1), chunk(30_001), WORD_MS);
        assert!(judge.words[&1].contains_key(&chunk(30_001)), "old words give way");
    }
}
