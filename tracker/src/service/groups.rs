//! Groups: founding, joining, leaving, deciding requests, and who may see what.

use shoal_common::limits::MAX_LIST;
use shoal_common::names::Skeleton;
use shoal_common::tracker_api::{Answer, GroupEntry, RefusalKind, UserEntry};
use shoal_common::{Gid, GroupName, Nonce, RequestId, Uid, UserName};
use shoal_replica::{Kind, NameSpace, Write, claim_key};

use super::accounts::outdated;
use crate::database::{Fault, Tx, refuse};
use crate::names;
use crate::quota;
use crate::record::{Founding, MEMBERSHIP, Membership, Standing, Term, delete, membership_key, put};

/// Groups that one user may be in or have asked to join: each costs a ticket at every renewal.
const MAX_GROUPS_PER_USER: u64 = 1_000;
/// Memberships over that are dropped to make room for a new one.
const MAX_ENDED_DROPPED: usize = 16;

/// Founds a group; a repeated request finds its own claim and changes nothing.
pub(super) fn create(
    tx: &mut Tx<'_>,
    caller: Uid,
    (id, nonce): (Gid, Option<Nonce>),
    name: &GroupName,
) -> Result<(), Fault> {
    let Some(nonce) = nonce else { return Err(outdated("creates groups")) };
    if Gid::derive(nonce, caller, name.as_str()) != id {
        let text = format!("the group {name} has an id that is not its own; nothing was created");
        return Err(refuse(RefusalKind::Malformed, text));
    }
    match tx.holder(NameSpace::Group, name.as_str())? {
        Some(holder) if holder.uid.0 == id.0 => return Ok(()),
        Some(holder) => {
            if let Some(what) = names::resembled(tx, NameSpace::Group, name.as_str(), &holder)? {
                let text = format!("the group id {name} cannot be given: {what}; choose another");
                return Err(refuse(RefusalKind::Exists, text));
            }
            let text = if !tx.store().has_members(Gid(holder.uid.0))? {
                format!("the group id {name} was used before and is not given out again; choose another")
            } else {
                format!("the group {name} exists; choose another id, or ask to join with: join_group {name}")
            };
            return Err(refuse(RefusalKind::Exists, text));
        }
        None => {}
    }
    names::check_new(name.as_str(), GroupName::create, GroupName::as_str)?;
    // The id follows from founder and name. During a sync the membership may arrive before the claim.
    let same = membership(tx, id, caller)?.is_some_and(|known| known.request.0 == id.0);
    if !same && tx.store().has_group(id)? {
        let text = format!("the group {name} has an id that is in use; try again");
        return Err(refuse(RefusalKind::Exists, text));
    }
    quota::admit_group(tx, caller)?;
    let mut writes = make_room(tx, caller)?;
    let key = claim_key(name.as_str().as_bytes(), shoal_replica::Uid(id.0));
    let skeleton = Some(Skeleton::of(name.as_str()));
    let claim = put(Kind::GROUP_CLAIM, key, &Founding { founder: caller, nonce: Some(nonce), skeleton });
    let membership = stand(tx, id, caller, (Standing::Member, Term::default()), RequestId(id.0));
    writes.extend([claim, membership]);
    tx.write(writes)
}

/// Files a join request.
pub(super) fn join(tx: &mut Tx<'_>, caller: Uid, request: RequestId, name: &GroupName) -> Result<(), Fault> {
    let group = existing(tx, name)?;
    match membership(tx, group, caller)? {
        Some(m) if m.request == request => return Ok(()),
        Some(Membership { standing: Standing::Member, .. }) => {
            return Err(refuse(RefusalKind::Exists, format!("you are a member of {name} already")));
        }
        Some(Membership { standing: Standing::Requested, .. }) => {
            let text = match owner(tx, group)? {
                Some(owner) => {
                    let owner = names::user_called(tx, owner)?.name;
                    format!("you asked to join {name} already; its owner {owner} has not answered yet")
                }
                None => format!("you asked to join {name} already"),
            };
            return Err(refuse(RefusalKind::Exists, text));
        }
        _ => {}
    }
    let mut writes =
        if membership(tx, group, caller)?.is_some() { Vec::new() } else { make_room(tx, caller)? };
    let term = tx.store().term(group)?;
    writes.push(stand(tx, group, caller, (Standing::Requested, term), request));
    tx.write(writes)
}

/// Ends a membership.
pub(super) fn leave(tx: &mut Tx<'_>, caller: Uid, request: RequestId, name: &GroupName) -> Result<(), Fault> {
    let group = existing_or_left(tx, name)?;
    match membership(tx, group, caller)? {
        Some(m) if m.request == request => return Ok(()),
        Some(Membership { standing: Standing::Member | Standing::Requested, .. }) => {}
        _ => return Err(not_a_member(name)),
    }
    let term = tx.store().term(group)?;
    let term = if owner(tx, group)? == Some(caller) { term.after_leaving() } else { term };
    let left = stand(tx, group, caller, (Standing::Left, term), request);
    tx.write(vec![left])
}

/// Accepts or rejects a join request.
pub(super) fn decide(
    tx: &mut Tx<'_>,
    caller: Uid,
    request: RequestId,
    name: &GroupName,
    user: &UserName,
    accept: bool,
) -> Result<(), Fault> {
    let group = owned(tx, caller, name)?;
    let none = || {
        refuse(
            RefusalKind::NotFound,
            format!("{user} has not asked to join {name}; see: list_requests {name}"),
        )
    };
    let uid = names::user_named(tx, user)?.ok_or_else(none)?;
    match membership(tx, group, uid)? {
        Some(m) if m.request == request => return Ok(()),
        Some(Membership { standing: Standing::Requested, .. }) => {}
        Some(Membership { standing: Standing::Member, .. }) => {
            return Err(refuse(RefusalKind::Exists, format!("{user} is a member of {name} already")));
        }
        _ => return Err(none()),
    }
    let standing = if accept { Standing::Member } else { Standing::Rejected };
    let term = tx.store().term(group)?;
    let is_return = accept && tx.store().founder(group)? == Some(uid);
    let term = if is_return { term.after_return() } else { term };
    let decision = stand(tx, group, uid, (standing, term), request);
    tx.write(vec![decision])
}

/// Pending requests, for the owner.
pub(super) fn list_requests(
    tx: &Tx<'_>,
    caller: Uid,
    name: &GroupName,
    after: Option<&UserName>,
) -> Result<Answer, Fault> {
    let group = owned(tx, caller, name)?;
    users(tx, group, Standing::Requested, after)
}

/// Members, for members.
pub(super) fn list_members(
    tx: &Tx<'_>,
    caller: Uid,
    name: &GroupName,
    after: Option<&UserName>,
) -> Result<Answer, Fault> {
    let group = joined(tx, caller, name)?;
    users(tx, group, Standing::Member, after)
}

/// Every group that has a member; needs no login.
pub(super) fn list(tx: &Tx<'_>, caller: Option<Uid>, after: Option<&GroupName>) -> Result<Answer, Fault> {
    let after = after.map_or(String::new(), |name| name.base().as_str().to_owned());
    // One more than an answer holds shows whether there are more.
    let mut found = tx.store().groups_by_name(&after, MAX_LIST + 1)?;
    let more = found.len() > MAX_LIST;
    if more {
        // The next page begins behind a name, so all claims on a name must be on one page.
        cut_at_last_name(&mut found, |(name, _)| name.as_str().to_owned());
    }
    let mut groups = Vec::with_capacity(found.len());
    for (name, gid) in found {
        let called = names::group_called_by(tx, name, gid)?;
        let Some(owner) = owner(tx, gid)? else { continue };
        let owner = names::user_called(tx, owner)?.name;
        let member = match caller {
            Some(user) => tx.store().is_member(gid, user)?,
            None => false,
        };
        groups.push(GroupEntry { name: called.name, provisional: called.provisional, owner, member });
    }
    Ok(Answer::Groups { groups, more })
}

/// Drops the entries of the last name from a list that may have been cut among them, unless there is no other name.
pub(super) fn cut_at_last_name<T, N: PartialEq>(entries: &mut Vec<T>, name: impl Fn(&T) -> N) {
    let Some(last) = entries.last().map(&name) else { return };
    if let Some(at) = entries.iter().position(|entry| name(entry) == last).filter(|&at| at > 0) {
        entries.truncate(at);
    }
}

/// The group of that name that the caller is a member of.
pub(super) fn joined(tx: &Tx<'_>, caller: Uid, name: &GroupName) -> Result<Gid, Fault> {
    let group = existing(tx, name)?;
    if tx.store().is_member(group, caller)? { Ok(group) } else { Err(not_a_member(name)) }
}

/// Checks a group that the caller names by id.
pub(super) fn check_member(tx: &Tx<'_>, caller: Uid, group: Gid) -> Result<(), Fault> {
    if tx.store().is_member(group, caller)? {
        return Ok(());
    }
    match tx.store().group_claim_of(group)? {
        Some(_) => Err(not_a_member(&names::group_called(tx, group)?.name)),
        None => Err(refuse(RefusalKind::NotAllowed, "you are not a member of that group")),
    }
}

fn owned(tx: &Tx<'_>, caller: Uid, name: &GroupName) -> Result<Gid, Fault> {
    let group = joined(tx, caller, name)?;
    match owner(tx, group)? {
        Some(owner) if owner == caller => Ok(group),
        Some(owner) => {
            let owner = names::user_called(tx, owner)?.name;
            Err(refuse(RefusalKind::NotAllowed, format!("only the owner of {name}, {owner}, can do that")))
        }
        None => Err(not_a_member(name)),
    }
}

/// The founder while a member, then the member who joined first, ties by name.
fn owner(tx: &Tx<'_>, group: Gid) -> Result<Option<Uid>, Fault> {
    if let Some(founder) = tx.store().founder(group)?
        && tx.store().is_member(group, founder)?
    {
        return Ok(Some(founder));
    }
    Ok(tx.store().eldest(group)?)
}

fn users(tx: &Tx<'_>, group: Gid, standing: Standing, after: Option<&UserName>) -> Result<Answer, Fault> {
    let after = after.map_or(String::new(), |name| name.base().as_str().to_owned());
    // As in a list of groups: one more than an answer holds, and all claims on a name on one page.
    let mut found = tx.store().users_by_name(group, standing, (&after, MAX_LIST + 1))?;
    let more = found.len() > MAX_LIST;
    if more {
        cut_at_last_name(&mut found, |(name, _)| name.clone());
    }
    let mut users: Vec<UserEntry> = Vec::with_capacity(found.len());
    for (_, user) in found {
        users.push(names::user_called(tx, user)?.into());
    }
    Ok(Answer::Users { users, more })
}

/// A group that has members.
fn existing(tx: &Tx<'_>, name: &GroupName) -> Result<Gid, Fault> {
    let group = existing_or_left(tx, name)?;
    if tx.store().has_members(group)? { Ok(group) } else { Err(no_such_group(name)) }
}

fn existing_or_left(tx: &Tx<'_>, name: &GroupName) -> Result<Gid, Fault> {
    names::group_named(tx, name)?.ok_or_else(|| no_such_group(name))
}

fn no_such_group(name: &GroupName) -> Fault {
    refuse(RefusalKind::NotFound, format!("there is no group {name}; see: list_groups"))
}

fn not_a_member(name: &GroupName) -> Fault {
    refuse(RefusalKind::NotAllowed, format!("you are not a member of {name}; ask with: join_group {name}"))
}

/// Makes room for one more group of a user: records of groups that the user left, or was rejected by, give way.
fn make_room(tx: &Tx<'_>, user: Uid) -> Result<Vec<Write>, Fault> {
    if tx.store().memberships(user)? < MAX_GROUPS_PER_USER {
        return Ok(Vec::new());
    }
    let ended = tx.store().ended_memberships(user, MAX_ENDED_DROPPED)?;
    if ended.is_empty() {
        let text = format!(
            "you are in {MAX_GROUPS_PER_USER} groups, or asked to join them, which is the most; leave one with: leave_group"
        );
        return Err(refuse(RefusalKind::Limit, text));
    }
    Ok(ended.into_iter().map(|group| delete(MEMBERSHIP, membership_key(group, user))).collect())
}

fn membership(tx: &Tx<'_>, group: Gid, user: Uid) -> Result<Option<Membership>, Fault> {
    Ok(tx.store().live(MEMBERSHIP, &membership_key(group, user))?)
}

fn stand(
    tx: &Tx<'_>,
    group: Gid,
    user: Uid,
    (standing, term): (Standing, Term),
    request: RequestId,
) -> Write {
    let membership = Membership { standing, since_ms: tx.now().wall_ms, request, term: term.noted() };
    put(MEMBERSHIP, membership_key(group, user), &membership)
}
