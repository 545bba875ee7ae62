//! From names to ids and back: who holds a name, and how the losers of a conflict are called.

use shoal_common::tracker_api::UserEntry;
use shoal_common::{Gid, GroupName, Uid, UserName};
use shoal_replica::{NameSpace, parse_claim_key};

use crate::database::{Fault, Tx};

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
        _ => Called { name: name.renamed(&user.0), provisional: false },
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
        _ => Called { name: name.renamed(&group.0), provisional: false },
    })
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
    let renamed = ids.iter().skip(1).filter(|id| name.base().renamed(id) == *name);
    Ok(if name.is_renamed() {
        renamed.map(|id| Uid(*id)).collect()
    } else {
        ids.iter().map(|id| Uid(*id)).collect()
    })
}

/// The user whom a name means.
pub(crate) fn user_named(tx: &Tx<'_>, name: &UserName) -> Result<Option<Uid>, Fault> {
    Ok(users_named(tx, name)?.first().copied())
}

/// The group that a name means.
pub(crate) fn group_named(tx: &Tx<'_>, name: &GroupName) -> Result<Option<Gid>, Fault> {
    let ids = ids_named(tx, NameSpace::Group, name.base().as_str())?;
    let meant = if name.is_renamed() {
        ids.iter().skip(1).find(|id| name.base().renamed(id) == *name)
    } else {
        ids.first()
    };
    Ok(meant.map(|id| Gid(*id)))
}

/// All claims on a name, the holder's first.
fn ids_named(tx: &Tx<'_>, space: NameSpace, name: &str) -> Result<Vec<[u8; 16]>, Fault> {
    let Some(holder) = tx.holder(space, name)? else { return Ok(Vec::new()) };
    let claims = tx.claims(space, name)?;
    let others = claims.iter().filter_map(|row| Some(parse_claim_key(&row.key)?.1.0));
    Ok(std::iter::once(holder.uid.0).chain(others.filter(|id| *id != holder.uid.0)).collect())
}
