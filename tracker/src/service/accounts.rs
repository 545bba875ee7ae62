//! Accounts: creating them, proving a password, sessions and what belongs to one.

use shoal_common::credentials::{Account, SALT_BYTES, decoy_salt};
use shoal_common::limits::MAX_LIST;
use shoal_common::tokens::{SESSION_LIFE_MS, SessionToken, TICKET_LIFE_MS, Ticket, seal};
use shoal_common::tracker_api::{GroupTicket, RefusalKind, Session};
use shoal_common::{Gid, GroupName, PeerId, Uid, UserName};
use shoal_net::Identity;
use shoal_replica::{Kind, NameSpace, Rows, Write, claim_key};

use super::names::{self, Called};
use crate::core::{Fault, Tx, refuse};
use crate::record::{ACCOUNT, DECOY_SECRET, account_key, encode};

/// Claims on one name that a login tries at most.
const MAX_CANDIDATES: usize = 8;

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

/// What a session needs to know; signed into tokens outside the core.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    user: Uid,
    called: Called<UserName>,
    account: Account,
    groups: Vec<(Gid, GroupName)>,
    now_ms: u64,
}

/// Creates an account; a repeated request finds its own claim and changes nothing.
pub(super) fn create(tx: &mut Tx<'_>, id: Uid, name: &UserName, account: &Account) -> Result<(), Fault> {
    if name.is_parked() {
        return Err(refuse(RefusalKind::Malformed, "a user id must not end with ~ and six hex digits"));
    }
    match tx.holder(NameSpace::User, name.as_str())? {
        Some(holder) if holder.uid.0 == id.0 => return Ok(()),
        Some(_) => {
            return Err(refuse(
                RefusalKind::Exists,
                format!("the user id {name} is taken; choose another, or log in with: login {name}"),
            ));
        }
        None => {}
    }
    let claim = Write {
        kind: Kind::USER_CLAIM,
        key: claim_key(name.as_str().as_bytes(), shoal_replica::Uid(id.0)),
        ..Write::default()
    };
    let secrets = Write { kind: ACCOUNT, key: account_key(id), value: encode(account), ..Write::default() };
    tx.write(vec![claim, secrets])
}

/// Whether the name that the one of this id just claimed may yet be lost to somebody else, or is lost already: two may have
/// claimed it at different trackers before these heard of each other.
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

/// The salt that is shown for a name that has no account.
pub(super) fn salt_of_nobody(tx: &Tx<'_>, name: &UserName) -> Result<[u8; SALT_BYTES], Fault> {
    let row = tx.store().get(DECOY_SECRET, &[])?;
    // The secret is written at the first start, before the first client is let in.
    let secret = row.and_then(|row| row.value.try_into().ok()).unwrap_or([0; 32]);
    Ok(decoy_salt(&secret, name.as_str()))
}

/// Replaces a user's secrets.
pub(super) fn replace_secrets(tx: &mut Tx<'_>, user: Uid, account: &Account) -> Result<(), Fault> {
    let secrets = Write { kind: ACCOUNT, key: account_key(user), value: encode(account), ..Write::default() };
    tx.write(vec![secrets])
}

/// What a session of this user needs to know; none if there is no such account.
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
    /// The public login key, to which sessions are bound.
    #[must_use]
    pub(super) fn login_key(&self) -> PeerId {
        self.account.login_key
    }

    /// Signs token and tickets for one client of the user, and says which keys sign tickets.
    #[must_use]
    pub(super) fn into_session(
        self,
        tracker: &Identity,
        client: PeerId,
        ticket_keys: Vec<PeerId>,
    ) -> Session {
        let token = SessionToken {
            user: self.user,
            peer: client,
            login_key: self.account.login_key,
            expires_ms: self.now_ms + SESSION_LIFE_MS,
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
