//! Answers that commands ask for again and again, kept in memory: who is a member of which group, and what users and groups
//! are called. Filled as they are asked for, and forgotten where a row that they rest on changes.

use std::cell::RefCell;
use std::collections::HashMap;

use shoal_common::{Gid, Uid};
use shoal_replica::{Kind, NameSpace, parse_claim_key};

use crate::record::{MEMBERSHIP, part};

/// Answers of each sort; beyond that all are forgotten. Two hundred bytes each at most.
const MAX_ANSWERS: usize = 16 * 1024;

/// A user or a group by id.
type Id = (NameSpace, [u8; 16]);

#[derive(Default)]
pub(super) struct Memo(RefCell<Answers>);

#[derive(Default)]
struct Answers {
    members: HashMap<(Gid, Uid), bool>,
    called: HashMap<Id, String>,
    /// Those in `called` who claimed a name.
    claimants: HashMap<(NameSpace, Vec<u8>), Vec<Id>>,
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
        let claimants = answers.claimants.entry((id.0, name.as_bytes().to_vec())).or_default();
        if !claimants.contains(&id) {
            claimants.push(id);
        }
    }

    /// Forgets what rests on a row that is about to change.
    pub(super) fn forget(&mut self, kind: Kind, key: &[u8]) {
        let answers = self.0.get_mut();
        if let Some(space) = NameSpace::of(kind) {
            // Keys about names begin with the name and its length.
            let name = key.split_first().and_then(|(&length, rest)| rest.get(..usize::from(length)));
            let claimants = name.and_then(|name| answers.claimants.remove(&(space, name.to_vec())));
            for id in claimants.into_iter().flatten() {
                answers.called.remove(&id);
            }
            // Somebody may have made up a second claim under one id.
            if let Some((_, claimant)) = parse_claim_key(key).filter(|_| kind == space.claim_kind()) {
                answers.called.remove(&(space, claimant.0));
            }
        } else if kind == MEMBERSHIP
            && let (Some(group), Some(user)) = (part(key, 0), part(key, 16))
        {
            answers.members.remove(&(Gid(group), Uid(user)));
        }
    }

    /// Forgets everything: rows are again what they were.
    pub(super) fn clear(&self) {
        *self.0.borrow_mut() = Answers::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_replica::{settled_key, vote_key};

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
        memo.forget(Kind::USER_SETTLED, &settled_key(b"annabel"));
        assert!(memo.called((NameSpace::User, ben.0)).is_some());
        memo.forget(Kind::USER_VOTE, &vote_key(b"anna", shoal_replica::TrackerNo(1)));
        assert_eq!(memo.called((NameSpace::User, anna.0)), None);
        assert_eq!(memo.called((NameSpace::User, ben.0)), None);
        assert_eq!(memo.called((NameSpace::Group, group.0)).as_deref(), Some("anna"));
        memo.clear();
        assert_eq!(memo.called((NameSpace::Group, group.0)), None);
    }
}
