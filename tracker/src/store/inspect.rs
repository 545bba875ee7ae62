//! Counts for operators, on a connection of its own beside the database thread, so that no client waits for them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use shoal_common::{Gid, Uid};
use shoal_replica::Kind;

use super::usage::{read_group, read_user};
use super::{FILE, GROUPS, GroupUsage, StoreError, USERS, UserUsage, blob};
use crate::record::{QUOTA, Quota, QuotaOf};

/// How long another connection's lock is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// How much is in a tracker's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Claims on user names.
    pub users: u64,
    /// Claims on group names.
    pub groups: u64,
    /// Shared files.
    pub files: u64,
    /// Rows of each kind, deleted ones included.
    pub records: Vec<(Kind, u64)>,
}

/// Counts what is in the database of a data directory; takes a second for a few million records.
///
/// # Errors
/// When the database cannot be read.
pub fn count(dir: &Path) -> Result<Counts, StoreError> {
    let db = open(dir)?;
    let count = |sql: &str, space: Option<u8>| match space {
        Some(space) => db.query_row(sql, params![space], |row| row.get(0)),
        None => db.query_row(sql, [], |row| row.get(0)),
    };
    let claims = "SELECT count(*) FROM claim WHERE space = ?1";
    let (users, groups) = (count(claims, Some(USERS))?, count(claims, Some(GROUPS))?);
    let files = count("SELECT count(*) FROM file", None)?;
    let mut query = db.prepare("SELECT kind, count(*) FROM rec GROUP BY kind")?;
    let rows = query.query_map([], |row| Ok((Kind(row.get(0)?), row.get(1)?)))?;
    Ok(Counts { users, groups, files, records: rows.collect::<Result<_, _>>()? })
}

/// What all users and groups have, and the quotas that operators set.
#[derive(Debug, Clone, Default)]
pub struct Usages {
    /// Users who have something.
    pub users: Vec<(Uid, UserUsage)>,
    /// Groups that have something.
    pub groups: Vec<(Gid, GroupUsage)>,
    /// How many groups users founded.
    pub founded: HashMap<Uid, u64>,
    /// The quotas that are set.
    pub quotas: Vec<(QuotaOf, Quota)>,
}

/// Reads what all users and groups have out of the database of a data directory.
///
/// # Errors
/// When the database cannot be read.
pub fn usages(dir: &Path) -> Result<Usages, StoreError> {
    let db = open(dir)?;
    let mut query = db.prepare("SELECT uid, files, bytes, stored FROM user_usage WHERE files > 0")?;
    let users = query.query_map([], |row| Ok((Uid(blob(row, 0)?), read_user(row, 1)?)))?;
    let users = users.collect::<Result<_, _>>()?;
    let mut query = db.prepare("SELECT gid, files, bytes, idle FROM group_usage WHERE files > 0")?;
    let groups = query.query_map([], |row| Ok((Gid(blob(row, 0)?), read_group(row, 1)?)))?;
    let groups = groups.collect::<Result<_, _>>()?;
    let mut query = db.prepare(
        "SELECT founder, count(*) FROM claim WHERE space = ?1 AND founder IS NOT NULL GROUP BY founder",
    )?;
    let founded = query.query_map([GROUPS], |row| Ok((Uid(blob(row, 0)?), row.get(1)?)))?;
    let founded = founded.collect::<Result<_, _>>()?;
    let mut query = db.prepare("SELECT key, value FROM rec WHERE kind = ?1 AND NOT tombstone")?;
    let rows =
        query.query_map([QUOTA.0], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
    let mut quotas = Vec::new();
    for row in rows {
        let (key, value) = row?;
        quotas.extend(QuotaOf::parse(&key).zip(minicbor::decode(&value).ok()));
    }
    Ok(Usages { users, groups, founded, quotas })
}

/// A connection of its own, for reading.
pub(super) fn open(dir: &Path) -> Result<Connection, StoreError> {
    let db = shoal_disk::sqlite::open_to_read(&dir.join(FILE))?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::super::{Beginning, Store, back_up};
    use super::*;
    use shoal_replica::{Row, Rows, Stamp, WriterId};

    #[test]
    fn a_backup_taken_while_the_tracker_writes_holds_what_was_committed() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let row = |seq: u64| Row {
            kind: Kind(99),
            key: seq.to_be_bytes().to_vec(),
            stamp: Stamp::at_ms(seq),
            writer: WriterId([1; 16]),
            seq,
            born: Stamp::at_ms(seq),
            tombstone: false,
            value: vec![7; 100],
            blobs: Vec::new(),
        };
        store.begin().unwrap();
        (1..=1_000).for_each(|seq| store.put(&row(seq)).unwrap());
        store.commit().unwrap();
        store.begin().unwrap();
        store.put(&row(1_001)).unwrap();
        let other = tempfile::tempdir().unwrap();
        back_up(dir.path(), &other.path().join(FILE)).unwrap();
        store.commit().unwrap();
        assert_eq!(count(other.path()).unwrap().records, [(Kind(99), 1_000)]);
        assert_eq!(count(dir.path()).unwrap().records, [(Kind(99), 1_001)]);
        drop(store);
        Store::set_aside(dir.path(), 1).unwrap();
        std::fs::copy(other.path().join(FILE), dir.path().join(FILE)).unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().beginning(), Beginning::Restored);
        assert!(back_up(dir.path(), &other.path().join("no/such/folder")).is_err());
    }
}
