//! The queries of commands on the projections. Every method is one prepared statement at most.

use std::collections::HashSet;

use minicbor::Decode;
use rusqlite::{OptionalExtension, params};
use shoal_common::{Fid, FileName, Gid, GroupName, PeerId, Uid, UserName};

use shoal_replica::{Kind, NameSpace, Rows};

use super::projections::NOBODY;
use super::{Store, StoreError, blob};
use crate::record::{Quota, QuotaOf, Standing, Term};

/// Shares with mirrors that are read for one file: the first ones have many times the mirrors that it may have.
const MAX_MIRROR_SHARES: usize = 256;

// What lists and owners of groups are read by. None of them reads a group whole.
const USERS_BY_NAME: &str = "SELECT name, uid FROM member WHERE gid = ?1 AND standing = ?2 AND name > ?3
     ORDER BY name, uid LIMIT ?4";
const ELDEST: &str =
    "SELECT uid FROM member WHERE gid = ?1 AND standing = ?2 ORDER BY since, name, uid LIMIT 1";
const TERM: &str = "SELECT max(term) FROM member WHERE gid = ?1";

/// A shared file as the projection has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// The file.
    pub fid: Fid,
    /// The name it was shared under.
    pub name: FileName,
    /// Stamp of its first record; the lowest holds the name.
    pub born: u64,
    /// Size in bytes.
    pub size: u64,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
}

impl Store {
    /// The value of a record that is not deleted; `None` also for one that this version cannot read.
    pub(crate) fn live<T: for<'b> Decode<'b, ()>>(
        &self,
        kind: Kind,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let row = self.get(kind, key)?.filter(|row| !row.tombstone);
        Ok(row.and_then(|row| minicbor::decode(&row.value).ok()))
    }

    /// Whether there is such a record that is not deleted.
    pub(crate) fn is_live(&self, kind: Kind, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.get(kind, key)?.is_some_and(|row| !row.tombstone))
    }

    /// The name that a user claimed.
    pub(crate) fn user_claim_of(&self, user: Uid) -> Result<Option<UserName>, StoreError> {
        let name = self.claim_of(super::USERS, &user.0)?;
        Ok(name.and_then(|name| UserName::refer(&name).ok()))
    }

    /// The name that a group claimed, and who founded it.
    pub(crate) fn group_claim_of(&self, group: Gid) -> Result<Option<GroupName>, StoreError> {
        let name = self.claim_of(super::GROUPS, &group.0)?;
        Ok(name.and_then(|name| GroupName::refer(&name).ok()))
    }

    pub(super) fn claim_of(&self, space: u8, id: &[u8; 16]) -> Result<Option<String>, StoreError> {
        // A proven claim is the only one; of an earlier version's claims the first counts.
        let sql =
            "SELECT name FROM claim WHERE id = ?1 AND space = ?2 ORDER BY proven DESC, stamp, name LIMIT 1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![id, space], |row| row.get(0)).optional()?)
    }

    /// The user who founded a group.
    pub(crate) fn founder(&self, group: Gid) -> Result<Option<Uid>, StoreError> {
        let sql = "SELECT founder FROM claim WHERE id = ?1 AND space = ?2 ORDER BY proven DESC, stamp, name LIMIT 1";
        let mut query = self.db.prepare_cached(sql)?;
        let founder =
            query.query_row(params![group.0, super::GROUPS], |row| blob::<16>(row, 0)).optional()?;
        Ok(founder.map(Uid))
    }

    /// A group's users of one standing in the order of the names that they claimed; behind `after`, `limit` at most.
    pub(crate) fn users_by_name(
        &self,
        group: Gid,
        standing: Standing,
        (after, limit): (&str, usize),
    ) -> Result<Vec<(String, Uid)>, StoreError> {
        let mut query = self.db.prepare_cached(USERS_BY_NAME)?;
        let arguments = params![group.0, standing as u8, after, limit];
        let rows = query.query_map(arguments, |row| Ok((row.get(0)?, Uid(blob(row, 1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether a group has a member.
    pub(crate) fn has_members(&self, group: Gid) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM member WHERE gid = ?1 AND standing = ?2 LIMIT 1";
        Ok(self.db.prepare_cached(sql)?.exists(params![group.0, Standing::Member as u8])?)
    }

    /// The member who joined first, ties by name.
    pub(crate) fn eldest(&self, group: Gid) -> Result<Option<Uid>, StoreError> {
        let mut query = self.db.prepare_cached(ELDEST)?;
        let eldest =
            query.query_row(params![group.0, Standing::Member as u8], |row| blob::<16>(row, 0)).optional()?;
        Ok(eldest.map(Uid))
    }

    /// The group's term.
    pub(crate) fn term(&self, group: Gid) -> Result<Term, StoreError> {
        let mut query = self.db.prepare_cached(TERM)?;
        Ok(Term::of(query.query_row([group.0], |row| row.get::<_, Option<u64>>(0))?.unwrap_or(0)))
    }

    /// Whether the user is a member of the group now.
    pub(crate) fn is_member(&self, group: Gid, user: Uid) -> Result<bool, StoreError> {
        if let Some(is_member) = self.memo.is_member(group, user) {
            return Ok(is_member);
        }
        let sql = "SELECT 1 FROM member WHERE gid = ?1 AND uid = ?2 AND standing = ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let is_member = query.exists(params![group.0, user.0, Standing::Member as u8])?;
        self.memo.note_member(group, user, is_member);
        Ok(is_member)
    }

    /// A user's login key, if it was noted since the account last changed; `None` inside: there is no account.
    pub(crate) fn login_key_noted(&self, user: Uid) -> Option<Option<PeerId>> {
        self.memo.login_key(user)
    }

    /// Notes that.
    pub(crate) fn note_login_key(&self, user: Uid, key: Option<PeerId>) {
        self.memo.note_login_key(user, key);
    }

    /// Up to when a user's logins on a client are void, if that was noted.
    pub(crate) fn signed_out_noted(&self, user: Uid, peer: PeerId) -> Option<u64> {
        self.memo.signed_out(user, peer)
    }

    /// Notes that.
    pub(crate) fn note_signed_out(&self, user: Uid, peer: PeerId, until_ms: u64) {
        self.memo.note_signed_out(user, peer, until_ms);
    }

    /// What operators set of a quota, if it was noted since it last changed.
    pub(crate) fn quota_noted(&self, of: QuotaOf) -> Option<Quota> {
        self.memo.quota(of)
    }

    /// Notes that.
    pub(crate) fn note_quota(&self, of: QuotaOf, quota: Quota) {
        self.memo.note_quota(of, quota);
    }

    /// The users whose sessions may be invalid since the last call; `None`: all users.
    pub(crate) fn take_changed_users(&self) -> Option<HashSet<Uid>> {
        self.memo.take_changed()
    }

    /// What a user or a group is called, where that was noted since it last changed.
    pub(crate) fn called(&self, space: NameSpace, id: [u8; 16]) -> Option<String> {
        self.memo.called((space, id))
    }

    /// Notes what the one of that id, who claimed `name`, is called.
    pub(crate) fn note_called(&self, space: NameSpace, id: [u8; 16], name: &str, called: &str) {
        self.memo.note_called((space, id), name, called);
    }

    /// The groups that a user is a member of.
    pub(crate) fn groups_of(&self, user: Uid) -> Result<Vec<Gid>, StoreError> {
        let mut query = self.db.prepare_cached("SELECT gid FROM member WHERE uid = ?1 AND standing = ?2")?;
        let rows = query.query_map(params![user.0, Standing::Member as u8], |row| Ok(Gid(blob(row, 0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Claims on group names in the order of names, of groups that have a member; behind `after`, `limit` names at most.
    pub(crate) fn groups_by_name(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(GroupName, Gid)>, StoreError> {
        let sql = "SELECT name, id FROM claim WHERE space = ?1 AND name > ?2 AND EXISTS
                   (SELECT 1 FROM member WHERE gid = claim.id AND standing = ?3) ORDER BY name, id LIMIT ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let arguments = params![super::GROUPS, after, Standing::Member as u8, limit];
        let rows = query.query_map(arguments, |row| Ok((row.get::<_, String>(0)?, Gid(blob(row, 1)?))))?;
        let mut groups = Vec::new();
        for row in rows {
            let (name, gid) = row?;
            // A later version may allow names that this one does not know how to show.
            groups.extend(GroupName::refer(&name).ok().map(|name| (name, gid)));
        }
        Ok(groups)
    }

    /// The files of a group that a member has shared and not taken back, by name and then by age.
    pub(crate) fn files(&self, group: Gid, after: &str, limit: usize) -> Result<Vec<FileRow>, StoreError> {
        let sql = "SELECT fid, name, born, size, sha1 FROM file WHERE gid = ?1 AND alike > ?2 AND EXISTS
                   (SELECT 1 FROM share JOIN member USING (gid, uid)
                    WHERE share.gid = file.gid AND share.fid = file.fid AND standing = ?4)
                   ORDER BY alike, born, fid LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query(params![group.0, after, limit, Standing::Member as u8])?;
        read_files(&mut rows)
    }

    /// The files of a group under one name in any normal form, oldest first, whether shared or not. Names of more than 248 bytes
    /// may differ at their ends.
    pub(crate) fn files_named(&self, group: Gid, name: &FileName) -> Result<Vec<FileRow>, StoreError> {
        let sql =
            "SELECT fid, name, born, size, sha1 FROM file WHERE gid = ?1 AND alike = ?2 ORDER BY born, fid";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query(params![group.0, name.lookup_key()])?;
        read_files(&mut rows)
    }

    /// Whether the file is known.
    pub(crate) fn has_file(&self, group: Gid, file: Fid) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM file WHERE gid = ?1 AND fid = ?2";
        Ok(self.db.prepare_cached(sql)?.exists(params![group.0, file.0])?)
    }

    /// Whether a member has shared the file and not taken it back.
    pub(crate) fn is_shared(&self, group: Gid, file: Fid) -> Result<bool, StoreError> {
        let sql =
            "SELECT 1 FROM share JOIN member USING (gid, uid) WHERE gid = ?1 AND fid = ?2 AND standing = ?3";
        Ok(self.db.prepare_cached(sql)?.exists(params![group.0, file.0, Standing::Member as u8])?)
    }

    /// Whether this user shares the file from this client.
    pub(crate) fn has_share(
        &self,
        group: Gid,
        file: Fid,
        user: Uid,
        peer: PeerId,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM share WHERE gid = ?1 AND fid = ?2 AND uid = ?3 AND peer = ?4";
        Ok(self.db.prepare_cached(sql)?.exists(params![group.0, file.0, user.0, peer.0])?)
    }

    /// The mirrors of a file by the member who named them, in the order of their shares; those without a known sharer last.
    pub(crate) fn mirrors(&self, group: Gid, file: Fid) -> Result<Vec<Vec<String>>, StoreError> {
        // In turn, so that the many clients of one member do not displace another member's first.
        let sql =
            "SELECT uid, urls, ROW_NUMBER() OVER (PARTITION BY uid ORDER BY born, peer) AS turn FROM mirror
                   WHERE gid = ?1 AND fid = ?2 AND (uid = ?3 OR EXISTS
                   (SELECT 1 FROM member WHERE gid = mirror.gid AND uid = mirror.uid AND standing = ?4))
                   ORDER BY turn, born, uid, peer LIMIT ?5";
        let mut query = self.db.prepare_cached(sql)?;
        let arguments = params![group.0, file.0, NOBODY, Standing::Member as u8, MAX_MIRROR_SHARES];
        let mut rows = query.query(arguments)?;
        let mut sharers: Vec<([u8; 16], Vec<String>)> = Vec::new();
        while let Some(row) = rows.next()? {
            let user = blob::<16>(row, 0)?;
            let Ok(urls) = minicbor::decode::<Vec<String>>(&row.get::<_, Vec<u8>>(1)?) else { continue };
            match sharers.iter_mut().find(|(known, _)| *known == user) {
                Some((_, known)) => known.extend(urls),
                None => sharers.push((user, urls)),
            }
        }
        drop(rows);
        if sharers.iter().any(|(user, _)| *user == NOBODY) && !self.is_shared(group, file)? {
            sharers.retain(|(user, _)| *user != NOBODY);
        }
        Ok(sharers.into_iter().map(|(_, urls)| urls).collect())
    }

    /// Takes queued rows of the encrypted store off the queue: which kinds and keys changed, `limit` at most.
    pub(crate) fn take_storage_changes(&self, limit: usize) -> Result<Vec<(Kind, Vec<u8>)>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT kind, key FROM storage_change ORDER BY kind DESC, key LIMIT ?1")?;
        let rows = query.query_map([limit], |row| Ok((Kind(row.get(0)?), row.get(1)?)))?;
        let changes = rows.collect::<Result<Vec<(Kind, Vec<u8>)>, _>>()?;
        let mut delete = self.db.prepare_cached("DELETE FROM storage_change WHERE kind = ?1 AND key = ?2")?;
        for (kind, key) in &changes {
            delete.execute(params![kind.0, key])?;
        }
        Ok(changes)
    }

    /// Empties that queue, before all rows are read.
    pub(crate) fn forget_storage_changes(&self) -> Result<(), StoreError> {
        let mut query = self.db.prepare_cached("SELECT 1 FROM storage_change LIMIT 1")?;
        if query.exists([])? {
            self.db.execute("DELETE FROM storage_change", [])?;
        }
        Ok(())
    }
}

fn read_files(rows: &mut rusqlite::Rows<'_>) -> Result<Vec<FileRow>, StoreError> {
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let Ok(name) = FileName::refer(&name) else { continue };
        let (fid, born, size, sha1) = (Fid(blob(row, 0)?), row.get(2)?, row.get(3)?, blob(row, 4)?);
        files.push(FileRow { fid, name, born, size, sha1 });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use shoal_common::{RequestId, Uid};
    use shoal_replica::{Row, Stamp, WriterId, claim_key};

    use super::*;
    use crate::record::{MEMBERSHIP, Membership, encode, membership_key};

    const GROUP: Gid = Gid([1; 16]);

    fn row(kind: Kind, key: Vec<u8>, value: Vec<u8>, seq: u64) -> Row {
        let (stamp, writer) = (Stamp::at_ms(seq), WriterId([1; 16]));
        Row { kind, key, stamp, writer, seq, born: stamp, tombstone: false, value, blobs: Vec::new() }
    }

    fn member(store: &mut Store, user: Uid, (standing, since_ms, term): (Standing, u64, u64), seq: u64) {
        let (request, term) = (RequestId([5; 16]), Term::of(term).noted());
        let value = encode(&Membership { standing, since_ms, request, term });
        store.put(&row(MEMBERSHIP, membership_key(GROUP, user), value, seq)).unwrap();
    }

    #[test]
    fn a_page_of_a_large_group_reads_no_more_than_the_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let user = |number: u16| Uid([&number.to_be_bytes()[..], &[9; 14]].concat().try_into().unwrap());
        store.db.execute_batch("BEGIN").unwrap();
        for number in 0..2_500 {
            // Every second membership arrives before its user's claim, and some claims never.
            let name = format!("user {:04}", 2_500 - number);
            let key = claim_key(name.as_bytes(), shoal_replica::Uid(user(number).0));
            let claim = row(Kind::USER_CLAIM, key, Vec::new(), 1 + u64::from(number));
            let (standing, late) = if number == 7 { (Standing::Member, 5) } else { (Standing::Requested, 9) };
            if number % 2 == 0 {
                member(&mut store, user(number), (standing, late, 0), 5_000 + u64::from(number));
            }
            if number % 500 != 0 {
                store.put(&claim).unwrap();
            }
            if number % 2 == 1 {
                member(&mut store, user(number), (standing, late, 0), 5_000 + u64::from(number));
            }
        }
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = store.users_by_name(GROUP, Standing::Requested, (&after, 100)).unwrap();
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            all.extend(page);
        }
        assert_eq!(all.len(), 2_499);
        assert!(all.is_sorted(), "by name");
        assert_eq!(all[0], (user(0).to_string(), user(0)), "without a claim it is called by its id");
        assert_eq!(all.last().unwrap(), &("user 2499".to_owned(), user(1)));
        assert_eq!(store.eldest(GROUP).unwrap(), Some(user(7)));
        assert!(store.has_members(GROUP).unwrap() && !store.has_members(Gid([2; 16])).unwrap());
        for sql in [USERS_BY_NAME, ELDEST, TERM] {
            let mut explain = store.db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            for number in 1..=explain.parameter_count() {
                explain.raw_bind_parameter(number, 1).unwrap();
            }
            let mut plan = explain.raw_query();
            while let Some(step) = plan.next().unwrap() {
                let step: String = step.get(3).unwrap();
                assert!(step.starts_with("SEARCH member USING COVERING INDEX"), "{sql}: {step}");
            }
        }
    }

    #[test]
    fn a_groups_term_is_the_latest_of_its_memberships() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        assert_eq!(store.term(GROUP).unwrap(), Term::default());
        for (number, term) in [(1, 0), (2, 3), (3, 2)] {
            member(&mut store, Uid([number; 16]), (Standing::Left, 1, term), number.into());
        }
        assert_eq!(store.term(GROUP).unwrap(), Term::of(3));
        assert!(Term::of(3).after_leaving() < Term::default().after_return());
        assert_eq!(Term::of(u64::MAX).after_return().number(), i64::MAX as u64);
    }
}
