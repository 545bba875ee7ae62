//! Whose word has a chunk deleted: a majority of the trackers that this node was started with. Pure: time is an argument.
//!
//! A tracker's word counts for its number and its proven key together: one tracker that answers on two lines is one. It
//! counts for a short while only, because every tracker repeats it as long as it stands, and a tracker that has the chunk
//! copied to here takes it back.

use std::collections::HashMap;

use shoal_common::PeerId;
use shoal_common::tracker_api::storage::OwnedChunk;

/// For how long a tracker's word counts, in milliseconds: trackers repeat it every ten seconds.
const WORD_MS: u64 = 45_000;
/// Chunks of which one tracker's word is remembered at most: more than trackers ask for at once.
const MAX_WORDS: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    needed: usize,
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
        Self { needed: majority(trackers), words: HashMap::new() }
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
