//! [`Rows`] in memory, with transactions, for tests and simulations.
//!
//! All data is in ordered maps. A transaction is a journal of what to restore.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use crate::limits::BUCKETS;
use crate::row::{BlobHash, Kind, Row, Stamp, WriterId};
use crate::rows::{Admission, After, MetaEntry, Rows};

/// A store in memory. Changes take effect at once; [`commit`](Memory::commit) keeps them, and
/// [`rollback`](Memory::rollback) undoes what came after the last commit. A clone is a backup.
#[derive(Debug, Clone)]
pub struct Memory {
    rows: BTreeMap<(Kind, Vec<u8>), Row>,
    numbers: BTreeMap<(WriterId, u64), (Kind, Vec<u8>)>,
    tombstones: BTreeSet<(Stamp, Kind, Vec<u8>)>,
    buckets: BTreeMap<u16, BTreeSet<(Kind, Vec<u8>)>>,
    sums: Vec<u128>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    blobs: BTreeMap<BlobHash, Vec<u8>>,
    named: BTreeMap<BlobHash, usize>,
    missing: BTreeSet<BlobHash>,
    journal: Vec<Undo>,
    judge: Judge,
    alike: Alike,
}

/// Judges a row from a peer by its content and what is held under its key; see [`Rows::admits`].
pub type Judge = fn(&Row, Option<&Row>) -> Admission;

/// The place of a name; see [`Rows::place_for`].
pub type Alike = fn(&[u8]) -> Vec<u8>;

#[derive(Debug, Clone)]
enum Undo {
    Row(Kind, Vec<u8>, Option<Row>),
    Meta(Vec<u8>, Option<Vec<u8>>),
    Blob(BlobHash, Option<Vec<u8>>),
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            numbers: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            buckets: BTreeMap::new(),
            sums: vec![0; BUCKETS],
            meta: BTreeMap::new(),
            blobs: BTreeMap::new(),
            named: BTreeMap::new(),
            missing: BTreeSet::new(),
            journal: Vec::new(),
            judge: |_, _| Admission::ByTime,
            alike: <[u8]>::to_vec,
        }
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges rows from peers by this function from now on. A new store takes them all.
    pub fn judge_by(&mut self, judge: Judge) {
        self.judge = judge;
    }

    /// Names have the places that this function gives them from now on. In a new store each has its own.
    pub fn alike_by(&mut self, alike: Alike) {
        self.alike = alike;
    }

    /// Makes everything since the last commit durable.
    pub fn commit(&mut self) {
        self.journal.clear();
    }

    /// Undoes everything since the last commit.
    pub fn rollback(&mut self) {
        while let Some(undo) = self.journal.pop() {
            match undo {
                Undo::Row(kind, key, old) => {
                    self.set_row(kind, &key, old);
                }
                Undo::Meta(key, old) => {
                    self.set_meta(&key, old);
                }
                Undo::Blob(hash, old) => {
                    self.set_blob(hash, old);
                }
            }
        }
    }

    /// All rows, tombstones included, by kind and key.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// How many blobs are held.
    pub fn blob_count(&self) -> usize {
        self.blobs.len()
    }

    fn set_row(&mut self, kind: Kind, key: &[u8], row: Option<Row>) -> Option<Row> {
        let place = (kind, key.to_vec());
        let new = row.clone();
        let old = match row {
            Some(row) => self.rows.insert(place.clone(), row),
            None => self.rows.remove(&place),
        };
        if let Some(old) = &old {
            self.unlist(old);
        }
        if let Some(new) = &new {
            self.list(new, place);
        }
        old
    }

    fn list(&mut self, row: &Row, place: (Kind, Vec<u8>)) {
        let bucket = row.bucket();
        self.add_to_sum(bucket, row.sum());
        if row.tombstone {
            self.tombstones.insert((row.stamp, row.kind, row.key.clone()));
        }
        for &blob in &row.blobs {
            *self.named.entry(blob).or_default() += 1;
            if !self.blobs.contains_key(&blob) {
                self.missing.insert(blob);
            }
        }
        self.numbers.insert((row.writer, row.seq), place.clone());
        self.buckets.entry(bucket).or_default().insert(place);
    }

    fn unlist(&mut self, row: &Row) {
        let place = (row.kind, row.key.clone());
        self.add_to_sum(row.bucket(), row.sum().wrapping_neg());
        self.tombstones.remove(&(row.stamp, row.kind, row.key.clone()));
        if self.numbers.get(&(row.writer, row.seq)) == Some(&place) {
            self.numbers.remove(&(row.writer, row.seq));
        }
        if let Some(bucket) = self.buckets.get_mut(&row.bucket()) {
            bucket.remove(&place);
        }
        for blob in &row.blobs {
            let left = self.named.get_mut(blob).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                self.named.remove(blob);
                self.missing.remove(blob);
            }
        }
    }

    fn add_to_sum(&mut self, bucket: u16, amount: u128) {
        if let Some(sum) = self.sums.get_mut(usize::from(bucket)) {
            *sum = sum.wrapping_add(amount);
        }
    }

    fn set_meta(&mut self, key: &[u8], value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match value {
            Some(value) => self.meta.insert(key.to_vec(), value),
            None => self.meta.remove(key),
        }
    }

    fn set_blob(&mut self, hash: BlobHash, content: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match content {
            Some(content) => {
                self.missing.remove(&hash);
                self.blobs.insert(hash, content)
            }
            None => {
                if self.named.contains_key(&hash) {
                    self.missing.insert(hash);
                }
                self.blobs.remove(&hash)
            }
        }
    }
}

impl Rows for Memory {
    type Error = Infallible;

    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Row>, Infallible> {
        Ok(self.rows.get(&(kind, key.to_vec())).cloned())
    }

    fn admits(&self, row: &Row, held: Option<&Row>) -> Result<Admission, Infallible> {
        Ok((self.judge)(row, held))
    }

    fn place_for(&self, _kind: Kind, name: &[u8]) -> Vec<u8> {
        (self.alike)(name)
    }

    fn put(&mut self, row: &Row) -> Result<(), Infallible> {
        let old = self.set_row(row.kind, &row.key, Some(row.clone()));
        self.journal.push(Undo::Row(row.kind, row.key.clone(), old));
        Ok(())
    }

    fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), Infallible> {
        let old = self.set_row(kind, key, None);
        self.journal.push(Undo::Row(kind, key.to_vec(), old));
        Ok(())
    }

    fn above(&self, writer: WriterId, seq: u64, limit: usize) -> Result<Vec<Row>, Infallible> {
        let places =
            self.numbers.range((Bound::Excluded((writer, seq)), Bound::Included((writer, u64::MAX))));
        Ok(places.take(limit).filter_map(|(_, place)| self.rows.get(place).cloned()).collect())
    }

    fn scan(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Infallible> {
        let start = match after {
            Some(key) if key >= prefix => Bound::Excluded((kind, key.to_vec())),
            _ => Bound::Included((kind, prefix.to_vec())),
        };
        let rows = self.rows.range((start, Bound::Unbounded)).map(|(_, row)| row);
        let fitting = rows.take_while(|row| row.kind == kind && row.key.starts_with(prefix));
        Ok(fitting.take(limit).cloned().collect())
    }

    fn tombstones(&self, from: Stamp, before: Stamp, limit: usize) -> Result<Vec<Row>, Infallible> {
        let places = self.tombstones.range((from, Kind(0), Vec::new())..);
        let due = places.take_while(|(stamp, ..)| *stamp < before).take(limit);
        Ok(due.filter_map(|(_, kind, key)| self.rows.get(&(*kind, key.clone())).cloned()).collect())
    }

    fn bucket_sums(&self) -> Result<Vec<u128>, Infallible> {
        Ok(self.sums.clone())
    }

    fn bucket_rows(&self, bucket: u16, after: After<'_>, limit: usize) -> Result<Vec<Row>, Infallible> {
        let start = match after {
            Some((kind, key)) => Bound::Excluded((kind, key.to_vec())),
            None => Bound::Unbounded,
        };
        let places = self
            .buckets
            .get(&bucket)
            .into_iter()
            .flat_map(|places| places.range((start.clone(), Bound::Unbounded)));
        Ok(places.take(limit).filter_map(|place| self.rows.get(place).cloned()).collect())
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.meta.get(key).cloned())
    }

    fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        let old = self.set_meta(key, Some(value.to_vec()));
        self.journal.push(Undo::Meta(key.to_vec(), old));
        Ok(())
    }

    fn remove_meta(&mut self, key: &[u8]) -> Result<(), Infallible> {
        let old = self.set_meta(key, None);
        self.journal.push(Undo::Meta(key.to_vec(), old));
        Ok(())
    }

    fn scan_meta(&self, prefix: &[u8], limit: usize) -> Result<Vec<MetaEntry>, Infallible> {
        let values = self.meta.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(values.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn blob_len(&self, hash: BlobHash) -> Result<Option<u64>, Infallible> {
        Ok(self.blobs.get(&hash).map(|content| content.len() as u64))
    }

    fn read_blob(&self, hash: BlobHash, offset: u64, limit: usize) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.blobs.get(&hash).map(|content| {
            let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or(&[]);
            rest.iter().take(limit).copied().collect()
        }))
    }

    fn put_blob(&mut self, hash: BlobHash, content: &[u8]) -> Result<(), Infallible> {
        let old = self.set_blob(hash, Some(content.to_vec()));
        self.journal.push(Undo::Blob(hash, old));
        Ok(())
    }

    fn remove_blob(&mut self, hash: BlobHash) -> Result<(), Infallible> {
        let old = self.set_blob(hash, None);
        self.journal.push(Undo::Blob(hash, old));
        Ok(())
    }

    fn missing_blobs(&self, limit: usize) -> Result<Vec<BlobHash>, Infallible> {
        Ok(self.missing.iter().take(limit).copied().collect())
    }

    fn unnamed_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Infallible> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let blobs = self.blobs.range((start, Bound::Unbounded)).map(|(&hash, _)| hash);
        Ok(blobs.filter(|hash| !self.named.contains_key(hash)).take(limit).collect())
    }
}
