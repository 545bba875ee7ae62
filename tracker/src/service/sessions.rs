//! Whether sessions are still valid. Every call is checked where it takes effect, inside the transaction, against the account
//! as it is now, written here or received from another tracker. A session that is no longer valid ends even if its client
//! asks for nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_LIST;
use shoal_common::tokens::SESSION_LIFE_MS;
use shoal_common::tracker_api::{Answer, Refusal, RefusalKind, SessionEntry};
use shoal_common::{PeerId, Uid};
use shoal_replica::Rows;
use tokio_util::sync::CancellationToken;

use super::accounts::{self, Caller};
use crate::clock::is_credible;
use crate::database::{Database, Fault, Tx, refuse};
use crate::presence::Presence;
use crate::record::{SIGN_OUT, SignOut, delete, put, sign_out_key};

/// How often changed accounts are compared with the sessions here. A session ends at most two of these after the change.
const SWEEP: Duration = Duration::from_secs(1);
/// Clients that one user can sign out within [`SESSION_LIFE_MS`], for which the records are kept.
const MAX_SIGN_OUTS: usize = 256;
/// By how much the clocks of two trackers may differ, in milliseconds: a day.
const SKEW_MS: u64 = 24 * 3_600_000;
/// Old records that are dropped with a new one.
const MAX_DROPPED: usize = 16;

/// Refuses a session that is no longer valid: the account has another login key, or this client was signed out.
pub(super) fn check(tx: &Tx<'_>, caller: Caller) -> Result<(), Fault> {
    if login_key(tx, caller.user)? != Some(caller.login_key) {
        return Err(Fault::Refused(super::session_over()));
    }
    if caller.since_ms <= signed_out_ms(tx, caller.user, caller.peer)? {
        return Err(Fault::Refused(super::signed_out()));
    }
    Ok(())
}

fn login_key(tx: &Tx<'_>, user: Uid) -> Result<Option<PeerId>, Fault> {
    if let Some(key) = tx.store().login_key_noted(user) {
        return Ok(key);
    }
    let key = accounts::account(tx, user)?.map(|account| account.login_key);
    tx.store().note_login_key(user, key);
    Ok(key)
}

/// The beginning of a session that is proven now: a login just after a sign-out counts, whichever tracker's clock is ahead.
pub(super) fn since_ms(tx: &Tx<'_>, user: Uid, peer: PeerId) -> Result<u64, Fault> {
    Ok(tx.now().wall_ms.max(signed_out_ms(tx, user, peer)?.saturating_add(1)))
}

/// Up to when logins of a user on a client are void; 0 if the client was never signed out. A time far ahead does not count:
/// with one a tracker that lies could lock a user out, or keep a client from being signed out, for good.
pub(super) fn signed_out_ms(tx: &Tx<'_>, user: Uid, peer: PeerId) -> Result<u64, Fault> {
    let until_ms = noted_sign_out_ms(tx, user, peer)?;
    Ok(if is_credible(until_ms, tx.now().wall_ms) { until_ms } else { 0 })
}

fn noted_sign_out_ms(tx: &Tx<'_>, user: Uid, peer: PeerId) -> Result<u64, Fault> {
    if let Some(until) = tx.store().signed_out_noted(user, peer) {
        return Ok(until);
    }
    let found = tx.store().live::<SignOut>(SIGN_OUT, &sign_out_key(user, peer))?;
    let until = found.map_or(0, |out| out.until_ms);
    tx.store().note_signed_out(user, peer, until);
    Ok(until)
}

/// Ends all sessions of a user on one client, on every tracker; the client may log in again with the password.
pub(super) fn sign_out(tx: &mut Tx<'_>, user: Uid, peer: PeerId) -> Result<(), Fault> {
    let now_ms = tx.now().wall_ms;
    let rows = tx.store().scan(SIGN_OUT, &user.0, None, MAX_SIGN_OUTS * 2)?;
    let live = rows.iter().filter(|row| !row.tombstone);
    // A token that old has expired.
    let is_old = |value: &[u8]| {
        let out = minicbor::decode::<SignOut>(value).ok();
        out.is_some_and(|SignOut { until_ms }| {
            until_ms.saturating_add(SESSION_LIFE_MS) < now_ms || !is_credible(until_ms, now_ms)
        })
    };
    let key = sign_out_key(user, peer);
    // This client's record is replaced, not dropped.
    let (old, kept): (Vec<_>, Vec<_>) = live.filter(|row| row.key != key).partition(|row| is_old(&row.value));
    if kept.len() >= MAX_SIGN_OUTS {
        let text = format!(
            "{MAX_SIGN_OUTS} clients were signed out lately; change the password, which ends all sessions"
        );
        return Err(refuse(RefusalKind::Limit, text));
    }
    // A session may have begun at a tracker whose clock is ahead, or just after the last sign-out.
    let until_ms = now_ms.saturating_add(SKEW_MS).max(signed_out_ms(tx, user, peer)?.saturating_add(1));
    let mut writes = vec![put(SIGN_OUT, key, &SignOut { until_ms })];
    writes.extend(old.iter().take(MAX_DROPPED).map(|row| delete(SIGN_OUT, row.key.clone())));
    tx.write(writes)
}

/// The clients on which a user is logged in now, on any tracker.
pub(super) fn list(presence: &Presence, caller: Caller) -> Answer {
    let mut sessions: Vec<SessionEntry> = presence
        .clients_of(caller.user)
        .into_iter()
        .map(|(peer, address)| SessionEntry { peer, address: address.to_string(), own: peer == caller.peer })
        .collect();
    sessions.sort_by_key(|entry| (!entry.own, entry.peer));
    sessions.truncate(MAX_LIST);
    Answer::Sessions(sessions)
}

/// The sessions of this tracker's own connections.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<u64, (Caller, CancellationToken)>>>);

impl Sessions {
    /// A session began; the token is cancelled when it is no longer valid.
    pub(super) fn began(&self, epoch: u64, caller: Caller) -> CancellationToken {
        let over = CancellationToken::new();
        self.lock().insert(epoch, (caller, over.clone()));
        over
    }

    /// A session ended by itself.
    pub(super) fn ended(&self, epoch: u64) {
        self.lock().remove(&epoch);
    }

    /// Ends sessions that no longer hold, until the tracker closes.
    pub(super) async fn watch(self, database: Database, closing: CancellationToken) {
        let mut all = false;
        while closing.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            let swept = self.sweep(&database, all).await;
            // Changes are handed out once, so after a failure all sessions are checked.
            all = swept.is_err();
            if let Err(refusal) = swept {
                tracing::debug!(reason = refusal.text, "sessions cannot be compared with their accounts now");
            }
        }
    }

    async fn sweep(&self, database: &Database, all: bool) -> Result<(), Refusal> {
        let changed = database.read(|tx| Ok(tx.store().take_changed_users())).await?;
        let touched =
            |caller: &Caller| all || changed.as_ref().is_none_or(|users| users.contains(&caller.user));
        let due: Vec<(u64, Caller)> = {
            let sessions = self.lock();
            sessions
                .iter()
                .filter(|(_, (caller, _))| touched(caller))
                .map(|(&epoch, (caller, _))| (epoch, *caller))
                .collect()
        };
        for some in due.chunks(MAX_LIST) {
            let some = some.to_vec();
            let judged = database.read(move |tx| {
                let mut over = Vec::new();
                for (epoch, caller) in some {
                    match check(tx, caller) {
                        Ok(()) => {}
                        Err(Fault::Refused(_)) => over.push(epoch),
                        Err(fault) => return Err(fault),
                    }
                }
                Ok(over)
            });
            for epoch in judged.await? {
                if let Some((caller, over)) = self.lock().remove(&epoch) {
                    tracing::info!(peer = %caller.peer, "a session is no longer valid; closing its connection");
                    over.cancel();
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Caller, CancellationToken)>> {
        // A panic while the lock was held leaves at worst an entry without a connection.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
