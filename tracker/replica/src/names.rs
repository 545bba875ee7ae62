//! Keys of claims, votes and decided names. Claims begin with the name, votes and decisions with the place for which names
//! that look alike compete, preceded by its length. So one prefix finds everything under a name or place, and none is a
//! prefix of another.

use crate::limits::MAX_NAME_BYTES;
use crate::row::{Kind, Row, TrackerNo, Uid};

/// User names and group names do not compete with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameSpace {
    /// Names of users.
    User,
    /// Names of groups.
    Group,
}

impl NameSpace {
    /// The kind of claims to a name.
    pub const fn claim_kind(self) -> Kind {
        match self {
            Self::User => Kind::USER_CLAIM,
            Self::Group => Kind::GROUP_CLAIM,
        }
    }

    /// The kind of votes for a name.
    pub const fn vote_kind(self) -> Kind {
        match self {
            Self::User => Kind::USER_VOTE,
            Self::Group => Kind::GROUP_VOTE,
        }
    }

    /// The kind of decided names.
    pub const fn decision_kind(self) -> Kind {
        match self {
            Self::User => Kind::USER_DECISION,
            Self::Group => Kind::GROUP_DECISION,
        }
    }

    /// The space of rows of this kind, if it is one of the six.
    pub const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::USER_CLAIM | Kind::USER_VOTE | Kind::USER_DECISION => Some(Self::User),
            Kind::GROUP_CLAIM | Kind::GROUP_VOTE | Kind::GROUP_DECISION => Some(Self::Group),
            _ => None,
        }
    }
}

/// The prefix of all keys about `name`. The name has at most [`MAX_NAME_BYTES`]; a longer one gives keys that
/// no row may have.
pub fn name_prefix(name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut key = Vec::with_capacity(name.len() + 17);
    key.push(length);
    key.extend_from_slice(name);
    key
}

/// The key of `uid`'s claim to `name`.
pub fn claim_key(name: &[u8], uid: Uid) -> Vec<u8> {
    let mut key = name_prefix(name);
    key.extend_from_slice(&uid.0);
    key
}

/// The name and uid in a claim's key.
pub fn parse_claim_key(key: &[u8]) -> Option<(&[u8], Uid)> {
    let (name, rest) = split_name(key)?;
    Some((name, Uid(rest.try_into().ok()?)))
}

/// The key of a tracker's vote for `name`.
pub fn vote_key(name: &[u8], tracker: TrackerNo) -> Vec<u8> {
    let mut key = name_prefix(name);
    key.push(tracker.0);
    key
}

/// The name and tracker in a vote's key.
pub fn parse_vote_key(key: &[u8]) -> Option<(&[u8], TrackerNo)> {
    match split_name(key)? {
        (name, &[no]) => Some((name, TrackerNo(no))),
        _ => None,
    }
}

/// The key of the decision on `name`.
pub fn decision_key(name: &[u8]) -> Vec<u8> {
    name_prefix(name)
}

/// The name in a decision's key.
pub fn parse_decision_key(key: &[u8]) -> Option<&[u8]> {
    match split_name(key)? {
        (name, []) => Some(name),
        _ => None,
    }
}

/// The uid in a vote or a decision.
pub(crate) fn chosen(row: &Row) -> Option<Uid> {
    Some(Uid(row.value.as_slice().try_into().ok()?))
}

/// The name that a row is about, if its kind is one of the six and its key is well formed.
pub(crate) fn name_of(row: &Row) -> Option<(NameSpace, &[u8])> {
    let space = NameSpace::of(row.kind)?;
    let name = match row.kind {
        Kind::USER_CLAIM | Kind::GROUP_CLAIM => parse_claim_key(&row.key)?.0,
        Kind::USER_VOTE | Kind::GROUP_VOTE => parse_vote_key(&row.key)?.0,
        _ => parse_decision_key(&row.key)?,
    };
    Some((space, name))
}

/// Whether a row about names is well formed. True for all other rows.
pub(crate) fn is_valid(row: &Row) -> bool {
    match row.kind {
        Kind::USER_CLAIM | Kind::GROUP_CLAIM => name_of(row).is_some(),
        kind if NameSpace::of(kind).is_some() => name_of(row).is_some() && chosen(row).is_some(),
        _ => true,
    }
}

fn split_name(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = key.split_first()?;
    rest.split_at_checked(usize::from(length))
}

const _: () = assert!(MAX_NAME_BYTES <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unambiguous() {
        let uid = Uid([7; 16]);
        assert_eq!(parse_claim_key(&claim_key(b"anna", uid)), Some((&b"anna"[..], uid)));
        assert_eq!(parse_vote_key(&vote_key(b"anna", TrackerNo(3))), Some((&b"anna"[..], TrackerNo(3))));
        assert_eq!(parse_decision_key(&decision_key(b"anna")), Some(&b"anna"[..]));
        assert!(!name_prefix(b"annabel").starts_with(&name_prefix(b"anna")));
        assert_eq!(parse_vote_key(&decision_key(b"anna")), None);
        assert_eq!(parse_claim_key(&[200, 1, 2]), None);
        assert_eq!(parse_decision_key(&[]), None);
    }
}
