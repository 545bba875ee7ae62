//! The version vector: for each origin, up to which number all of its rows are held here or superseded.

use std::collections::BTreeMap;

use crate::row::Origin;

/// For each origin a sequence number; none is 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<Origin, u64>);

impl VersionVector {
    /// The number held for `origin`.
    pub fn at(&self, origin: Origin) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Raises `origin` to `seq`; says whether that moved it.
    pub fn raise(&mut self, origin: Origin, seq: u64) -> bool {
        let moved = seq > self.at(origin);
        if moved {
            self.0.insert(origin, seq);
        }
        moved
    }

    /// Whether the row `(origin, seq)` is covered.
    pub fn covers(&self, origin: Origin, seq: u64) -> bool {
        seq <= self.at(origin)
    }

    /// Whether everything that `other` covers is covered.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(&origin, &seq)| self.covers(origin, seq))
    }

    /// How many numbers `other` covers that this does not. Holes count, so the rows behind it may be fewer.
    pub fn lag_behind(&self, other: &Self) -> u64 {
        other
            .0
            .iter()
            .fold(0, |sum: u64, (&origin, &seq)| sum.saturating_add(seq.saturating_sub(self.at(origin))))
    }

    /// All entries, by origin.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64)> + '_ {
        self.0.iter().map(|(&origin, &seq)| (origin, seq))
    }

    /// How many origins it knows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lowers `origin` to `seq`, if it is higher.
    pub(crate) fn lower(&mut self, origin: Origin, seq: u64) {
        if seq == 0 {
            self.0.remove(&origin);
        } else if self.at(origin) > seq {
            self.0.insert(origin, seq);
        }
    }

    pub(crate) fn forget(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
