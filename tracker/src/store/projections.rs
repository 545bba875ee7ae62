//! Tables that commands query, each derived from one kind of row. A tombstone removes its row from them.

use rusqlite::params;
use shoal_common::names::Skeleton;
use shoal_common::{Manifest, Uid};
use shoal_replica::{Kind, NameSpace, Row, decision_key, parse_claim_key, pending_key};

use super::admission::space_of;
use super::usage::{self, file_cost};
use super::{STORAGE_KINDS, Store, StoreError, USERS};
use crate::proof;
use crate::record::{ACCOUNT, FILE, MEMBERSHIP, Membership, POINTER, SHARE, Share, encode, part};

const SQL: &str = "
DROP TABLE IF EXISTS claim;
CREATE TABLE claim (space INTEGER, name TEXT, id BLOB, founder BLOB, proven INTEGER, stamp INTEGER, stated BLOB, own BLOB,
    PRIMARY KEY (space, name, id)) WITHOUT ROWID;
CREATE INDEX claim_id ON claim (id, space);
CREATE INDEX claim_stated ON claim (space, stated);
CREATE INDEX claim_own ON claim (space, own);
CREATE INDEX claim_founder ON claim (founder, id) WHERE founder IS NOT NULL;
DROP TABLE IF EXISTS member;
CREATE TABLE member (gid BLOB, uid BLOB, standing INTEGER, since INTEGER, term INTEGER, name TEXT, PRIMARY KEY (gid, uid))
    WITHOUT ROWID;
CREATE INDEX member_user ON member (uid, standing);
CREATE INDEX member_name ON member (gid, standing, name);
CREATE INDEX member_since ON member (gid, standing, since, name);
CREATE INDEX member_term ON member (gid, term);
DROP TABLE IF EXISTS file;
CREATE TABLE file (gid BLOB, fid BLOB, name TEXT, alike TEXT, born INTEGER, size INTEGER, sha1 BLOB, cost INTEGER,
    shares INTEGER, PRIMARY KEY (gid, fid)) WITHOUT ROWID;
CREATE INDEX file_name ON file (gid, alike, born, fid);
CREATE INDEX file_idle ON file (gid, cost) WHERE shares = 0;
DROP TABLE IF EXISTS share;
CREATE TABLE share (gid BLOB, fid BLOB, uid BLOB, peer BLOB, cost INTEGER, PRIMARY KEY (gid, fid, uid, peer))
    WITHOUT ROWID;
CREATE INDEX share_user ON share (uid, gid);
DROP TABLE IF EXISTS mirror;
CREATE TABLE mirror (gid BLOB, fid BLOB, uid BLOB, peer BLOB, born INTEGER, urls BLOB,
    PRIMARY KEY (gid, fid, uid, peer)) WITHOUT ROWID;
DROP TABLE IF EXISTS storage_change;
CREATE TABLE storage_change (kind INTEGER, key BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID;
";

/// In place of the sharer of mirrors that an earlier version kept with the file.
pub(super) const NOBODY: [u8; 16] = [0; 16];

/// Group, file, user and client of a share, as far as its key has them.
type ShareIds = (Option<[u8; 16]>, Option<[u8; 16]>, Option<[u8; 16]>, Option<[u8; 32]>);

/// Rows read at a time while projections are rebuilt.
const BATCH: usize = 1_000;

impl Store {
    /// Rebuilds all projections from the rows.
    pub(super) fn rebuild_projections(&self) -> Result<(), StoreError> {
        self.db.execute_batch(SQL)?;
        self.db.execute_batch(usage::SQL)?;
        for kind in [Kind::USER_CLAIM, Kind::GROUP_CLAIM, ACCOUNT, MEMBERSHIP, FILE, SHARE, POINTER] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = shoal_replica::Rows::scan(self, kind, &[], after.as_deref(), BATCH)?;
                for row in &rows {
                    self.project(row)?;
                    self.examine_again(row)?;
                }
                match rows.last() {
                    Some(last) if rows.len() == BATCH => after = Some(last.key.clone()),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Updates the projections for a row that was stored. What this version cannot read is kept, but not shown.
    pub(super) fn project(&self, row: &Row) -> Result<(), StoreError> {
        if row.tombstone {
            return self.unproject(row.kind, &row.key);
        }
        match row.kind {
            Kind::USER_CLAIM | Kind::GROUP_CLAIM => self.project_claim(row),
            ACCOUNT => self.remember_account(row),
            MEMBERSHIP => self.project_membership(row),
            FILE => self.project_file(row),
            SHARE => self.project_share(row),
            POINTER => {
                self.count_pointer(row)?;
                self.note_storage_change(POINTER, &row.key)
            }
            kind => self.note_storage_change(kind, &row.key),
        }
    }

    /// Takes a row out of the projections.
    pub(super) fn unproject(&self, kind: Kind, key: &[u8]) -> Result<(), StoreError> {
        let (one, two) = (part::<16>(key, 0), part::<16>(key, 16));
        match kind {
            MEMBERSHIP => self.run("DELETE FROM member WHERE gid = ?1 AND uid = ?2", params![one, two]),
            FILE => {
                if let (Some(group), Some(file)) = (one, two) {
                    self.uncount_file((group, file))?;
                }
                self.project_mirrors((one, two, Some(NOBODY), Some([0; 32])), 0, &[])
            }
            SHARE => {
                let (user, peer) = (part::<16>(key, 32), part::<32>(key, 48));
                if let (Some(group), Some(file), Some(user), Some(peer)) = (one, two, user, peer) {
                    self.uncount_share((group, file), user, peer)?;
                }
                self.project_mirrors((one, two, user, peer), 0, &[])
            }
            POINTER => {
                self.uncount_pointer(key)?;
                self.note_storage_change(POINTER, key)
            }
            // No tombstone removes a claim, but a full sync may.
            Kind::USER_CLAIM | Kind::GROUP_CLAIM => {
                let Some((name, id)) = parse_claim_key(key) else { return Ok(()) };
                let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
                let sql = "DELETE FROM claim WHERE space = ?1 AND name = ?2 AND id = ?3";
                self.run(sql, params![space_of(kind), name, id.0])?;
                self.name_memberships(space_of(kind), id.0)
            }
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
        let (stated, own) = (claim.skeleton.key(), Skeleton::of(claim.name));
        let sql = "INSERT OR REPLACE INTO claim (space, name, id, founder, proven, stamp, stated, own)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![space, claim.name, claim.id, founder, claim.proven, stamp, stated, own.key()];
        self.run(sql, values)?;
        self.name_memberships(space, claim.id)?;
        if claim.proven { Ok(()) } else { self.remember_claim(space, &claim, stamp) }
    }

    /// Has a claim that is not decided examined again. A tracker of an earlier version voted by name, which one of this version
    /// does not add to votes by what names look like.
    fn examine_again(&self, row: &Row) -> Result<(), StoreError> {
        let (Some(space), Some(claim)) = (NameSpace::of(row.kind), proof::read_claim(row)) else {
            return Ok(());
        };
        let place = claim.skeleton.key();
        for key in [place, claim.name.as_bytes()] {
            if shoal_replica::Rows::get(self, space.decision_kind(), &decision_key(key))?.is_some() {
                return Ok(());
            }
        }
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, x'')";
        self.run(sql, params![pending_key(space, place)])
    }

    fn project_membership(&self, row: &Row) -> Result<(), StoreError> {
        let (group, user) = (part::<16>(&row.key, 0), part::<16>(&row.key, 16));
        let (Some(group), Some(user), Ok(membership)) =
            (group, user, minicbor::decode::<Membership>(&row.value))
        else {
            return Ok(());
        };
        let sql = "INSERT OR REPLACE INTO member (gid, uid, standing, since, term, name) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let since = i64::try_from(membership.since_ms).unwrap_or(i64::MAX);
        let (term, name) = (membership.term.unwrap_or_default().number(), self.listed_name(Uid(user))?);
        self.run(sql, params![group, user, membership.standing as u8, since, term, name])
    }

    /// The name by which lists of a group's users are in order: the claimed one, or the id of a user whose claim has not arrived.
    fn listed_name(&self, user: Uid) -> Result<String, StoreError> {
        Ok(self.claim_of(USERS, &user.0)?.unwrap_or_else(|| user.to_string()))
    }

    /// Notes a user's name with the memberships, which may have arrived before the claim.
    fn name_memberships(&self, space: u8, id: [u8; 16]) -> Result<(), StoreError> {
        if space != USERS {
            return Ok(());
        }
        let name = self.listed_name(Uid(id))?;
        self.run("UPDATE member SET name = ?2 WHERE uid = ?1 AND name <> ?2", params![id, name])
    }

    fn project_file(&self, row: &Row) -> Result<(), StoreError> {
        let (group, file) = (part::<16>(&row.key, 0), part::<16>(&row.key, 16));
        let (Some(group), Some(file), Ok(manifest)) = (group, file, minicbor::decode::<Manifest>(&row.value))
        else {
            return Ok(());
        };
        let (cost, shares) = self.count_file((group, file), file_cost(&manifest, row.value.len()))?;
        let sql = "INSERT OR REPLACE INTO file (gid, fid, name, born, size, sha1, cost, shares, alike)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let size = i64::try_from(manifest.size).unwrap_or(i64::MAX);
        let (name, born) = (manifest.name.as_str(), row.born.as_u64());
        let alike = manifest.name.lookup_key();
        self.run(sql, params![group, file, name, born, size, manifest.sha1.0, cost, shares, alike])?;
        // Mirrors that an earlier version kept with the file have no known sharer, so they come last.
        let ids = (Some(group), Some(file), Some(NOBODY), Some([0; 32]));
        self.project_mirrors(ids, i64::MAX, &manifest.mirrors)
    }

    fn project_share(&self, row: &Row) -> Result<(), StoreError> {
        let key = &row.key;
        let ids = (part::<16>(key, 0), part::<16>(key, 16), part::<16>(key, 32), part::<32>(key, 48));
        let (Some(group), Some(file), Some(user), Some(peer)) = ids else { return Ok(()) };
        let share = minicbor::decode::<Share>(&row.value).ok();
        self.count_share((group, file), user, peer, share.as_ref())?;
        let mirrors = share.and_then(|share| share.mirrors);
        let born = i64::try_from(row.born.as_u64()).unwrap_or(i64::MAX);
        self.project_mirrors(ids, born, &mirrors.unwrap_or_default())
    }

    /// Notes the mirrors of one share, or that there are none.
    fn project_mirrors(&self, ids: ShareIds, born: i64, urls: &[String]) -> Result<(), StoreError> {
        let (group, file, user, peer) = ids;
        if urls.is_empty() {
            let sql = "DELETE FROM mirror WHERE gid = ?1 AND fid = ?2 AND uid = ?3 AND peer = ?4";
            return self.run(sql, params![group, file, user, peer]);
        }
        let sql =
            "INSERT OR REPLACE INTO mirror (gid, fid, uid, peer, born, urls) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.run(sql, params![group, file, user, peer, born, encode(&urls.to_vec())])
    }

    pub(super) fn run(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        self.db.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, Layout, PeerId, RequestId, Sha1};
    use shoal_replica::{Rows, Stamp, WriterId, claim_key};

    use super::*;
    use crate::record::{Founding, Standing, file_key, membership_key, share_key};

    const GROUP: Gid = Gid([1; 16]);

    fn row(kind: Kind, key: Vec<u8>, value: Vec<u8>, seq: u64) -> Row {
        let (stamp, writer) = (Stamp::at_ms(seq), WriterId([1; 16]));
        let tombstone = value.is_empty();
        Row { kind, key, stamp, writer, seq, born: stamp, tombstone, value, blobs: Vec::new() }
    }

    #[test]
    fn a_claim_that_a_full_sync_removed_no_longer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let founder = Uid([3; 16]);
        let key = claim_key(b"g", shoal_replica::Uid(GROUP.0));
        let founding = encode(&Founding { founder, nonce: None, skeleton: None });
        store.put(&row(Kind::GROUP_CLAIM, key.clone(), founding, 1)).unwrap();
        assert_eq!(store.founded(founder).unwrap(), 1);
        store.remove(Kind::GROUP_CLAIM, &key).unwrap();
        assert_eq!(store.founded(founder).unwrap(), 0);
        store.rebuild_projections().unwrap();
        assert_eq!(store.founded(founder).unwrap(), 0);
    }

    #[test]
    fn mirrors_that_an_earlier_version_kept_with_the_file_come_last_and_end_with_its_last_share() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let digest = FileDigest { sha1: Sha1([1; 20]), blake3: Blake3([1; 32]) };
        let (name, layout) = (FileName::create("m").unwrap(), Layout::for_size(1).unwrap());
        let old = vec!["http://old.example/m".to_owned()];
        let (manifest, _) = Manifest::new(name, layout, &[Sha1([1; 20])], digest, old.clone());
        let (file, user, peer) = (Fid([2; 16]), Uid([3; 16]), PeerId([4; 32]));
        let (request, new) = (RequestId([5; 16]), vec!["http://new.example/m".to_owned()]);
        let member = Membership { standing: Standing::Member, since_ms: 1, request, term: None };
        let share = Share { request, mirrors: Some(new.clone()), file_bytes: None };
        let share_key = share_key(GROUP, file, user, peer);
        store.put(&row(FILE, file_key(GROUP, file), encode(&manifest), 1)).unwrap();
        assert!(store.mirrors(GROUP, file).unwrap().is_empty(), "it is not shared");
        store.put(&row(MEMBERSHIP, membership_key(GROUP, user), encode(&member), 2)).unwrap();
        store.put(&row(SHARE, share_key.clone(), encode(&share), 3)).unwrap();
        assert_eq!(store.mirrors(GROUP, file).unwrap(), [new.clone(), old.clone()]);
        // The same after all projections are rebuilt, as after an update.
        store.rebuild_projections().unwrap();
        assert_eq!(store.mirrors(GROUP, file).unwrap(), [new, old]);
        store.put(&row(SHARE, share_key, Vec::new(), 4)).unwrap();
        assert!(store.mirrors(GROUP, file).unwrap().is_empty(), "it is no longer shared");
    }

    #[test]
    fn one_member_with_many_clients_displaces_no_others_mirrors() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let (file, request) = (Fid([2; 16]), RequestId([5; 16]));
        let mut seq = 0;
        let mut share = |user: Uid, client: u32, url: String| {
            seq += 1;
            let mut peer = [0; 32];
            peer[..4].copy_from_slice(&client.to_be_bytes());
            let share = Share { request, mirrors: Some(vec![url]), file_bytes: None };
            let key = share_key(GROUP, file, user, PeerId(peer));
            store.put(&row(SHARE, key, encode(&share), seq)).unwrap();
        };
        let (crowd, late) = (Uid([3; 16]), Uid([4; 16]));
        (0..300).for_each(|client| share(crowd, client, format!("http://crowd.example/{client}")));
        share(late, 1, "http://late.example/m".to_owned());
        for user in [crowd, late] {
            let member = Membership { standing: Standing::Member, since_ms: 1, request, term: None };
            store.put(&row(MEMBERSHIP, membership_key(GROUP, user), encode(&member), 1_000)).unwrap();
        }
        let mirrors = store.mirrors(GROUP, file).unwrap();
        assert_eq!(mirrors.len(), 2);
        assert_eq!(
            mirrors[0][..2],
            ["http://crowd.example/0", "http://crowd.example/1"],
            "the first comes first"
        );
        assert_eq!(mirrors[1], ["http://late.example/m"]);
    }

    #[test]
    fn a_share_of_an_earlier_version_has_no_mirrors() {
        // The map of one entry that it was.
        let old = [&[0xa1, 0x00, 0x50][..], &[7; 16]].concat();
        let read: Option<Share> = minicbor::decode(&old).ok();
        let expected = Share { request: RequestId([7; 16]), mirrors: None, file_bytes: None };
        assert_eq!(read.as_ref(), Some(&expected));
        assert_eq!(encode(&expected), old);
    }
}
