//! Accounts: creating them, changing their passwords, and what a session consists of.

use shoal_common::credentials::{Account, ChangeSignature};
use shoal_common::limits::MAX_LIST;
use shoal_common::names::Skeleton;
use shoal_common::tokens::{SESSION_LIFE_MS, SessionToken, TICKET_LIFE_MS, Ticket, seal};
use shoal_common::tracker_api::{GroupTicket, RefusalKind, Session};
use shoal_common::{Gid, GroupName, Nonce, PeerId, Uid, UserName};
use shoal_net::Identity;
use shoal_replica::{Kind, NameSpace, Rows, Write, claim_key};

use crate::database::{Fault, Tx, refuse};
use crate::names::{self, Called};
use crate::proof::{self, MAX_CHANGES, NotChanged};
use crate::record::{ACCOUNT, AccountRecord, Birth, History, Naming, account_key, put};

/// Claims on one name that a login tries at most.
const MAX_CANDIDATES: usize = 8;

/// Who is logged in on a connection, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whose account.
    pub(super) user: Uid,
    /// On which client.
    pub(super) peer: PeerId,
    /// The public login key that the session was proven with.
    pub(super) login_key: PeerId,
    /// When the user logged in, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

/// An account that a login may be for.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Whose it is.
    pub(super) user: Uid,
    /// Its public secrets.
    pub(super) account: Account,
    /// Whether there is another candidate behind it.
    pub(super) more: bool,
}

/// What a session consists of; it is signed into tokens outside the database thread.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    user: Uid,
    called: Called<UserName>,
    account: Account,
    groups: Vec<(Gid, GroupName)>,
    now_ms: u64,
}

/// An account to be created: what a client sends.
pub(super) struct NewUser {
    pub(super) id: Uid,
    pub(super) name: UserName,
    pub(super) account: Account,
    pub(super) nonce: Option<Nonce>,
    pub(super) invitation: Option<String>,
}

/// Creates an account if `admit` allows it, and writes what that returns besides. A repeated request finds its own claim and
/// changes nothing.
pub(super) fn create(
    tx: &mut Tx<'_>,
    new: NewUser,
    admit: impl FnOnce(&Tx<'_>, (Option<&str>, &str)) -> Result<Option<Write>, Fault>,
) -> Result<(), Fault> {
    let NewUser { id, name, account, nonce, invitation } = new;
    let digest = account.digest();
    let Some(nonce) = nonce else { return Err(outdated("creates accounts")) };
    if Uid::derive(nonce, &digest, name.as_str()) != id {
        return Err(refuse(
            RefusalKind::Malformed,
            format!("the account of {name} has an id that is not its own; nothing was created"),
        ));
    }
    match tx.holder(NameSpace::User, name.as_str())? {
        Some(holder) if holder.uid.0 == id.0 => return Ok(()),
        Some(holder) => {
            let text = match names::resembled(tx, NameSpace::User, name.as_str(), &holder)? {
                Some(what) => format!("the user id {name} cannot be given: {what}; choose another"),
                None => format!("the user id {name} is taken; choose another, or log in with: login {name}"),
            };
            return Err(refuse(RefusalKind::Exists, text));
        }
        None => {}
    }
    names::check_new(name.as_str(), UserName::create, UserName::as_str)?;
    // The id follows from the name and the keys. During a sync the account may arrive before the claim.
    let held = tx.store().get(ACCOUNT, &account_key(id))?;
    let same =
        held.as_ref().and_then(proof::read_account).is_some_and(|(_, held)| proof::is_derived(id, &held));
    if !same && tx.store().has_user(id)? {
        return Err(refuse(
            RefusalKind::Exists,
            format!("the account of {name} has an id that is in use; try again"),
        ));
    }
    let key = claim_key(name.as_str().as_bytes(), shoal_replica::Uid(id.0));
    let skeleton = Some(Skeleton::of(name.as_str()));
    let claim = put(Kind::USER_CLAIM, key, &Naming { nonce, account: digest, skeleton });
    let mut writes = vec![claim];
    if !same {
        writes.extend(admit(tx, (invitation.as_deref(), name.as_str()))?);
        let birth = Birth { nonce, name: name.as_str().to_owned() };
        let history = History { first: digest, birth: Some(birth), changes: Vec::new() };
        writes.push(account_write(id, &AccountRecord::new(account, Some(history))));
    }
    tx.write(writes)
}

/// The answer to a client of an earlier version.
pub(super) fn outdated(does: &str) -> Fault {
    let text = format!(
        "this client is of an earlier version and {does} in a way that is not safe; update the client and try again"
    );
    refuse(RefusalKind::Malformed, text)
}

/// Whether the name that this claimant just claimed is not definite, or lost already: another one may have claimed it at
/// another tracker at the same time.
pub(super) fn is_provisional(
    tx: &Tx<'_>,
    space: NameSpace,
    name: &str,
    claimant: [u8; 16],
) -> Result<bool, Fault> {
    let holder = tx.holder(space, name)?;
    Ok(holder.is_none_or(|holder| !holder.definite || holder.uid.0 != claimant))
}

/// The account of a user.
pub(super) fn account(tx: &Tx<'_>, user: Uid) -> Result<Option<Account>, Fault> {
    let row = tx.store().get(ACCOUNT, &account_key(user))?;
    Ok(row.and_then(|row| minicbor::decode(&row.value).ok()))
}

/// The `number`th account that a login under `name` may be for.
pub(super) fn candidate(tx: &Tx<'_>, name: &UserName, number: u8) -> Result<Option<Candidate>, Fault> {
    let users = names::users_named(tx, name)?;
    let number = usize::from(number);
    let Some(&user) = users.get(number).filter(|_| number < MAX_CANDIDATES) else { return Ok(None) };
    let more = number + 1 < users.len().min(MAX_CANDIDATES);
    Ok(account(tx, user)?.map(|account| Candidate { user, account, more }))
}

/// Replaces a user's secrets, with a signature of the present login key that every tracker checks. A repeated request changes
/// nothing, proves nothing, and returns false.
pub(super) fn replace_secrets(
    tx: &mut Tx<'_>,
    user: Uid,
    new: Account,
    signature: Option<ChangeSignature>,
    proves: impl FnOnce(PeerId) -> bool,
) -> Result<bool, Fault> {
    let wrong = || refuse(RefusalKind::WrongPassword, "the old password is wrong; nothing was changed");
    let row = tx.store().get(ACCOUNT, &account_key(user))?.ok_or_else(wrong)?;
    let (_, old) = proof::read_account(&row).ok_or_else(wrong)?;
    if old.account() == new {
        // This request took effect before the tracker that took it died.
        return Ok(false);
    }
    if !proves(old.login_key) {
        return Err(wrong());
    }
    let signature = signature.ok_or_else(|| outdated("changes passwords"))?;
    let changed = proof::change(user, old, new, signature).map_err(|problem| match problem {
        NotChanged::Signature => wrong(),
        NotChanged::KeyAgain => refuse(
            RefusalKind::Malformed,
            "the account had these keys before; nothing was changed, choose another password",
        ),
        NotChanged::TooOften => refuse(
            RefusalKind::Limit,
            format!(
                "the password was changed {MAX_CHANGES} times, which is the most; nothing was changed. To get another one, \
                 create another account and have it join your groups"
            ),
        ),
    })?;
    tx.write(vec![account_write(user, &changed)])?;
    Ok(true)
}

fn account_write(user: Uid, record: &AccountRecord) -> Write {
    put(ACCOUNT, account_key(user), record)
}

/// What a session of this user consists of; `None` if there is no such account.
pub(super) fn facts(tx: &Tx<'_>, user: Uid) -> Result<Option<Facts>, Fault> {
    let Some(account) = account(tx, user)? else { return Ok(None) };
    let mut groups = Vec::new();
    for gid in tx.store().groups_of(user)? {
        groups.push((gid, names::group_name(tx, gid)?));
    }
    groups.truncate(MAX_LIST);
    let called = names::user_called(tx, user)?;
    Ok(Some(Facts { user, called, account, groups, now_ms: tx.now().wall_ms }))
}

impl Facts {
    /// Signs token and tickets for the caller's client.
    #[must_use]
    pub(super) fn into_session(
        self,
        tracker: &Identity,
        caller: Caller,
        ticket_keys: Vec<PeerId>,
    ) -> Session {
        let client = caller.peer;
        let token = SessionToken {
            user: self.user,
            peer: client,
            login_key: caller.login_key,
            expires_ms: self.now_ms + SESSION_LIFE_MS,
            since_ms: Some(caller.since_ms),
        };
        let signer = tracker.peer_id();
        let tickets = self.groups.into_iter().map(|(group, name)| {
            let ticket = Ticket {
                user: self.user,
                name: self.called.name.clone(),
                peer: client,
                group,
                expires_ms: self.now_ms + TICKET_LIFE_MS,
            };
            GroupTicket { group, name, ticket: seal(&ticket, signer, |message| tracker.sign(message)) }
        });
        Session {
            user: self.user,
            token: seal(&token, signer, |message| tracker.sign(message)),
            now_ms: self.now_ms,
            tickets: tickets.collect(),
            ticket_keys,
            account: self.account,
            provisional: self.called.provisional,
            name: self.called.name,
        }
    }
}
