//! The version vector: for each writer, the number up to which all of its rows are held here or superseded.

use std::collections::BTreeMap;

use crate::row::WriterId;

/// A sequence number for each writer; none is 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionVector(BTreeMap<WriterId, u64>);

impl VersionVector {
    /// The number held for `writer`.
    pub fn at(&self, writer: WriterId) -> u64 {
        self.0.get(&writer).copied().unwrap_or(0)
    }

    /// Raises `writer` to `seq`. Returns whether that changed it.
    pub fn raise(&mut self, writer: WriterId, seq: u64) -> bool {
        let moved = seq > self.at(writer);
        if moved {
            self.0.insert(writer, seq);
        }
        moved
    }

    /// Whether the row `(writer, seq)` is covered.
    pub fn covers(&self, writer: WriterId, seq: u64) -> bool {
        seq <= self.at(writer)
    }

    /// Whether everything that `other` covers is covered.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(&writer, &seq)| self.covers(writer, seq))
    }

    /// How many numbers `other` covers that this vector does not. Holes count, so there may be fewer rows.
    pub fn lag_behind(&self, other: &Self) -> u64 {
        other
            .0
            .iter()
            .fold(0, |sum: u64, (&writer, &seq)| sum.saturating_add(seq.saturating_sub(self.at(writer))))
    }

    /// All entries, by writer.
    pub fn iter(&self) -> impl Iterator<Item = (WriterId, u64)> + '_ {
        self.0.iter().map(|(&writer, &seq)| (writer, seq))
    }

    /// How many writers it contains.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lowers `writer` to `seq`, if it is higher.
    pub(crate) fn lower(&mut self, writer: WriterId, seq: u64) {
        if seq == 0 {
            self.0.remove(&writer);
        } else if self.at(writer) > seq {
            self.0.insert(writer, seq);
        }
    }

    pub(crate) fn forget(&mut self, writer: WriterId) {
        self.0.remove(&writer);
    }
}

impl FromIterator<(WriterId, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (WriterId, u64)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
