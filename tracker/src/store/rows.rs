//! The replicated rows in SQLite: [`shoal_replica::Rows`] on tables.
//!
//! `missing` holds the blobs that rows name and that are not here, `unnamed` those that are here and no row names. So neither
//! question reads more than its answer. The rows of one bucket are needed only when two trackers differ, or after a backup: an
//! index of them is made then and dropped at the next start, because it costs every new row a page of its own.

use rusqlite::{OptionalExtension, ToSql, params};
use shoal_common::names::Skeleton;
use shoal_replica::{
    Admission, After, BlobHash, Kind, Row, Rows, Stamp, WriterId, claim_key, limits::BUCKETS,
};

use super::admission::space_of;
use super::{Store, StoreError, blob};
use crate::proof;

pub(super) const SCHEMA_SQL: &str = "
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rec (
    kind INTEGER NOT NULL, key BLOB NOT NULL, stamp INTEGER NOT NULL, origin BLOB NOT NULL, seq INTEGER NOT NULL,
    born INTEGER NOT NULL, tombstone INTEGER NOT NULL, value BLOB NOT NULL, blobs BLOB NOT NULL, bucket INTEGER NOT NULL,
    PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rec_number ON rec (origin, seq);
CREATE INDEX IF NOT EXISTS rec_tombstone ON rec (stamp) WHERE tombstone = 1;
DROP INDEX IF EXISTS rec_bucket;
CREATE TABLE IF NOT EXISTS bucket (number INTEGER PRIMARY KEY, sum BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS naming (hash BLOB NOT NULL, kind INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (hash, kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS missing (hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unnamed (hash BLOB PRIMARY KEY) WITHOUT ROWID;
";

const COLUMNS: &str = "kind, key, stamp, origin, seq, born, tombstone, value, blobs";

impl Store {
    fn rows(&self, tail: &str, values: &[&dyn ToSql]) -> Result<Vec<Row>, StoreError> {
        let mut query = self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM rec {tail}"))?;
        let rows = query.query_map(values, read_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn add_to_bucket(&self, bucket: u16, sum: u128) -> Result<(), StoreError> {
        if sum == 0 {
            return Ok(());
        }
        let mut query = self.db.prepare_cached("SELECT sum FROM bucket WHERE number = ?1")?;
        let old =
            query.query_row([bucket], |row| blob::<16>(row, 0)).optional()?.map_or(0, u128::from_le_bytes);
        let new = old.wrapping_add(sum).to_le_bytes();
        self.execute("INSERT OR REPLACE INTO bucket (number, sum) VALUES (?1, ?2)", params![bucket, new])
    }

    fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<(), StoreError> {
        self.db.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn exists(&self, sql: &str, values: &[&dyn ToSql]) -> Result<bool, StoreError> {
        Ok(self.db.prepare_cached(sql)?.exists(values)?)
    }

    /// Removes a row from all that is kept beside it.
    fn unlist(&self, row: &Row) -> Result<(), StoreError> {
        self.add_to_bucket(row.bucket(), row.sum().wrapping_neg())?;
        for hash in &row.blobs {
            let sql = "DELETE FROM naming WHERE hash = ?1 AND kind = ?2 AND key = ?3";
            self.execute(sql, params![hash.0, row.kind.0, row.key])?;
            if !self.exists("SELECT 1 FROM naming WHERE hash = ?1 LIMIT 1", params![hash.0])? {
                self.execute("DELETE FROM missing WHERE hash = ?1", params![hash.0])?;
                let sql = "INSERT OR IGNORE INTO unnamed (hash) SELECT hash FROM blob WHERE hash = ?1";
                self.execute(sql, params![hash.0])?;
            }
        }
        Ok(())
    }

    fn list(&self, row: &Row) -> Result<(), StoreError> {
        self.add_to_bucket(row.bucket(), row.sum())?;
        for hash in &row.blobs {
            let sql = "INSERT OR IGNORE INTO naming (hash, kind, key) VALUES (?1, ?2, ?3)";
            self.execute(sql, params![hash.0, row.kind.0, row.key])?;
            self.execute("DELETE FROM unnamed WHERE hash = ?1", params![hash.0])?;
            if !self.exists("SELECT 1 FROM blob WHERE hash = ?1", params![hash.0])? {
                self.execute("INSERT OR IGNORE INTO missing (hash) VALUES (?1)", params![hash.0])?;
            }
        }
        Ok(())
    }
}

impl Rows for Store {
    type Error = StoreError;

    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows("WHERE kind = ?1 AND key = ?2", params![kind.0, key])?.pop())
    }

    fn admits(&self, row: &Row, held: Option<&Row>) -> Result<Admission, StoreError> {
        self.judge(row, held)
    }

    fn place_for(&self, _kind: Kind, name: &[u8]) -> Vec<u8> {
        std::str::from_utf8(name).map_or_else(|_| name.to_vec(), |name| Skeleton::of(name).key().to_vec())
    }

    fn place_of(&self, claim: &Row) -> Option<Vec<u8>> {
        Some(proof::read_claim(claim)?.skeleton.key().to_vec())
    }

    fn rivals(&self, kind: Kind, place: &[u8]) -> Result<Vec<Row>, StoreError> {
        let sql = "SELECT name, id FROM claim WHERE space = ?1 AND stated = ?2
                   UNION SELECT name, id FROM claim WHERE space = ?1 AND own = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let found = query.query_map(params![space_of(kind), place], |row| {
            Ok((row.get::<_, String>(0)?, shoal_replica::Uid(blob(row, 1)?)))
        })?;
        let mut rivals = Vec::new();
        for claim in found {
            let (name, id) = claim?;
            rivals.extend(self.get(kind, &claim_key(name.as_bytes(), id))?);
        }
        Ok(rivals)
    }

    fn put(&mut self, row: &Row) -> Result<(), StoreError> {
        self.memo.forget(row.kind, &row.key);
        if let Some(old) = self.get(row.kind, &row.key)? {
            self.unlist(&old)?;
        }
        let blobs: Vec<u8> = row.blobs.iter().flat_map(|hash| hash.0).collect();
        let sql = "INSERT OR REPLACE INTO rec (kind, key, stamp, origin, seq, born, tombstone, value, blobs, bucket)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let values = params![
            row.kind.0,
            row.key,
            row.stamp.as_u64(),
            row.writer.0,
            row.seq,
            row.born.as_u64(),
            row.tombstone,
            row.value,
            blobs,
            row.bucket()
        ];
        self.execute(sql, values)?;
        self.list(row)?;
        self.project(row)
    }

    fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), StoreError> {
        self.memo.forget(kind, key);
        let Some(old) = self.get(kind, key)? else { return Ok(()) };
        self.unlist(&old)?;
        self.execute("DELETE FROM rec WHERE kind = ?1 AND key = ?2", params![kind.0, key])?;
        self.unproject(kind, key)
    }

    fn above(&self, writer: WriterId, seq: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.rows("WHERE origin = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3", params![writer.0, seq, limit])
    }

    fn scan(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        // If both are given, `after` lies in the prefix's range or before it.
        let (from, open) = match after {
            Some(after) if after >= prefix => (after, true),
            _ => (prefix, false),
        };
        let lower = if open { "key > ?2" } else { "key >= ?2" };
        match successor(prefix) {
            Some(end) => {
                let tail = format!("WHERE kind = ?1 AND {lower} AND key < ?3 ORDER BY key LIMIT ?4");
                self.rows(&tail, params![kind.0, from, end, limit])
            }
            None => {
                let tail = format!("WHERE kind = ?1 AND {lower} ORDER BY key LIMIT ?3");
                self.rows(&tail, params![kind.0, from, limit])
            }
        }
    }

    fn tombstones(&self, from: Stamp, before: Stamp, limit: usize) -> Result<Vec<Row>, StoreError> {
        let tail = "WHERE tombstone = 1 AND stamp >= ?1 AND stamp < ?2 ORDER BY stamp LIMIT ?3";
        self.rows(tail, params![from.as_u64(), before.as_u64(), limit])
    }

    fn bucket_sums(&self) -> Result<Vec<u128>, StoreError> {
        let mut sums = vec![0; BUCKETS];
        let mut query = self.db.prepare_cached("SELECT number, sum FROM bucket")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(sum) = sums.get_mut(row.get::<_, usize>(0)?) {
                *sum = u128::from_le_bytes(blob(row, 1)?);
            }
        }
        Ok(sums)
    }

    fn bucket_rows(&self, bucket: u16, after: After<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.execute("CREATE INDEX IF NOT EXISTS rec_bucket ON rec (bucket)", &[])?;
        match after {
            Some((kind, key)) => {
                let tail = "WHERE bucket = ?1 AND (kind, key) > (?2, ?3) ORDER BY kind, key LIMIT ?4";
                self.rows(tail, params![bucket, kind.0, key, limit])
            }
            None => self.rows("WHERE bucket = ?1 ORDER BY kind, key LIMIT ?2", params![bucket, limit]),
        }
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])
    }

    fn remove_meta(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.execute("DELETE FROM meta WHERE key = ?1", params![key])
    }

    fn scan_meta(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let sql =
            "SELECT key, value FROM meta WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query
            .query_map(params![prefix, successor(prefix), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn blob_len(&self, hash: BlobHash) -> Result<Option<u64>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT length(content) FROM blob WHERE hash = ?1")?;
        Ok(query.query_row([hash.0], |row| row.get(0)).optional()?)
    }

    fn read_blob(&self, hash: BlobHash, offset: u64, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        // SQLite counts bytes from 1.
        let mut query =
            self.db.prepare_cached("SELECT substr(content, ?2 + 1, ?3) FROM blob WHERE hash = ?1")?;
        Ok(query.query_row(params![hash.0, offset, limit], |row| row.get(0)).optional()?)
    }

    fn put_blob(&mut self, hash: BlobHash, content: &[u8]) -> Result<(), StoreError> {
        self.execute("INSERT OR IGNORE INTO blob (hash, content) VALUES (?1, ?2)", params![hash.0, content])?;
        self.execute("DELETE FROM missing WHERE hash = ?1", params![hash.0])?;
        if self.exists("SELECT 1 FROM naming WHERE hash = ?1 LIMIT 1", params![hash.0])? {
            return Ok(());
        }
        self.execute("INSERT OR IGNORE INTO unnamed (hash) VALUES (?1)", params![hash.0])
    }

    fn remove_blob(&mut self, hash: BlobHash) -> Result<(), StoreError> {
        self.execute("DELETE FROM blob WHERE hash = ?1", params![hash.0])?;
        self.execute("DELETE FROM unnamed WHERE hash = ?1", params![hash.0])?;
        if self.exists("SELECT 1 FROM naming WHERE hash = ?1 LIMIT 1", params![hash.0])? {
            self.execute("INSERT OR IGNORE INTO missing (hash) VALUES (?1)", params![hash.0])?;
        }
        Ok(())
    }

    fn missing_blobs(&self, limit: usize) -> Result<Vec<BlobHash>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT hash FROM missing ORDER BY hash LIMIT ?1")?;
        let rows = query.query_map([limit], |row| Ok(BlobHash(blob(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn unnamed_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, StoreError> {
        let after = after.map(|hash| hash.0);
        let sql = "SELECT hash FROM unnamed WHERE ?1 IS NULL OR hash > ?1 ORDER BY hash LIMIT ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![after, limit], |row| Ok(BlobHash(blob(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The first key after all that begin with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let blobs: Vec<u8> = row.get(8)?;
    let (blobs, _) = blobs.as_chunks::<32>();
    Ok(Row {
        kind: Kind(row.get(0)?),
        key: row.get(1)?,
        stamp: Stamp::from_u64(row.get(2)?),
        writer: WriterId(blob(row, 3)?),
        seq: row.get(4)?,
        born: Stamp::from_u64(row.get(5)?),
        tombstone: row.get(6)?,
        value: row.get(7)?,
        blobs: blobs.iter().copied().map(BlobHash).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_replica::memory::Memory;

    fn random_row(rng: &mut fastrand::Rng, seq: u64) -> Row {
        let kinds = [Kind::LAST_WINS, Kind(200), crate::record::SHARE, crate::record::MEMBERSHIP];
        let key: Vec<u8> = (0..rng.usize(0..4)).map(|_| *rng.choice(&[0, 1, 254, 255]).unwrap()).collect();
        let tombstone = rng.bool();
        let blobs = if tombstone { 0 } else { rng.usize(0..3) };
        Row {
            kind: kinds[rng.usize(0..kinds.len())],
            key,
            stamp: Stamp::at_ms(rng.u64(0..1_000)),
            writer: WriterId([rng.u8(0..3); 16]),
            seq,
            born: Stamp::at_ms(seq),
            tombstone,
            value: if tombstone { Vec::new() } else { vec![rng.u8(..); rng.usize(0..5)] },
            blobs: (0..blobs).map(|_| BlobHash([rng.u8(0..4); 32])).collect(),
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(what: &str, store: Result<T, StoreError>, model: T) {
        assert_eq!(store.unwrap(), model, "{what}");
    }

    fn compare(store: &Store, model: &Memory, rng: &mut fastrand::Rng) {
        let Ok(sums) = model.bucket_sums();
        same("bucket sums", store.bucket_sums(), sums);
        let Ok(missing) = model.missing_blobs(100);
        same("missing", store.missing_blobs(100), missing);
        let after = [None, Some(BlobHash([1; 32]))][rng.usize(0..2)];
        let Ok(unnamed) = model.unnamed_blobs(after, 100);
        same("unnamed", store.unnamed_blobs(after, 100), unnamed);
        let probe = random_row(rng, 1);
        let (prefix, limit) = (&probe.key[..probe.key.len() / 2], rng.usize(1..8));
        let Ok(rows) = model.scan(probe.kind, prefix, Some(&probe.key), limit);
        same("scan behind", store.scan(probe.kind, prefix, Some(&probe.key), limit), rows);
        let Ok(rows) = model.scan(probe.kind, prefix, None, limit);
        same("scan", store.scan(probe.kind, prefix, None, limit), rows);
        let Ok(rows) = model.above(probe.writer, 50, limit);
        same("above", store.above(probe.writer, 50, limit), rows);
        let Ok(rows) = model.bucket_rows(probe.bucket(), None, limit);
        same("bucket rows", store.bucket_rows(probe.bucket(), None, limit), rows);
        let Ok(rows) = model.bucket_rows(probe.bucket(), Some((probe.kind, &probe.key)), limit);
        same(
            "bucket rows behind",
            store.bucket_rows(probe.bucket(), Some((probe.kind, &probe.key)), limit),
            rows,
        );
        let (from, before) = (Stamp::at_ms(200), Stamp::at_ms(700));
        let Ok(rows) = model.tombstones(from, before, 100);
        let mut found = store.tombstones(from, before, 100).unwrap();
        found.sort_by(|one, other| {
            (one.stamp, one.kind, &one.key).cmp(&(other.stamp, other.kind, &other.key))
        });
        assert_eq!(found, rows, "tombstones");
    }

    #[test]
    fn sqlite_keeps_rows_as_memory_does() {
        for seed in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let (mut store, mut model) = (Store::open(dir.path()).unwrap(), Memory::new());
            let mut rng = fastrand::Rng::with_seed(seed);
            store.begin().unwrap();
            for seq in 1..150 {
                let row = random_row(&mut rng, seq);
                match rng.u8(0..10) {
                    0 => {
                        store.remove(row.kind, &row.key).unwrap();
                        let Ok(()) = model.remove(row.kind, &row.key);
                    }
                    1 | 2 => {
                        let (hash, content) = (BlobHash([rng.u8(0..4); 32]), vec![1; 10]);
                        store.put_blob(hash, &content).unwrap();
                        let Ok(()) = model.put_blob(hash, &content);
                    }
                    3 => {
                        let hash = BlobHash([rng.u8(0..4); 32]);
                        store.remove_blob(hash).unwrap();
                        let Ok(()) = model.remove_blob(hash);
                    }
                    _ => {
                        store.put(&row).unwrap();
                        let Ok(()) = model.put(&row);
                    }
                }
                compare(&store, &model, &mut rng);
            }
            store.commit().unwrap();
        }
    }

    #[test]
    fn blobs_are_read_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let (hash, content) = (BlobHash([7; 32]), (0..=255).collect::<Vec<u8>>());
        store.put_blob(hash, &content).unwrap();
        assert_eq!(store.blob_len(hash).unwrap(), Some(256));
        assert_eq!(store.read_blob(hash, 250, 100).unwrap(), Some(content[250..].to_vec()));
        assert_eq!(store.read_blob(hash, 300, 100).unwrap(), Some(Vec::new()));
        assert_eq!(store.read_blob(BlobHash([8; 32]), 0, 1).unwrap(), None);
    }

    #[test]
    fn meta_is_kept_by_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        for key in [&b"a"[..], b"ab", b"b", &[255], &[255, 1]] {
            store.put_meta(key, key).unwrap();
        }
        let keys = |prefix: &[u8]| -> Vec<Vec<u8>> {
            store.scan_meta(prefix, 10).unwrap().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(b"a"), [b"a".to_vec(), b"ab".to_vec()]);
        assert_eq!(keys(&[255]), [vec![255], vec![255, 1]]);
        assert_eq!(keys(b"").len(), 5);
    }

    #[test]
    fn projections_are_rebuilt_from_the_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let name = b"alice";
        let row = Row {
            kind: Kind::USER_CLAIM,
            key: shoal_replica::claim_key(name, shoal_replica::Uid([3; 16])),
            stamp: Stamp::at_ms(1),
            writer: WriterId([1; 16]),
            seq: 1,
            born: Stamp::at_ms(1),
            tombstone: false,
            value: Vec::new(),
            blobs: Vec::new(),
        };
        store.put(&row).unwrap();
        store.db.execute("DELETE FROM claim", []).unwrap();
        store.db.execute("UPDATE setting SET value = 0 WHERE name = 'projections'", []).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.user_claim_of(shoal_common::Uid([3; 16])).unwrap().unwrap().as_str(), "alice");
    }
}
