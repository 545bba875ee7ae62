//! The storage seam: what the replica needs of a transaction.

use crate::limits::READ_ROWS;
use crate::names::parse_claim_key;
use crate::row::{BlobHash, Kind, Row, Stamp, WriterId};

/// A position in the order of all rows: after this kind and key.
pub type After<'a> = Option<(Kind, &'a [u8])>;

/// A key and a value of the replica's own metadata.
pub type MetaEntry = (Vec<u8>, Vec<u8>);

/// Whether a peer's row may replace what is held under its key; see [`Rows::admits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may; [`wins`](crate::wins) decides.
    ByTime,
    /// It ranks above what is held and replaces it, whatever the stamps.
    Above,
    /// It ranks below what is held and is ignored, whatever the stamps.
    Below,
    /// It does not prove itself. It is not taken, and an alarm is raised.
    Refused,
}

/// Storage inside one open transaction. The driver begins and ends it. When it rolls back, the replica that
/// worked in it must be dropped and opened again.
///
/// Implementations order kinds by number and keys by bytes, return exactly what was put, and keep
/// `bucket_sums`, `missing_blobs` and `unnamed_blobs` up to date by themselves. All integers fit in 63 bits.
pub trait Rows {
    /// An error of the storage itself.
    type Error;

    /// The row under `(kind, key)`, also if it is a tombstone.
    ///
    /// # Errors
    /// If the storage fails, as for all methods.
    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Row>, Self::Error>;

    /// Judges a row from a peer, before anything else about it, by its content and what is `held` under its
    /// key.
    ///
    /// Trackers stay in sync only if all judge alike: ranks, and whether a row is refused, must follow from
    /// the rows alone. A row that proves nothing may be judged by what came first. Two trackers to which
    /// different ones came first refuse each other's until an operator replaces one.
    ///
    /// # Errors
    /// If the storage fails.
    fn admits(&self, _row: &Row, _held: Option<&Row>) -> Result<Admission, Self::Error> {
        Ok(Admission::ByTime)
    }

    /// Which names compete with `name`: all that have the same place. By default a name competes only with itself.
    ///
    /// Trackers that give one name different places must give the same to all claims that they vote for: see
    /// [`place_of`](Self::place_of).
    fn place_for(&self, _kind: Kind, name: &[u8]) -> Vec<u8> {
        name.to_vec()
    }

    /// The place for which a claim competes, as it was determined when the claim was made. A tracker votes only for a claim
    /// whose place it would determine too.
    fn place_of(&self, claim: &Row) -> Option<Vec<u8>> {
        Some(self.place_for(claim.kind, parse_claim_key(&claim.key)?.0))
    }

    /// The claims of a kind that compete for a place, by what they say or by what this store determines. By default
    /// all claims are read.
    ///
    /// # Errors
    /// If the storage fails.
    fn rivals(&self, kind: Kind, place: &[u8]) -> Result<Vec<Row>, Self::Error> {
        let mut rivals = Vec::new();
        scan_all(self, kind, &[], |row| {
            if self.place_of(&row).is_some_and(|of| of == place) {
                rivals.push(row);
            }
        })?;
        Ok(rivals)
    }

    /// Stores a row in place of the one under the same `(kind, key)`. Subtracts the old row's [`Row::sum`]
    /// from the sum of [`Row::bucket`] and adds the new one's, wrapping. The blobs that it names replace
    /// those that the old row named.
    ///
    /// # Errors
    /// If the storage fails.
    fn put(&mut self, row: &Row) -> Result<(), Self::Error>;

    /// Removes the row under `(kind, key)`, also from the sums. No error if there is none.
    ///
    /// # Errors
    /// If the storage fails.
    fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), Self::Error>;

    /// The first `limit` rows of `writer` above `seq`, in order of their numbers.
    ///
    /// # Errors
    /// If the storage fails.
    fn above(&self, writer: WriterId, seq: u64, limit: usize) -> Result<Vec<Row>, Self::Error>;

    /// The first `limit` rows of a kind whose keys begin with `prefix` and come after `after`, in order of
    /// their keys, tombstones included.
    ///
    /// # Errors
    /// If the storage fails.
    fn scan(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Self::Error>;

    /// The first `limit` tombstones with `from <= stamp < before`, in order of their stamps.
    ///
    /// # Errors
    /// If the storage fails.
    fn tombstones(&self, from: Stamp, before: Stamp, limit: usize) -> Result<Vec<Row>, Self::Error>;

    /// The sums of all buckets, [`BUCKETS`](crate::limits::BUCKETS) of them.
    ///
    /// # Errors
    /// If the storage fails.
    fn bucket_sums(&self) -> Result<Vec<u128>, Self::Error>;

    /// The first `limit` rows of a bucket after `after`, in order of kind and key, tombstones included.
    ///
    /// # Errors
    /// If the storage fails.
    fn bucket_rows(&self, bucket: u16, after: After<'_>, limit: usize) -> Result<Vec<Row>, Self::Error>;

    /// A small metadata value of the replica, stored beside the rows and never sent.
    ///
    /// # Errors
    /// If the storage fails.
    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Stores such a value: keys up to 300 bytes, values up to 64.
    ///
    /// # Errors
    /// If the storage fails.
    fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;

    /// Removes such a value. No error if there is none.
    ///
    /// # Errors
    /// If the storage fails.
    fn remove_meta(&mut self, key: &[u8]) -> Result<(), Self::Error>;

    /// The first `limit` such keys, with their values, that begin with `prefix`, in order.
    ///
    /// # Errors
    /// If the storage fails.
    fn scan_meta(&self, prefix: &[u8], limit: usize) -> Result<Vec<MetaEntry>, Self::Error>;

    /// The length in bytes of a blob held, or `None`.
    ///
    /// # Errors
    /// If the storage fails.
    fn blob_len(&self, hash: BlobHash) -> Result<Option<u64>, Self::Error>;

    /// Up to `limit` bytes of a blob from `offset` on. `None` if it is not held; empty past its end.
    ///
    /// # Errors
    /// If the storage fails.
    fn read_blob(&self, hash: BlobHash, offset: u64, limit: usize) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Stores a blob whose hash the caller has checked. No error if it is held already.
    ///
    /// # Errors
    /// If the storage fails.
    fn put_blob(&mut self, hash: BlobHash, content: &[u8]) -> Result<(), Self::Error>;

    /// Removes a blob. No error if there is none.
    ///
    /// # Errors
    /// If the storage fails.
    fn remove_blob(&mut self, hash: BlobHash) -> Result<(), Self::Error>;

    /// Up to `limit` hashes that a row names and whose blob is not held, in any fixed order.
    ///
    /// # Errors
    /// If the storage fails.
    fn missing_blobs(&self, limit: usize) -> Result<Vec<BlobHash>, Self::Error>;

    /// The first `limit` hashes of blobs after `after` that no row names, in order.
    ///
    /// # Errors
    /// If the storage fails.
    fn unnamed_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, Self::Error>;
}

/// Reads all rows of a kind whose keys begin with `prefix`, in order of their keys, a page at a time.
pub(crate) fn scan_all<R: Rows + ?Sized>(
    rows: &R,
    kind: Kind,
    prefix: &[u8],
    mut each: impl FnMut(Row),
) -> Result<(), R::Error> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = rows.scan(kind, prefix, after.as_deref(), READ_ROWS)?;
        let complete = page.len() < READ_ROWS;
        after = page.last().map(|row| row.key.clone());
        page.into_iter().for_each(&mut each);
        if complete {
            return Ok(());
        }
    }
}
