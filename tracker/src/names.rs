//! From names to ids and back: who holds a name, and how the losers of a conflict are called.

use std::collections::{HashMap, HashSet};

use shoal_common::names::is_same;
use shoal_common::tracker_api::{RefusalKind, UserEntry};
use shoal_common::{Gid, GroupName, NameError, Uid, UserName};
use shoal_replica::{Holder, NameSpace, parse_claim_key};

use crate::database::{Fault, Tx, refuse};

/// Bytes of an id in `name~xxxxxx`.
const TAIL_BYTES: usize = 3;

/// What a user or group is called now, and whether that may still change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Called<N> {
    /// The name; `name~xxxxxx` for a claim that lost the name.
    pub(crate) name: N,
    /// Whether a tracker that is out of reach may bring an earlier claim.
    pub(crate) provisional: bool,
}

impl From<Called<UserName>> for UserEntry {
    fn from(called: Called<UserName>) -> Self {
        Self { name: called.name, provisional: called.provisional }
    }
}

/// What a user is called. A user whose claim has not arrived yet is called by id.
pub(crate) fn user_called(tx: &Tx<'_>, user: Uid) -> Result<Called<UserName>, Fault> {
    let Some(name) = tx.store().user_claim_of(user)? else {
        let name = UserName::refer(&user.to_string()).expect("32 hex digits are a valid name");
        return Ok(Called { name, provisional: true });
    };
    let holder = tx.holder(NameSpace::User, name.as_str())?;
    Ok(match holder {
        Some(holder) if holder.uid.0 == user.0 => Called { name, provisional: !holder.definite },
        _ => Called {
            name: name.renamed(&tail(tx, NameSpace::User, name.as_str(), user.0)?),
            provisional: false,
        },
    })
}

/// What a group is called.
pub(crate) fn group_called(tx: &Tx<'_>, group: Gid) -> Result<Called<GroupName>, Fault> {
    let Some(name) = tx.store().group_claim_of(group)? else {
        let name = GroupName::refer(&group.to_string()).expect("32 hex digits are a valid name");
        return Ok(Called { name, provisional: true });
    };
    group_called_by(tx, name, group)
}

/// What the group that claimed `name` is called.
pub(crate) fn group_called_by(tx: &Tx<'_>, name: GroupName, group: Gid) -> Result<Called<GroupName>, Fault> {
    let holder = tx.holder(NameSpace::Group, name.as_str())?;
    Ok(match holder {
        Some(holder) if holder.uid.0 == group.0 => Called { name, provisional: !holder.definite },
        _ => Called {
            name: name.renamed(&tail(tx, NameSpace::Group, name.as_str(), group.0)?),
            provisional: false,
        },
    })
}

/// The id of a claim that lost `name`, in the order in which its digits go into `name~xxxxxx`.
fn tail(tx: &Tx<'_>, space: NameSpace, name: &str, id: [u8; 16]) -> Result<[u8; 16], Fault> {
    let claims = tx.claims(space, name)?;
    let mut rivals = Vec::new();
    for row in &claims {
        let Some((claimed, id)) = parse_claim_key(&row.key) else { continue };
        if std::str::from_utf8(claimed).is_ok_and(|claimed| is_same(claimed, name)) {
            rivals.push((row.stamp, id.0));
        }
    }
    rivals.sort_unstable();
    Ok(tails(rivals.into_iter().map(|(_, id)| id)).remove(&id).unwrap_or(id))
}

/// Digits for each of the claims on one name, from the earliest: its id's first six, or, where an earlier claim has these, the
/// next six. Six digits are few enough to make an id with them in a second, and two users or groups must not be called alike.
fn tails(ids: impl Iterator<Item = [u8; 16]>) -> HashMap<[u8; 16], [u8; 16]> {
    let (mut taken, mut tails) = (HashSet::new(), HashMap::new());
    for id in ids {
        let orders = (0..id.len() / TAIL_BYTES).map(|number| {
            let mut order = id;
            order.rotate_left(number * TAIL_BYTES);
            order
        });
        let free = orders.into_iter().find(|order| !taken.contains(&order[..TAIL_BYTES]));
        let order = free.unwrap_or(id);
        taken.insert(order[..TAIL_BYTES].to_vec());
        tails.insert(id, order);
    }
    tails
}

/// The name alone of [`user_called`], cached, because every holder of a file needs it.
pub(crate) fn user_name(tx: &Tx<'_>, user: Uid) -> Result<UserName, Fault> {
    let known = tx.store().called(NameSpace::User, user.0);
    if let Some(Ok(name)) = known.as_deref().map(UserName::refer) {
        return Ok(name);
    }
    let name = user_called(tx, user)?.name;
    // A user whose claim has not arrived is called by id, which no change of a name would undo.
    if let Some(claimed) = tx.store().user_claim_of(user)? {
        tx.store().note_called(NameSpace::User, user.0, claimed.as_str(), name.as_str());
    }
    Ok(name)
}

/// The name alone of [`group_called`], cached, because every group of a login needs it.
pub(crate) fn group_name(tx: &Tx<'_>, group: Gid) -> Result<GroupName, Fault> {
    let known = tx.store().called(NameSpace::Group, group.0);
    if let Some(Ok(name)) = known.as_deref().map(GroupName::refer) {
        return Ok(name);
    }
    let name = group_called(tx, group)?.name;
    if let Some(claimed) = tx.store().group_claim_of(group)? {
        tx.store().note_called(NameSpace::Group, group.0, claimed.as_str(), name.as_str());
    }
    Ok(name)
}

/// The users that a name may mean: its holder, then those who lost it. A name that was renamed on conflict means one user.
pub(crate) fn users_named(tx: &Tx<'_>, name: &UserName) -> Result<Vec<Uid>, Fault> {
    let ids = ids_named(tx, NameSpace::User, name.base().as_str())?;
    if !name.is_renamed() {
        return Ok(ids.into_iter().map(Uid).collect());
    }
    let mut meant = Vec::new();
    for id in ids.into_iter().map(Uid) {
        meant.extend((user_called(tx, id)?.name == *name).then_some(id));
    }
    Ok(meant)
}

/// The user whom a name means.
pub(crate) fn user_named(tx: &Tx<'_>, name: &UserName) -> Result<Option<Uid>, Fault> {
    for user in users_named(tx, name)? {
        // A user who lost the name to one that looks like it is called otherwise, but logs in under it.
        if user_called(tx, user)?.name == *name {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The group that a name means.
pub(crate) fn group_named(tx: &Tx<'_>, name: &GroupName) -> Result<Option<Gid>, Fault> {
    for id in ids_named(tx, NameSpace::Group, name.base().as_str())?.into_iter().map(Gid) {
        // Of a name that was lost to one that looks like it, no claim is called so.
        if group_called(tx, id)?.name == *name {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// All claims on a name in any normal form, the holder's first. One in the very form comes before the others.
fn ids_named(tx: &Tx<'_>, space: NameSpace, name: &str) -> Result<Vec<[u8; 16]>, Fault> {
    let typed = UserName::refer(name).ok();
    let claims = tx.claims(space, name)?;
    let mut ids = Vec::new();
    for row in &claims {
        let Some((claimed, id)) = parse_claim_key(&row.key) else { continue };
        let claimed = std::str::from_utf8(claimed).unwrap_or_default();
        if UserName::refer(claimed).ok() != typed {
            // It only looks like the name.
            continue;
        }
        let holds = tx.holder(space, claimed)?.is_some_and(|holder| holder.uid == id);
        ids.push((!holds, claimed != name, id.0));
    }
    // The order of claims stays where these are equal.
    ids.sort_by_key(|&(lost, other_form, _)| (lost, other_form));
    Ok(ids.into_iter().map(|(_, _, id)| id).collect())
}

/// The refusal of a name that looks like one that is taken: what it resembles. `None` if it is the same name, in any form.
pub(crate) fn resembled(
    tx: &Tx<'_>,
    space: NameSpace,
    name: &str,
    holder: &Holder,
) -> Result<Option<String>, Fault> {
    let claim = holder.claim.as_ref().and_then(|claim| parse_claim_key(&claim.key));
    let Some(taken) = claim.and_then(|(taken, _)| UserName::refer(std::str::from_utf8(taken).ok()?).ok())
    else {
        return Ok(None);
    };
    if UserName::refer(name).is_ok_and(|name| name == taken) {
        return Ok(None);
    }
    let what = if space == NameSpace::User { "user" } else { "group" };
    let shown = match tx.holder(space, taken.as_str())? {
        Some(known) if known.uid == holder.uid => taken,
        _ => taken.renamed(&tail(tx, space, taken.as_str(), holder.uid.0)?),
    };
    Ok(Some(format!("it resembles the existing {what} '{shown}'")))
}

/// Checks a name that a client wants to claim: clients of other versions know other rules.
pub(crate) fn check_new<N>(
    text: &str,
    create: impl FnOnce(&str) -> Result<N, NameError>,
    as_str: impl FnOnce(&N) -> &str,
) -> Result<(), Fault> {
    let created = create(text).map_err(|error| refuse(RefusalKind::Malformed, error.to_string()))?;
    if as_str(&created) == text {
        return Ok(());
    }
    let text = format!(
        "the name {created_shown} came in a form that is not composed; update the client and try again",
        created_shown = shoal_common::names::shown(text)
    );
    Err(refuse(RefusalKind::Malformed, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(triples: [u8; 5]) -> [u8; 16] {
        let mut id = [0; 16];
        for (at, triple) in triples.into_iter().enumerate() {
            id[TAIL_BYTES * at..TAIL_BYTES * (at + 1)].fill(triple);
        }
        id
    }

    #[test]
    fn no_two_claims_on_a_name_are_called_alike_and_the_earlier_keeps_its_digits() {
        let base = UserName::create("ann").unwrap();
        let called = |ids: &[[u8; 16]]| {
            let tails = tails(ids.iter().copied());
            ids.iter().map(|id| base.renamed(&tails[id]).as_str().to_owned()).collect::<Vec<_>>()
        };
        let (ann, other) = (id([1, 2, 3, 4, 5]), id([6, 7, 8, 9, 10]));
        assert_eq!(called(&[ann, other]), ["ann~010101", "ann~060606"]);
        // Made to be called as she is, or as another one would be then.
        let (forged, again) = (id([1, 6, 11, 12, 13]), id([1, 11, 6, 14, 15]));
        assert_eq!(called(&[ann, forged, other]), ["ann~010101", "ann~060606", "ann~070707"]);
        assert_eq!(
            called(&[ann, other, forged, again]),
            ["ann~010101", "ann~060606", "ann~0b0b0b", "ann~0e0e0e"]
        );
    }
}
