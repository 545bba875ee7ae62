//! What users and groups have on the trackers' disks and the storage nodes. It is updated as rows come and go, so that a quota
//! is checked without counting.
//!
//! Every figure is a function of the live rows, in whatever order they came. So rebuilding gives the same figures.

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};
use shoal_common::storage::StoreManifest;
use shoal_common::{Fid, Gid, Manifest, PeerId, Sha1, Uid};
use shoal_replica::{BlobHash, Row, Rows};

use super::{GROUPS, Store, StoreError, blob};
use crate::record::{Pointer, Share, Standing, StoredSize, parse_pointer_key};

pub(super) const SQL: &str = "
DROP TABLE IF EXISTS user_usage;
CREATE TABLE user_usage (uid BLOB PRIMARY KEY, files INTEGER NOT NULL, bytes INTEGER NOT NULL, stored INTEGER NOT NULL)
    WITHOUT ROWID;
DROP TABLE IF EXISTS group_usage;
CREATE TABLE group_usage (gid BLOB PRIMARY KEY, files INTEGER NOT NULL, bytes INTEGER NOT NULL, idle INTEGER NOT NULL)
    WITHOUT ROWID;
DROP TABLE IF EXISTS stored;
CREATE TABLE stored (uid BLOB, key BLOB, cost INTEGER NOT NULL, stored INTEGER NOT NULL, PRIMARY KEY (uid, key))
    WITHOUT ROWID;
";

/// What any row costs beside its value, in bytes: its key, its place in indexes and projections, and its tombstone later.
pub(crate) const ROW_BYTES: u64 = 512;
/// Bytes of metadata that one row counts for at most. It is more than there can be, and keeps what a lying tracker writes from
/// making sums overflow.
const MAX_COST: u64 = 1 << 24;
/// The same for stored bytes: 50,000 chunks of 4 MiB in 16 copies are less.
const MAX_STORED: u64 = 1 << 42;

/// What a user has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserUsage {
    /// Shares and stored files.
    pub files: u64,
    /// Bytes of their metadata on each tracker.
    pub bytes: u64,
    /// Bytes on the storage nodes, in all copies.
    pub stored: u64,
}

/// What a group has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Files that are shared.
    pub files: u64,
    /// Bytes of their metadata on each tracker.
    pub bytes: u64,
    /// Bytes of the metadata of files that are no longer shared.
    pub idle: u64,
}

/// A share of a user by its group, file and client.
pub(crate) type ShareOf = (Gid, Fid, PeerId);

/// The same, and a file's, as keys have them.
type FileIds = ([u8; 16], [u8; 16]);

/// Bytes that each tracker keeps of a file whose record's value is that long.
#[must_use]
pub fn file_cost(manifest: &Manifest, value: usize) -> u64 {
    let pieces = manifest.pieces().map_or(0, u64::from);
    ROW_BYTES + value as u64 + pieces * std::mem::size_of::<Sha1>() as u64
}

/// Bytes that count for a sharer: the share's own, and what is kept of the file.
#[must_use]
pub fn share_cost(share: &Share) -> u64 {
    let mirrors = share.mirrors.iter().flatten().map(|url| url.len() as u64).sum::<u64>();
    ROW_BYTES + mirrors + share.file_bytes.unwrap_or(0).min(MAX_COST)
}

/// Bytes that each tracker keeps of a stored file.
#[must_use]
pub fn pointer_cost(sealed: usize, size: StoredSize) -> u64 {
    ROW_BYTES + sealed as u64 + size.manifest.min(MAX_COST)
}

/// SQLite counts with a sign.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Store {
    /// What a user has.
    pub(crate) fn usage(&self, user: Uid) -> Result<UserUsage, StoreError> {
        let sql = "SELECT files, bytes, stored FROM user_usage WHERE uid = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([user.0], |row| read_user(row, 0)).optional()?.unwrap_or_default())
    }

    /// What a group has.
    pub(crate) fn group_usage(&self, group: Gid) -> Result<GroupUsage, StoreError> {
        let sql = "SELECT files, bytes, idle FROM group_usage WHERE gid = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([group.0], |row| read_group(row, 0)).optional()?.unwrap_or_default())
    }

    /// A user's shares by client, the most first.
    pub(crate) fn shares_by_client(&self, user: Uid, limit: usize) -> Result<Vec<(PeerId, u64)>, StoreError> {
        let sql = "SELECT peer, count(*) AS files FROM share WHERE uid = ?1 GROUP BY peer ORDER BY files DESC, peer LIMIT ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let rows =
            query.query_map(params![user.0, limit], |row| Ok((PeerId(blob(row, 0)?), count(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Some of a user's shares on one client.
    pub(crate) fn shares_on(
        &self,
        user: Uid,
        peer: PeerId,
        limit: usize,
    ) -> Result<Vec<(Gid, Fid)>, StoreError> {
        let sql = "SELECT gid, fid FROM share WHERE uid = ?1 AND peer = ?2 LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query
            .query_map(params![user.0, peer.0, limit], |row| Ok((Gid(blob(row, 0)?), Fid(blob(row, 1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many groups a user founded.
    pub(crate) fn founded(&self, user: Uid) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM claim WHERE founder = ?1 AND space = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![user.0, GROUPS], |row| count(row, 0))?)
    }

    /// Groups that a user is or was a member of, or asked to join.
    pub(crate) fn memberships(&self, user: Uid) -> Result<u64, StoreError> {
        let mut query = self.db.prepare_cached("SELECT count(*) FROM member WHERE uid = ?1")?;
        Ok(query.query_row([user.0], |row| count(row, 0))?)
    }

    /// Groups that a user left or was not let into, the longest ago first. A group that has members
    /// keeps the record that alone has its term.
    pub(crate) fn ended_memberships(&self, user: Uid, limit: usize) -> Result<Vec<Gid>, StoreError> {
        let sql = "SELECT gid FROM member AS own WHERE uid = ?1 AND standing IN (?2, ?3) AND (term = 0
                       OR NOT EXISTS (SELECT 1 FROM member WHERE gid = own.gid AND standing = ?5)
                       OR EXISTS (SELECT 1 FROM member WHERE gid = own.gid AND term >= own.term AND uid <> ?1))
                   ORDER BY since LIMIT ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let (left, rejected, is_in) =
            (Standing::Left as u8, Standing::Rejected as u8, Standing::Member as u8);
        let arguments = params![user.0, left, rejected, limit, is_in];
        let rows = query.query_map(arguments, |row| Ok(Gid(blob(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A user's shares in groups that the user is no member of, and what they cost.
    pub(crate) fn shares_left(&self, user: Uid, limit: usize) -> Result<Vec<(ShareOf, u64)>, StoreError> {
        // Group by group, so that it does not read all shares to find none.
        let sql = "WITH RECURSIVE own(gid) AS (SELECT min(gid) FROM share WHERE uid = ?1 UNION ALL
                       SELECT (SELECT min(gid) FROM share WHERE uid = ?1 AND gid > own.gid) FROM own WHERE gid IS NOT NULL)
                   SELECT share.gid, fid, peer, cost FROM own JOIN share ON share.uid = ?1 AND share.gid = own.gid
                   WHERE NOT EXISTS (SELECT 1 FROM member WHERE gid = own.gid AND uid = ?1 AND standing = ?2) LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![user.0, Standing::Member as u8, limit], |row| {
            Ok(((Gid(blob(row, 0)?), Fid(blob(row, 1)?), PeerId(blob(row, 2)?)), count(row, 3)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bytes of files that are not shared, in all groups that a user founded.
    pub(crate) fn idle_of_founder(&self, founder: Uid) -> Result<u64, StoreError> {
        let sql =
            "SELECT sum(idle) FROM claim JOIN group_usage ON gid = id WHERE founder = ?1 AND space = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![founder.0, GROUPS], |row| count(row, 0))?)
    }

    /// Files that are not shared, of the founder's group in which they take the most, the largest first.
    pub(crate) fn idle_files(&self, founder: Uid, limit: usize) -> Result<Vec<(Gid, Fid)>, StoreError> {
        let sql = "SELECT gid, fid FROM file WHERE shares = 0 AND gid =
                   (SELECT gid FROM claim JOIN group_usage ON gid = id WHERE founder = ?1 AND space = ?2
                    ORDER BY idle DESC LIMIT 1) ORDER BY cost DESC LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![founder.0, GROUPS, limit], |row| {
            Ok((Gid(blob(row, 0)?), Fid(blob(row, 1)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How much is kept of a file, and how many shares it has.
    pub(crate) fn file_usage(&self, group: Gid, file: Fid) -> Result<Option<(u64, u64)>, StoreError> {
        self.file_counts((group.0, file.0))
    }

    /// What a share costs its user.
    pub(crate) fn share_usage(
        &self,
        (group, file, peer): ShareOf,
        user: Uid,
    ) -> Result<Option<u64>, StoreError> {
        self.share_counts((group.0, file.0), user.0, peer.0)
    }

    /// What a stored file costs its user: bytes on each tracker, and on the storage nodes.
    pub(crate) fn pointer_usage(&self, key: &[u8]) -> Result<Option<(u64, u64)>, StoreError> {
        let Some((user, key)) = parse_pointer_key(key) else { return Ok(None) };
        let mut query =
            self.db.prepare_cached("SELECT cost, stored FROM stored WHERE uid = ?1 AND key = ?2")?;
        Ok(query.query_row(params![user.0, key.0], |row| Ok((count(row, 0)?, count(row, 1)?))).optional()?)
    }

    fn file_counts(&self, (group, file): FileIds) -> Result<Option<(u64, u64)>, StoreError> {
        let mut query =
            self.db.prepare_cached("SELECT cost, shares FROM file WHERE gid = ?1 AND fid = ?2")?;
        Ok(query.query_row(params![group, file], |row| Ok((count(row, 0)?, count(row, 1)?))).optional()?)
    }

    fn share_counts(
        &self,
        (group, file): FileIds,
        user: [u8; 16],
        peer: [u8; 32],
    ) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT cost FROM share WHERE gid = ?1 AND fid = ?2 AND uid = ?3 AND peer = ?4";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![group, file, user, peer], |row| count(row, 0)).optional()?)
    }

    /// Counts a file that is about to be listed with that cost, in place of its earlier one. Returns its cost and its shares.
    pub(super) fn count_file(&self, ids: FileIds, cost: u64) -> Result<(i64, i64), StoreError> {
        let old = self.file_counts(ids)?;
        let shares = match old {
            Some((_, shares)) => shares,
            None => {
                let sql = "SELECT count(*) FROM share WHERE gid = ?1 AND fid = ?2";
                self.db.prepare_cached(sql)?.query_row(params![ids.0, ids.1], |row| count(row, 0))?
            }
        };
        self.count_for_group(ids.0, old, Some((cost, shares)))?;
        Ok((signed(cost), signed(shares)))
    }

    /// Takes a file out of the list.
    pub(super) fn uncount_file(&self, ids: FileIds) -> Result<(), StoreError> {
        self.count_for_group(ids.0, self.file_counts(ids)?, None)?;
        self.run("DELETE FROM file WHERE gid = ?1 AND fid = ?2", params![ids.0, ids.1])
    }

    /// Lists a share.
    pub(super) fn count_share(
        &self,
        ids: FileIds,
        user: [u8; 16],
        peer: [u8; 32],
        share: Option<&Share>,
    ) -> Result<(), StoreError> {
        let cost = signed(share.map_or(ROW_BYTES, share_cost));
        let old = self.share_counts(ids, user, peer)?;
        let sql = "INSERT OR REPLACE INTO share (gid, fid, uid, peer, cost) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, params![ids.0, ids.1, user, peer, cost])?;
        self.add_to_user(user, [i64::from(old.is_none()), cost - signed(old.unwrap_or(0)), 0])?;
        if old.is_none() { self.add_share(ids, 1) } else { Ok(()) }
    }

    /// Takes a share out of the list.
    pub(super) fn uncount_share(
        &self,
        ids: FileIds,
        user: [u8; 16],
        peer: [u8; 32],
    ) -> Result<(), StoreError> {
        let Some(cost) = self.share_counts(ids, user, peer)? else { return Ok(()) };
        let sql = "DELETE FROM share WHERE gid = ?1 AND fid = ?2 AND uid = ?3 AND peer = ?4";
        self.run(sql, params![ids.0, ids.1, user, peer])?;
        self.add_to_user(user, [-1, -signed(cost), 0])?;
        self.add_share(ids, -1)
    }

    /// A file has a share more or less.
    fn add_share(&self, ids: FileIds, more: i64) -> Result<(), StoreError> {
        let Some((cost, shares)) = self.file_counts(ids)? else { return Ok(()) };
        let after = shares.saturating_add_signed(more);
        let sql = "UPDATE file SET shares = ?3 WHERE gid = ?1 AND fid = ?2";
        self.run(sql, params![ids.0, ids.1, signed(after)])?;
        self.count_for_group(ids.0, Some((cost, shares)), Some((cost, after)))
    }

    /// A file of the group is now this (cost and shares) instead of that.
    fn count_for_group(
        &self,
        group: [u8; 16],
        old: Option<(u64, u64)>,
        new: Option<(u64, u64)>,
    ) -> Result<(), StoreError> {
        let counts = |file: Option<(u64, u64)>| match file {
            None => [0, 0, 0],
            Some((cost, 0)) => [0, 0, signed(cost)],
            Some((cost, _)) => [1, signed(cost), 0],
        };
        let ([files, bytes, idle], before) = (counts(new), counts(old));
        let more = [files - before[0], bytes - before[1], idle - before[2]];
        if more == [0; 3] {
            return Ok(());
        }
        let sql = "INSERT INTO group_usage (gid, files, bytes, idle) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (gid) DO UPDATE SET files = files + ?2, bytes = bytes + ?3, idle = idle + ?4";
        self.run(sql, params![group, more[0], more[1], more[2]])
    }

    /// Counts a user's stored file.
    pub(super) fn count_pointer(&self, row: &Row) -> Result<(), StoreError> {
        let Some((user, key)) = parse_pointer_key(&row.key) else { return Ok(()) };
        let Ok(pointer) = minicbor::decode::<Pointer>(&row.value) else { return Ok(()) };
        let size = match pointer.size {
            Some(size) => size,
            None => self.stored_size_of(&pointer)?,
        };
        let cost = signed(pointer_cost(pointer.sealed.len(), size));
        let stored = signed(size.stored.min(MAX_STORED));
        let old = self.pointer_usage(&row.key)?;
        let (old_cost, old_stored) = old.unwrap_or_default();
        let sql = "INSERT OR REPLACE INTO stored (uid, key, cost, stored) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, params![user.0, key.0, cost, stored])?;
        let more = [i64::from(old.is_none()), cost - signed(old_cost), stored - signed(old_stored)];
        self.add_to_user(user.0, more)
    }

    /// A user's file is not stored any more.
    pub(super) fn uncount_pointer(&self, key: &[u8]) -> Result<(), StoreError> {
        let Some((cost, stored)) = self.pointer_usage(key)? else { return Ok(()) };
        let Some((user, key)) = parse_pointer_key(key) else { return Ok(()) };
        self.run("DELETE FROM stored WHERE uid = ?1 AND key = ?2", params![user.0, key.0])?;
        self.add_to_user(user.0, [-1, -signed(cost), -signed(stored)])
    }

    /// The size of a stored file, by its manifest, if an earlier version did not record it.
    fn stored_size_of(&self, pointer: &Pointer) -> Result<StoredSize, StoreError> {
        let limit = shoal_common::storage::MAX_STORE_MANIFEST;
        let bytes = self.read_blob(BlobHash(pointer.version.0), 0, limit)?.unwrap_or_default();
        Ok(StoreManifest::read(&bytes).map_or_else(
            |_| StoredSize { stored: 0, manifest: bytes.len() as u64 },
            |manifest| StoredSize::of(&manifest, &bytes),
        ))
    }

    fn add_to_user(&self, user: [u8; 16], [files, bytes, stored]: [i64; 3]) -> Result<(), StoreError> {
        let sql = "INSERT INTO user_usage (uid, files, bytes, stored) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (uid) DO UPDATE SET files = files + ?2, bytes = bytes + ?3, stored = stored + ?4";
        self.run(sql, params![user, files, bytes, stored])
    }
}

/// A column with a count, or a sum of none.
pub(super) fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(count) => u64::try_from(count).unwrap_or(0),
        // SQLite goes on with such a number where a sum would overflow.
        ValueRef::Real(count) if count > 0.0 => i64::MAX.unsigned_abs(),
        _ => 0,
    })
}

/// Reads a user's figures from that column on.
pub(super) fn read_user(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<UserUsage> {
    Ok(UserUsage { files: count(row, from)?, bytes: count(row, from + 1)?, stored: count(row, from + 2)? })
}

/// Reads a group's figures from that column on.
pub(super) fn read_group(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<GroupUsage> {
    Ok(GroupUsage { files: count(row, from)?, bytes: count(row, from + 1)?, idle: count(row, from + 2)? })
}
