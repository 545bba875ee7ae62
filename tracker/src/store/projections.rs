//! Tables that commands query, each a view of one kind of row. A tombstone takes its row out of them.

use rusqlite::params;
use shoal_common::Manifest;
use shoal_replica::{Kind, Row};

use super::admission::space_of;
use super::{STORAGE_KINDS, Store, StoreError};
use crate::proof;
use crate::record::{ACCOUNT, FILE, MEMBERSHIP, Membership, SHARE, part};

const SQL: &str = "
DROP TABLE IF EXISTS claim;
CREATE TABLE claim (space INTEGER, name TEXT, id BLOB, founder BLOB, proven INTEGER, stamp INTEGER,
    PRIMARY KEY (space, name, id)) WITHOUT ROWID;
CREATE INDEX claim_id ON claim (id, space);
DROP TABLE IF EXISTS member;
CREATE TABLE member (gid BLOB, uid BLOB, standing INTEGER, since INTEGER, PRIMARY KEY (gid, uid)) WITHOUT ROWID;
CREATE INDEX member_user ON member (uid, standing);
CREATE INDEX member_standing ON member (gid, standing);
DROP TABLE IF EXISTS file;
CREATE TABLE file (gid BLOB, fid BLOB, name TEXT, born INTEGER, size INTEGER, sha1 BLOB, PRIMARY KEY (gid, fid))
    WITHOUT ROWID;
CREATE INDEX file_name ON file (gid, name, born, fid);
DROP TABLE IF EXISTS share;
CREATE TABLE share (gid BLOB, fid BLOB, uid BLOB, peer BLOB, PRIMARY KEY (gid, fid, uid, peer)) WITHOUT ROWID;
DROP TABLE IF EXISTS storage_change;
CREATE TABLE storage_change (kind INTEGER, key BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
";

/// Rows read at a time while projections are made anew.
const BATCH: usize = 1_000;

impl Store {
    /// Makes all projections anew from the rows.
    pub(super) fn rebuild_projections(&self) -> Result<(), StoreError> {
        self.db.execute_batch(SQL)?;
        for kind in [Kind::USER_CLAIM, Kind::GROUP_CLAIM, ACCOUNT, MEMBERSHIP, FILE, SHARE] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = shoal_replica::Rows::scan(self, kind, &[], after.as_deref(), BATCH)?;
                for row in &rows {
                    self.project(row)?;
                }
                match rows.last() {
                    Some(last) if rows.len() == BATCH => after = Some(last.key.clone()),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Brings the projections in line with a row that was stored. What this version cannot read is not shown, but kept.
    pub(super) fn project(&self, row: &Row) -> Result<(), StoreError> {
        if row.tombstone {
            return self.unproject(row.kind, &row.key);
        }
        match row.kind {
            Kind::USER_CLAIM | Kind::GROUP_CLAIM => self.project_claim(row),
            ACCOUNT => self.remember_account(row),
            MEMBERSHIP => self.project_membership(row),
            FILE => self.project_file(row),
            SHARE => self.project_share(&row.key),
            kind => self.note_storage_change(kind, &row.key),
        }
    }

    /// Takes a row out of the projections.
    pub(super) fn unproject(&self, kind: Kind, key: &[u8]) -> Result<(), StoreError> {
        let (one, two) = (part::<16>(key, 0), part::<16>(key, 16));
        match kind {
            MEMBERSHIP => self.run("DELETE FROM member WHERE gid = ?1 AND uid = ?2", params![one, two]),
            FILE => self.run("DELETE FROM file WHERE gid = ?1 AND fid = ?2", params![one, two]),
            SHARE => {
                let (user, peer) = (part::<16>(key, 32), part::<32>(key, 48));
                let sql = "DELETE FROM share WHERE gid = ?1 AND fid = ?2 AND uid = ?3 AND peer = ?4";
                self.run(sql, params![one, two, user, peer])
            }
            // Claims are never deleted.
            kind => self.note_storage_change(kind, key),
        }
    }

    /// Queues a row of the encrypted store for [`Store::take_storage_changes`].
    fn note_storage_change(&self, kind: Kind, key: &[u8]) -> Result<(), StoreError> {
        if !STORAGE_KINDS.contains(&kind) {
            return Ok(());
        }
        self.run("INSERT OR IGNORE INTO storage_change (kind, key) VALUES (?1, ?2)", params![kind.0, key])
    }

    fn project_claim(&self, row: &Row) -> Result<(), StoreError> {
        let Some(claim) = proof::read_claim(row) else { return Ok(()) };
        let (space, founder) = (space_of(row.kind), claim.founder.map(|founder| founder.0));
        let stamp = row.stamp.instant().as_u64();
        let sql = "INSERT OR REPLACE INTO claim (space, name, id, founder, proven, stamp)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.run(sql, params![space, claim.name, claim.id, founder, claim.proven, stamp])?;
        if claim.proven { Ok(()) } else { self.remember_claim(space, &claim, stamp) }
    }

    fn project_membership(&self, row: &Row) -> Result<(), StoreError> {
        let (group, user) = (part::<16>(&row.key, 0), part::<16>(&row.key, 16));
        let (Some(group), Some(user), Ok(membership)) =
            (group, user, minicbor::decode::<Membership>(&row.value))
        else {
            return Ok(());
        };
        let sql = "INSERT OR REPLACE INTO member (gid, uid, standing, since) VALUES (?1, ?2, ?3, ?4)";
        let since = i64::try_from(membership.since_ms).unwrap_or(i64::MAX);
        self.run(sql, params![group, user, membership.standing as u8, since])
    }

    fn project_file(&self, row: &Row) -> Result<(), StoreError> {
        let (group, file) = (part::<16>(&row.key, 0), part::<16>(&row.key, 16));
        let (Some(group), Some(file), Ok(manifest)) = (group, file, minicbor::decode::<Manifest>(&row.value))
        else {
            return Ok(());
        };
        let sql =
            "INSERT OR REPLACE INTO file (gid, fid, name, born, size, sha1) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let size = i64::try_from(manifest.size).unwrap_or(i64::MAX);
        let values = params![group, file, manifest.name.as_str(), row.born.as_u64(), size, manifest.sha1.0];
        self.run(sql, values)
    }

    fn project_share(&self, key: &[u8]) -> Result<(), StoreError> {
        let ids = (part::<16>(key, 0), part::<16>(key, 16), part::<16>(key, 32), part::<32>(key, 48));
        let (Some(group), Some(file), Some(user), Some(peer)) = ids else { return Ok(()) };
        let sql = "INSERT OR REPLACE INTO share (gid, fid, uid, peer) VALUES (?1, ?2, ?3, ?4)";
        self.run(sql, params![group, file, user, peer])
    }

    pub(super) fn run(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        self.db.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}
