//! Whether a claim or an account proves itself: what its id was derived from, and who signed each change of its keys.
//!
//! A row is checked by its own content alone, so that every tracker decides alike. Rows of earlier versions have random ids and
//! prove nothing; for those the store remembers what came first.

use std::collections::HashSet;

use shoal_common::credentials::{Account, ChangeSignature, check_change};
use shoal_common::names::Skeleton;
use shoal_common::{AccountDigest, Gid, PeerId, Uid};
use shoal_replica::{Kind, Row, parse_claim_key};

use crate::record::{AccountRecord, Change, Founding, History, Naming, part};

/// Signed changes that an account may have: with 140 bytes each they fit a row of 64 KiB. One change per week gets there in
/// seven years.
pub(crate) const MAX_CHANGES: usize = 400;

/// A claim that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim<'a> {
    /// The name claimed.
    pub(crate) name: &'a str,
    /// Who claims it: a user or a group.
    pub(crate) id: [u8; 16],
    /// Whether the id is derived from the rest; else an earlier version wrote it.
    pub(crate) proven: bool,
    /// Of a group: who founded it.
    pub(crate) founder: Option<Uid>,
    /// What the name looks like, as the claim says; else as computed here.
    pub(crate) skeleton: Skeleton,
}

/// Reads a claim; `None` if it contradicts itself.
pub(crate) fn read_claim(row: &Row) -> Option<Claim<'_>> {
    let (name, id) = parse_claim_key(&row.key)?;
    let (name, id) = (std::str::from_utf8(name).ok()?, id.0);
    if !row.blobs.is_empty() || row.tombstone {
        return None;
    }
    if row.kind == Kind::GROUP_CLAIM {
        let Founding { founder, nonce, skeleton } = minicbor::decode(&row.value).ok()?;
        let fits = nonce.is_none_or(|nonce| Gid::derive(nonce, founder, name).0 == id);
        let skeleton = skeleton_of(name, skeleton).filter(|_| fits)?;
        return Some(Claim { name, id, proven: nonce.is_some(), founder: Some(founder), skeleton });
    }
    if row.value.is_empty() {
        return Some(Claim { name, id, proven: false, founder: None, skeleton: Skeleton::of(name) });
    }
    let Naming { nonce, account, skeleton } = minicbor::decode(&row.value).ok()?;
    let fits = Uid::derive(nonce, &account, name).0 == id;
    let skeleton = skeleton_of(name, skeleton).filter(|_| fits)?;
    Some(Claim { name, id, proven: true, founder: None, skeleton })
}

/// The skeleton that a claim states, if it can be that of its name; of a claim of an earlier version the computed one.
fn skeleton_of(name: &str, stated: Option<Skeleton>) -> Option<Skeleton> {
    match stated {
        Some(stated) => stated.is_possible(name).then_some(stated),
        None => Some(Skeleton::of(name)),
    }
}

/// Reads an account's row; `None` if it is not one.
pub(crate) fn read_account(row: &Row) -> Option<(Uid, AccountRecord)> {
    if !row.blobs.is_empty() || row.tombstone || row.key.len() != 16 {
        return None;
    }
    Some((Uid(part(&row.key, 0)?), minicbor::decode(&row.value).ok()?))
}

/// The order of accounts of one user. One whose id is derived from its first secrets is above one that an earlier version
/// wrote; then the one with more changes is above. The highest is the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    derived: bool,
    changes: usize,
}

impl Rank {
    /// The rank of an account that was checked.
    pub(crate) fn of(user: Uid, record: &AccountRecord) -> Self {
        let changes = record.history.as_ref().map_or(0, |history| history.changes.len());
        Self { derived: is_derived(user, record), changes }
    }
}

/// Whether the user's id is derived from what the account began with.
pub(crate) fn is_derived(user: Uid, record: &AccountRecord) -> bool {
    record.history.as_ref().is_some_and(|History { first, birth, .. }| {
        birth.as_ref().is_some_and(|birth| Uid::derive(birth.nonce, first, &birth.name) == user)
    })
}

/// What an account began with.
pub(crate) fn first_of(record: &AccountRecord) -> AccountDigest {
    record.history.as_ref().map_or_else(|| record.account().digest(), |history| history.first)
}

/// Whether an account's history is valid: it fits the id, and every change is signed. Signatures on changes that `checked`
/// begins with as well are not checked again.
pub(crate) fn is_rightful(user: Uid, record: &AccountRecord, checked: Option<&History>) -> bool {
    let Some(History { first, birth, changes }) = &record.history else { return true };
    if birth.is_some() && !is_derived(user, record) {
        return false;
    }
    let present = record.account().digest();
    if changes.len() > MAX_CHANGES || changes.last().map_or(*first, |last| last.to) != present {
        return false;
    }
    let known = checked.filter(|checked| checked.first == *first).map_or(&[][..], |checked| &checked.changes);
    let same = changes.iter().zip(known).take_while(|(one, other)| one == other).count();
    // No key twice, or signed changes could be strung together in a circle, to any length.
    let mut keys = HashSet::from([first.login_key]);
    let mut old = first.login_key;
    for (number, Change { to, signature }) in changes.iter().enumerate() {
        if !keys.insert(to.login_key) || (number >= same && !check_change(user, old, to, signature)) {
            return false;
        }
        old = to.login_key;
    }
    true
}

/// Why a change of an account cannot be added to its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotChanged {
    /// The signature is not that of the present login key.
    Signature,
    /// The account had this login key before.
    KeyAgain,
    /// It was changed [`MAX_CHANGES`] times.
    TooOften,
}

/// The account after a signed change.
pub(crate) fn change(
    user: Uid,
    record: AccountRecord,
    new: Account,
    signature: ChangeSignature,
) -> Result<AccountRecord, NotChanged> {
    let (present, to) = (record.account().digest(), new.digest());
    if !check_change(user, present.login_key, &to, &signature) {
        return Err(NotChanged::Signature);
    }
    let none_yet = History { first: present, birth: None, changes: Vec::new() };
    let mut history = record.history.unwrap_or(none_yet);
    if history.changes.len() >= MAX_CHANGES {
        return Err(NotChanged::TooOften);
    }
    if keys_of(&history).any(|key| key == to.login_key) {
        return Err(NotChanged::KeyAgain);
    }
    history.changes.push(Change { to, signature });
    Ok(AccountRecord::new(new, Some(history)))
}

fn keys_of(history: &History) -> impl Iterator<Item = PeerId> + '_ {
    let changed = history.changes.iter().map(|change| change.to.login_key);
    std::iter::once(history.first.login_key).chain(changed)
}

#[cfg(test)]
mod tests;
