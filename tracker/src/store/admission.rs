//! Which claims and accounts of other trackers are taken: those that prove themselves, and of those that an earlier version
//! wrote, which prove nothing, those that do not contradict what came first.
//!
//! What came first is kept in a table of this tracker's own. It stays even if the rows are deleted.

use std::cmp::Ordering;

use rusqlite::{OptionalExtension, params};
use shoal_common::{Gid, Uid};
use shoal_replica::{Admission, Kind, NameSpace, Row, Rows};

use super::{GROUPS, Store, StoreError, USERS};
use crate::proof::{self, Claim, Rank};
use crate::record::{ACCOUNT, MEMBERSHIP, Membership, Term, encode};

/// Ids that an earlier version chose at random: the name first claimed under each, and what it began with (a user's first
/// account, a group's founder).
pub(super) const SCHEMA_SQL: &str = "
CREATE TABLE IF NOT EXISTS earlier (space INTEGER, id BLOB, name TEXT, stamp INTEGER, root BLOB,
    PRIMARY KEY (space, id)) WITHOUT ROWID;
";

/// What is kept of such an id.
struct Earlier {
    name: Option<String>,
    root: Option<Vec<u8>>,
}

impl Store {
    /// See [`shoal_replica::Rows::admits`].
    pub(super) fn judge(&self, row: &Row, held: Option<&Row>) -> Result<Admission, StoreError> {
        match row.kind {
            Kind::USER_CLAIM | Kind::GROUP_CLAIM => self.judge_claim(row, held),
            ACCOUNT => self.judge_account(row, held),
            MEMBERSHIP => Ok(judge_membership(row, held)),
            _ => Ok(Admission::ByTime),
        }
    }

    fn judge_claim(&self, row: &Row, held: Option<&Row>) -> Result<Admission, StoreError> {
        let Some(claim) = proof::read_claim(row) else { return Ok(Admission::Refused) };
        if claim.proven {
            let weak = held.is_some_and(|held| !proof::read_claim(held).is_some_and(|claim| claim.proven));
            return Ok(if weak { Admission::Above } else { Admission::ByTime });
        }
        let space = space_of(row.kind);
        let contradicts = |earlier: Earlier| {
            earlier.name.is_some_and(|name| name != claim.name)
                || claim.founder.is_some_and(|founder| earlier.root.is_some_and(|root| root != founder.0))
        };
        if self.is_proven(space, claim.id)? || self.earlier(space, claim.id)?.is_some_and(contradicts) {
            return Ok(Admission::Refused);
        }
        Ok(Admission::ByTime)
    }

    fn judge_account(&self, row: &Row, held: Option<&Row>) -> Result<Admission, StoreError> {
        let Some((user, new)) = proof::read_account(row) else { return Ok(Admission::Refused) };
        let old = held.and_then(proof::read_account).map(|(_, record)| record);
        let checked = old.as_ref().and_then(|old| old.history.as_ref());
        if !proof::is_rightful(user, &new, checked) {
            return Ok(Admission::Refused);
        }
        if !proof::is_derived(user, &new) {
            let first = encode(&proof::first_of(&new));
            let contradicts = |earlier: Earlier| earlier.root.is_some_and(|root| root != first);
            if self.is_proven(USERS, user.0)? || self.earlier(USERS, user.0)?.is_some_and(contradicts) {
                return Ok(Admission::Refused);
            }
        }
        Ok(match old.map(|old| Rank::of(user, &new).cmp(&Rank::of(user, &old))) {
            None if held.is_none() => Admission::ByTime,
            Some(Ordering::Equal) => Admission::ByTime,
            Some(Ordering::Less) => Admission::Below,
            None | Some(Ordering::Greater) => Admission::Above,
        })
    }

    /// Whether a claim or an account shows that this id was derived.
    fn is_proven(&self, space: u8, id: [u8; 16]) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM claim WHERE id = ?1 AND space = ?2 AND proven = 1";
        if self.db.prepare_cached(sql)?.exists(params![id, space])? {
            return Ok(true);
        }
        if space != USERS {
            return Ok(false);
        }
        let held = Rows::get(self, ACCOUNT, &id)?;
        Ok(held
            .as_ref()
            .and_then(proof::read_account)
            .is_some_and(|(user, held)| proof::is_derived(user, &held)))
    }

    fn earlier(&self, space: u8, id: [u8; 16]) -> Result<Option<Earlier>, StoreError> {
        let sql = "SELECT name, root FROM earlier WHERE space = ?1 AND id = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let found =
            query.query_row(params![space, id], |row| Ok(Earlier { name: row.get(0)?, root: row.get(1)? }));
        Ok(found.optional()?)
    }

    /// Remembers a claim of an earlier version: the earliest under its id, in case an attacker made others.
    pub(super) fn remember_claim(&self, space: u8, claim: &Claim<'_>, stamp: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO earlier (space, id, name, stamp, root) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (space, id) DO UPDATE SET name = excluded.name, stamp = excluded.stamp,
                   root = coalesce(excluded.root, root) WHERE name IS NULL OR excluded.stamp < stamp";
        let founder = claim.founder.map(|founder| founder.0);
        self.run(sql, params![space, claim.id, claim.name, stamp, founder])
    }

    /// Remembers the first account of a user of an earlier version.
    pub(super) fn remember_account(&self, row: &Row) -> Result<(), StoreError> {
        let Some((user, record)) = proof::read_account(row) else { return Ok(()) };
        if proof::is_derived(user, &record) {
            return Ok(());
        }
        let sql = "INSERT INTO earlier (space, id, root) VALUES (?1, ?2, ?3)
                   ON CONFLICT (space, id) DO UPDATE SET root = excluded.root WHERE root IS NULL";
        self.run(sql, params![USERS, user.0, encode(&proof::first_of(&record))])
    }

    /// Whether anything in the database has this user's id.
    pub(crate) fn has_user(&self, user: Uid) -> Result<bool, StoreError> {
        let has_account = Rows::get(self, ACCOUNT, &user.0)?.is_some();
        Ok(has_account || self.has_id(USERS, user.0, "SELECT 1 FROM member WHERE uid = ?1")?)
    }

    /// Whether anything in the database has this group's id.
    pub(crate) fn has_group(&self, group: Gid) -> Result<bool, StoreError> {
        self.has_id(GROUPS, group.0, "SELECT 1 FROM member WHERE gid = ?1")
    }

    fn has_id(&self, space: u8, id: [u8; 16], memberships: &str) -> Result<bool, StoreError> {
        let claims = "SELECT 1 FROM claim WHERE id = ?1 AND space = ?2";
        Ok(self.db.prepare_cached(claims)?.exists(params![id, space])?
            || self.db.prepare_cached(memberships)?.exists(params![id])?
            || self.earlier(space, id)?.is_some())
    }
}

/// Of two records of a user's part in a group, one of a later term stays: an owner who left decides nothing against the next one.
/// Deletions say no term, and go by time.
fn judge_membership(row: &Row, held: Option<&Row>) -> Admission {
    match (term_of(row), held.and_then(term_of)) {
        (Some(new), Some(old)) if new > old => Admission::Above,
        (Some(new), Some(old)) if new < old => Admission::Below,
        _ => Admission::ByTime,
    }
}

fn term_of(row: &Row) -> Option<Term> {
    let membership = minicbor::decode::<Membership>(&row.value).ok().filter(|_| !row.tombstone)?;
    Some(Term::of(membership.term.unwrap_or_default().number()))
}

/// The space of names that a claim is in.
pub(super) fn space_of(kind: Kind) -> u8 {
    if NameSpace::of(kind) == Some(NameSpace::User) { USERS } else { GROUPS }
}
