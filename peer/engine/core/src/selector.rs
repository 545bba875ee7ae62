//! Chooses the item with the fewest holders. For a download the items are missing pieces and the holders sources. For
//! placing copies they are chunks and the servers that have them. Pure: randomness comes in as an argument.
//!
//! A change costs O(1), and so does a choice among all items. A choice among a subset costs at most a look at each wanted
//! item of the subset, and one word of the set per 64 items.
//!
//! ```
//! use fastrand::Rng;
//! use shoal_engine_core::selector::{ItemSet, Selector};
//!
//! let mut selector = Selector::new(3);
//! selector.gain(0); // A source holds items 0 and 1, another item 0.
//! selector.gain(1);
//! selector.gain(0);
//! let mut held = ItemSet::none(3);
//! held.insert(0);
//! held.insert(1);
//! let mut rng = Rng::with_seed(1);
//! assert_eq!(selector.rarest(Some(&held), |_| true, &mut rng), Some(1));
//! selector.unwant(1); // It was requested.
//! assert_eq!(selector.rarest(Some(&held), |_| true, &mut rng), Some(0));
//! ```

use fastrand::Rng;
use shoal_common::Bitfield;

/// Most items looked at in order of rarity before a choice among a subset scans the subset instead. A holder of a twentieth
/// of the wanted items is almost always served by this walk, which costs no more than a scan of 100,000 bits.
const WALK: usize = 256;
/// The same for the smallest sets, whose scan is short.
const LEAST_WALK: usize = 16;

/// Items by the number of their holders, and which of them are wanted.
#[derive(Debug, Clone)]
pub struct Selector {
    items: Vec<Item>,
    /// The wanted items with that many holders, in no order.
    buckets: Vec<Vec<u32>>,
    /// One bit per bucket, set if it is not empty: there may be as many empty buckets before the first full one as holders.
    filled: Vec<u64>,
    wanted: ItemSet,
    wanted_count: u32,
    /// No word of `wanted` before this one has a bit set.
    first_word: usize,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    holders: u32,
    /// Its place in its bucket, if it is wanted.
    slot: Option<u32>,
}

impl Selector {
    /// A selector of `items` items, numbered from 0, that have no holder and are all wanted.
    #[must_use]
    pub fn new(items: u32) -> Self {
        let mut wanted = ItemSet::none(items);
        (0..items).for_each(|item| wanted.insert(item));
        Self {
            items: (0..items).map(|item| Item { holders: 0, slot: Some(item) }).collect(),
            buckets: vec![(0..items).collect()],
            filled: vec![u64::from(items > 0)],
            wanted,
            wanted_count: items,
            first_word: 0,
        }
    }

    /// One more holds `item`.
    pub fn gain(&mut self, item: u32) {
        self.rehold(item, self.items[item as usize].holders + 1);
    }

    /// One less holds `item`; without a holder nothing changes.
    pub fn lose(&mut self, item: u32) {
        self.rehold(item, self.items[item as usize].holders.saturating_sub(1));
    }

    /// Puts `item` among those to choose from.
    pub fn want(&mut self, item: u32) {
        if self.items[item as usize].slot.is_none() {
            self.put(item);
            self.wanted.insert(item);
            self.wanted_count += 1;
            self.first_word = self.first_word.min(item as usize / 64);
        }
    }

    /// Removes `item` from those to choose from; its holders are still counted.
    pub fn unwant(&mut self, item: u32) {
        if self.items[item as usize].slot.is_some() {
            self.take(item);
            self.wanted.remove(item);
            self.wanted_count -= 1;
            while self.wanted.words.get(self.first_word) == Some(&0) {
                self.first_word += 1;
            }
        }
    }

    /// Whether `item` is among those to choose from; false for a number that is no item.
    #[must_use]
    pub fn wants(&self, item: u32) -> bool {
        self.items.get(item as usize).is_some_and(|item| item.slot.is_some())
    }

    /// How many items there are to choose from.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.wanted_count
    }

    /// How many of the wanted items nobody holds.
    #[must_use]
    pub fn unheld(&self) -> u32 {
        self.buckets.first().map_or(0, |bucket| u32::try_from(bucket.len()).unwrap_or(u32::MAX))
    }

    /// How many hold `item`.
    #[must_use]
    pub fn holders(&self, item: u32) -> u32 {
        self.items.get(item as usize).map_or(0, |item| item.holders)
    }

    /// The wanted item with the fewest holders, of those `among` (`None`: of all) that `accept` takes; ties at random.
    /// `accept` should refuse few items: each refusal costs a look.
    pub fn rarest(
        &self,
        among: Option<&ItemSet>,
        mut accept: impl FnMut(u32) -> bool,
        rng: &mut Rng,
    ) -> Option<u32> {
        let mut looks = self.wanted.words.len().clamp(LEAST_WALK, WALK);
        let filled = self.filled.iter().enumerate().flat_map(|(index, &word)| bits_of(index, word));
        for bucket in filled.map(|bucket| &self.buckets[bucket as usize]) {
            let (before, after) = bucket.split_at(rng.usize(..bucket.len()));
            for &item in after.iter().chain(before) {
                if among.is_none_or(|among| among.has(item)) && accept(item) {
                    return Some(item);
                }
                looks -= 1;
                if looks == 0 {
                    return self.rarest_by_scan(among, accept, rng);
                }
            }
        }
        None
    }

    /// The first wanted item, of those `among` (`None`: of all) that `accept` takes.
    pub fn first(&self, among: Option<&ItemSet>, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        self.candidates(among).find(|&item| accept(item))
    }

    fn rarest_by_scan(
        &self,
        among: Option<&ItemSet>,
        mut accept: impl FnMut(u32) -> bool,
        rng: &mut Rng,
    ) -> Option<u32> {
        let mut best = None;
        let mut fewest = u32::MAX;
        let mut ties = 0;
        for item in self.candidates(among) {
            let holders = self.items[item as usize].holders;
            if holders > fewest || !accept(item) {
                continue;
            }
            ties = if holders < fewest { 1 } else { ties + 1 };
            fewest = holders;
            if rng.u32(..ties) == 0 {
                best = Some(item);
            }
        }
        best
    }

    fn candidates(&self, among: Option<&ItemSet>) -> impl Iterator<Item = u32> {
        let words = self.wanted.words.iter().enumerate().skip(self.first_word);
        words.flat_map(move |(index, &word)| {
            let held = among.map_or(u64::MAX, |among| among.words.get(index).copied().unwrap_or(0));
            bits_of(index, word & held)
        })
    }

    fn rehold(&mut self, item: u32, holders: u32) {
        let wanted = self.items[item as usize].slot.is_some();
        if wanted {
            self.take(item);
        }
        self.items[item as usize].holders = holders;
        if wanted {
            self.put(item);
        }
    }

    fn put(&mut self, item: u32) {
        let holders = self.items[item as usize].holders as usize;
        if self.buckets.len() <= holders {
            self.buckets.resize_with(holders + 1, Vec::new);
            self.filled.resize(holders / 64 + 1, 0);
        }
        self.filled[holders / 64] |= 1 << (holders % 64);
        let bucket = &mut self.buckets[holders];
        self.items[item as usize].slot = u32::try_from(bucket.len()).ok();
        bucket.push(item);
    }

    fn take(&mut self, item: u32) {
        let Item { holders, slot } = self.items[item as usize];
        let Some(slot) = slot else { return };
        let bucket = &mut self.buckets[holders as usize];
        bucket.swap_remove(slot as usize);
        if bucket.is_empty() {
            self.filled[holders as usize / 64] &= !(1 << (holders % 64));
        }
        if let Some(&moved) = bucket.get(slot as usize) {
            self.items[moved as usize].slot = Some(slot);
        }
        self.items[item as usize].slot = None;
    }
}

/// A set of item numbers, 64 per word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSet {
    words: Vec<u64>,
}

impl ItemSet {
    /// The empty set of items below `items`.
    #[must_use]
    pub fn none(items: u32) -> Self {
        Self { words: vec![0; items.div_ceil(64) as usize] }
    }

    /// Whether `item` is in the set; false for a number that is no item.
    #[must_use]
    pub fn has(&self, item: u32) -> bool {
        self.words.get(item as usize / 64).is_some_and(|word| word >> (item % 64) & 1 == 1)
    }

    /// Adds an item.
    ///
    /// # Panics
    /// For a number that is no item.
    pub fn insert(&mut self, item: u32) {
        self.words[item as usize / 64] |= 1 << (item % 64);
    }

    /// Takes an item out.
    ///
    /// # Panics
    /// For a number that is no item.
    pub fn remove(&mut self, item: u32) {
        self.words[item as usize / 64] &= !(1 << (item % 64));
    }

    /// How many items are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no item is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(index, &word)| bits_of(index, word))
    }

    /// The items of this set that `other` lacks, in order.
    pub fn minus(&self, other: &Self) -> impl Iterator<Item = u32> {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| bits_of(index, word & !other.words.get(index).copied().unwrap_or(0)))
    }
}

impl From<&Bitfield> for ItemSet {
    fn from(bits: &Bitfield) -> Self {
        Self { words: bits.words().to_vec() }
    }
}

/// The numbers of the bits that are set in the word at `index` of a set.
fn bits_of(index: usize, word: u64) -> impl Iterator<Item = u32> {
    let base = u32::try_from(index * 64).expect("a set has fewer than 2^32 items");
    let mut rest = word;
    std::iter::from_fn(move || {
        let bit = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        Some(base + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::collections::BTreeSet;

    #[test]
    fn fewest_holders_first_and_ties_all_come_up() {
        let mut selector = Selector::new(5);
        for item in [0, 0, 1, 1, 2, 4, 4, 4] {
            selector.gain(item);
        }
        selector.unwant(3);
        let mut rng = Rng::with_seed(1);
        assert_eq!(selector.rarest(None, |_| true, &mut rng), Some(2));
        selector.unwant(2);
        let seen: BTreeSet<_> = (0..100).filter_map(|_| selector.rarest(None, |_| true, &mut rng)).collect();
        assert_eq!(seen, BTreeSet::from([0, 1]));
        assert_eq!(selector.rarest(None, |item| item > 1, &mut rng), Some(4));
    }

    #[test]
    fn the_start_is_random() {
        let selector = Selector::new(1_000);
        let starts: BTreeSet<_> =
            (0..50).filter_map(|seed| selector.rarest(None, |_| true, &mut Rng::with_seed(seed))).collect();
        assert!(starts.len() > 40, "{starts:?}");
    }

    #[test]
    fn the_first_is_the_lowest_number() {
        let mut selector = Selector::new(200);
        (0..150).for_each(|item| selector.unwant(item));
        assert_eq!(selector.first(None, |_| true), Some(150));
        selector.want(70);
        assert_eq!(selector.first(None, |_| true), Some(70));
        assert_eq!(selector.first(None, |item| item != 70), Some(150));
        (0..200).for_each(|item| selector.unwant(item));
        assert_eq!(selector.first(None, |_| true), None);
    }

    #[test]
    fn a_holder_of_little_is_still_served() {
        let mut selector = Selector::new(100_000);
        let mut little = ItemSet::none(100_000);
        little.insert(77_777);
        little.insert(88_888);
        selector.gain(77_777);
        let mut rng = Rng::with_seed(1);
        assert_eq!(selector.rarest(Some(&little), |_| true, &mut rng), Some(88_888));
        assert_eq!(selector.rarest(Some(&little), |item| item != 88_888, &mut rng), Some(77_777));
        assert_eq!(selector.unheld(), 99_999);
        selector.unwant(77_777);
        selector.unwant(88_888);
        assert_eq!(selector.rarest(Some(&little), |_| true, &mut rng), None);
    }

    #[test]
    fn numbers_out_of_range_are_no_items() {
        let selector = Selector::new(3);
        assert!(!selector.wants(3) && selector.holders(u32::MAX) == 0);
        assert!(!ItemSet::none(3).has(500));
        assert_eq!(Selector::new(0).rarest(None, |_| true, &mut Rng::with_seed(1)), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Gain(u32),
        Lose(u32),
        Want(u32),
        Unwant(u32),
        Pick(Vec<u32>),
    }

    fn step(items: u32) -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..items).prop_map(Step::Gain),
            (0..items).prop_map(Step::Lose),
            (0..items).prop_map(Step::Want),
            (0..items).prop_map(Step::Unwant),
            proptest::collection::vec(0..items, 0..20).prop_map(Step::Pick),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_the_plain_definition(
            (items, steps, seed) in (1u32..700).prop_flat_map(|items| {
                (Just(items), proptest::collection::vec(step(items), 0..300), any::<u64>())
            })
        ) {
            let mut rng = Rng::with_seed(seed);
            let mut selector = Selector::new(items);
            let mut holders = vec![0u32; items as usize];
            let mut wanted: BTreeSet<u32> = (0..items).collect();
            for step in steps {
                match step {
                    Step::Gain(item) => { selector.gain(item); holders[item as usize] += 1; }
                    Step::Lose(item) => {
                        selector.lose(item);
                        holders[item as usize] = holders[item as usize].saturating_sub(1);
                    }
                    Step::Want(item) => { selector.want(item); wanted.insert(item); }
                    Step::Unwant(item) => { selector.unwant(item); wanted.remove(&item); }
                    Step::Pick(among) => {
                        let mut set = ItemSet::none(items);
                        among.iter().for_each(|&item| set.insert(item));
                        let best = wanted.iter().filter(|&&item| set.has(item)).map(|&item| holders[item as usize]).min();
                        let pick = selector.rarest(Some(&set), |_| true, &mut rng);
                        prop_assert_eq!(pick.map(|item| holders[item as usize]), best);
                        prop_assert!(pick.is_none_or(|item| wanted.contains(&item) && set.has(item)));
                        let scanned = selector.rarest_by_scan(Some(&set), |_| true, &mut rng);
                        prop_assert_eq!(scanned.map(|item| holders[item as usize]), best);
                        prop_assert!(scanned.is_none_or(|item| wanted.contains(&item) && set.has(item)));
                        prop_assert_eq!(selector.first(Some(&set), |_| true), wanted.iter().copied().find(|&item| set.has(item)));
                    }
                }
                prop_assert_eq!(selector.wanted() as usize, wanted.len());
            }
            for item in 0..items {
                prop_assert_eq!(selector.holders(item), holders[item as usize]);
                prop_assert_eq!(selector.wants(item), wanted.contains(&item));
            }
        }
    }
}
