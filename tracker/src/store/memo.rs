//! A cache of frequent answers: memberships, names, login keys, sign-outs and quotas. It is filled on demand. An answer is
//! dropped when a row that it rests on changes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use shoal_common::names::Skeleton;
use shoal_common::{Gid, PeerId, Uid};
use shoal_replica::{Kind, NameSpace, parse_claim_key};

use crate::record::{ACCOUNT, MEMBERSHIP, QUOTA, Quota, QuotaOf, SIGN_OUT, part};

/// Answers of each kind, of two hundred bytes each at most. Beyond that all of the kind are dropped.
const MAX_ANSWERS: usize = 16 * 1024;

/// A user or a group by id.
type Id = (NameSpace, [u8; 16]);

#[derive(Default)]
pub(super) struct Memo(RefCell<Answers>);

#[derive(Default)]
struct Answers {
    members: HashMap<(Gid, Uid), bool>,
    called: HashMap<Id, String>,
    /// Those in `called` who claimed a name, under it and under what it looks like: that decides who holds it.
    claimants: HashMap<(NameSpace, Vec<u8>), Vec<Id>>,
    login_keys: HashMap<Uid, Option<PeerId>>,
    signed_out: HashMap<(Uid, PeerId), u64>,
    quotas: HashMap<QuotaOf, Quota>,
    changed: Changed,
}

/// Users whose sessions may be invalid.
#[derive(Default)]
enum Changed {
    #[default]
    All,
    These(HashSet<Uid>),
}

impl Memo {
    pub(super) fn is_member(&self, group: Gid, user: Uid) -> Option<bool> {
        self.0.borrow().members.get(&(group, user)).copied()
    }

    pub(super) fn note_member(&self, group: Gid, user: Uid, is_member: bool) {
        let mut answers = self.0.borrow_mut();
        if answers.members.len() >= MAX_ANSWERS {
            answers.members.clear();
        }
        answers.members.insert((group, user), is_member);
    }

    pub(super) fn called(&self, id: Id) -> Option<String> {
        self.0.borrow().called.get(&id).cloned()
    }

    /// Notes what the one of that id, who claimed `name`, is called.
    pub(super) fn note_called(&self, id: Id, name: &str, called: &str) {
        let mut answers = self.0.borrow_mut();
        if answers.called.len() >= MAX_ANSWERS {
            answers.called.clear();
            answers.claimants.clear();
        }
        answers.called.insert(id, called.to_owned());
        for key in [name.as_bytes(), Skeleton::of(name).key()] {
            let claimants = answers.claimants.entry((id.0, key.to_vec())).or_default();
            if !claimants.contains(&id) {
                claimants.push(id);
            }
        }
    }

    pub(super) fn login_key(&self, user: Uid) -> Option<Option<PeerId>> {
        self.0.borrow().login_keys.get(&user).copied()
    }

    pub(super) fn note_login_key(&self, user: Uid, key: Option<PeerId>) {
        let mut answers = self.0.borrow_mut();
        if answers.login_keys.len() >= MAX_ANSWERS {
            answers.login_keys.clear();
        }
        answers.login_keys.insert(user, key);
    }

    pub(super) fn signed_out(&self, user: Uid, peer: PeerId) -> Option<u64> {
        self.0.borrow().signed_out.get(&(user, peer)).copied()
    }

    pub(super) fn note_signed_out(&self, user: Uid, peer: PeerId, until_ms: u64) {
        let mut answers = self.0.borrow_mut();
        if answers.signed_out.len() >= MAX_ANSWERS {
            answers.signed_out.clear();
        }
        answers.signed_out.insert((user, peer), until_ms);
    }

    pub(super) fn quota(&self, of: QuotaOf) -> Option<Quota> {
        self.0.borrow().quotas.get(&of).copied()
    }

    pub(super) fn note_quota(&self, of: QuotaOf, quota: Quota) {
        let mut answers = self.0.borrow_mut();
        if answers.quotas.len() >= MAX_ANSWERS {
            answers.quotas.clear();
        }
        answers.quotas.insert(of, quota);
    }

    /// The users whose sessions may be invalid since the last call; `None`: all users.
    pub(super) fn take_changed(&self) -> Option<HashSet<Uid>> {
        match std::mem::replace(&mut self.0.borrow_mut().changed, Changed::These(HashSet::new())) {
            Changed::All => None,
            Changed::These(users) => Some(users),
        }
    }

    /// Forgets what rests on a row that is about to change.
    pub(super) fn forget(&mut self, kind: Kind, key: &[u8]) {
        let answers = self.0.get_mut();
        if let Some(space) = NameSpace::of(kind) {
            // Keys about names begin with the name, or with what it looks like, and the length.
            let name = key.split_first().and_then(|(&length, rest)| rest.get(..usize::from(length)));
            let name = name.unwrap_or_default();
            let alike = std::str::from_utf8(name).map(Skeleton::of);
            for name in [Some(name), alike.as_ref().ok().map(Skeleton::key)].into_iter().flatten() {
                for id in answers.claimants.remove(&(space, name.to_vec())).into_iter().flatten() {
                    answers.called.remove(&id);
                }
            }
            // There may be a second, made-up claim under one id.
            if let Some((_, claimant)) = parse_claim_key(key).filter(|_| kind == space.claim_kind()) {
                answers.called.remove(&(space, claimant.0));
            }
        } else if kind == MEMBERSHIP
            && let (Some(group), Some(user)) = (part(key, 0), part(key, 16))
        {
            answers.members.remove(&(Gid(group), Uid(user)));
        } else if (kind == ACCOUNT || kind == SIGN_OUT)
            && let Some(user) = part(key, 0).map(Uid)
        {
            answers.login_keys.remove(&user);
            if let Some(peer) = part(key, 16).filter(|_| kind == SIGN_OUT) {
                answers.signed_out.remove(&(user, PeerId(peer)));
            }
            answers.changed.note(user);
        } else if kind == QUOTA
            && let Some(of) = QuotaOf::parse(key)
        {
            answers.quotas.remove(&of);
        }
    }

    /// Forgets everything: rows are again what they were.
    pub(super) fn clear(&self) {
        *self.0.borrow_mut() = Answers::default();
    }
}

impl Changed {
    fn note(&mut self, user: Uid) {
        if let Self::These(users) = self {
            users.insert(user);
            if users.len() > MAX_ANSWERS {
                *self = Self::All;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_replica::{decision_key, vote_key};

    #[test]
    fn what_a_row_changes_is_forgotten_and_nothing_else() {
        let mut memo = Memo::default();
        let (group, anna, ben) = (Gid([1; 16]), Uid([2; 16]), Uid([3; 16]));
        memo.note_member(group, anna, true);
        memo.note_member(group, ben, false);
        memo.note_called((NameSpace::User, anna.0), "anna", "anna");
        memo.note_called((NameSpace::User, ben.0), "anna", "anna~030303");
        memo.note_called((NameSpace::Group, group.0), "anna", "anna");
        memo.forget(MEMBERSHIP, &crate::record::membership_key(group, ben));
        assert_eq!((memo.is_member(group, anna), memo.is_member(group, ben)), (Some(true), None));
        memo.forget(Kind::USER_DECISION, &decision_key(b"annabel"));
        assert!(memo.called((NameSpace::User, ben.0)).is_some());
        memo.forget(Kind::USER_VOTE, &vote_key(b"anna", shoal_replica::TrackerNo(1)));
        assert_eq!(memo.called((NameSpace::User, anna.0)), None);
        assert_eq!(memo.called((NameSpace::User, ben.0)), None);
        assert_eq!(memo.called((NameSpace::Group, group.0)).as_deref(), Some("anna"));
        memo.clear();
        assert_eq!(memo.called((NameSpace::Group, group.0)), None);
    }

    #[test]
    fn a_quota_is_forgotten_when_its_record_changes_and_no_other() {
        let mut memo = Memo::default();
        let (all, ann) = (QuotaOf::Users, QuotaOf::User(Uid([1; 16])));
        memo.note_quota(all, Quota { files: Some(1), ..Quota::default() });
        memo.note_quota(ann, Quota::default());
        memo.forget(QUOTA, &all.key());
        assert_eq!((memo.quota(all), memo.quota(ann)), (None, Some(Quota::default())));
    }

    #[test]
    fn whose_sessions_may_be_invalid_is_returned_once() {
        let mut memo = Memo::default();
        let (ann, ben, client) = (Uid([1; 16]), Uid([2; 16]), PeerId([3; 32]));
        assert_eq!(memo.take_changed(), None, "what happened before the start is not known");
        memo.note_login_key(ann, Some(client));
        memo.note_signed_out(ann, client, 7);
        memo.forget(ACCOUNT, &crate::record::account_key(ben));
        assert_eq!((memo.login_key(ann), memo.signed_out(ann, client)), (Some(Some(client)), Some(7)));
        memo.forget(SIGN_OUT, &crate::record::sign_out_key(ann, client));
        assert_eq!((memo.login_key(ann), memo.signed_out(ann, client)), (None, None));
        assert_eq!(memo.take_changed(), Some(HashSet::from([ann, ben])));
        assert_eq!(memo.take_changed(), Some(HashSet::new()));
        memo.clear();
        assert_eq!(memo.take_changed(), None);
    }
}
