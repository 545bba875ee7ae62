//! Logging in: challenges and the proof of a password, resuming and renewing sessions, and changes of the password.

use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use shoal_common::UserName;
use shoal_common::credentials::{Account, CHALLENGE_BYTES, ChangeSignature, SALT_BYTES, check_answer};
use shoal_common::tokens::{self, LONGEST_TICKET_MS, SESSION_LIFE_MS, SessionToken};
use shoal_common::tracker_api::{Answer, Refusal, RefusalKind};

use super::accounts::{self, Caller, Candidate, Facts};
use super::sessions;
use super::throttle::{Guessed, Throttle};
use super::{Client, Service, Session, session_over};
use crate::clock::is_credible;

/// The salt that a login is given for a name without an account.
const NO_SALT: [u8; SALT_BYTES] = [0; SALT_BYTES];

impl Service {
    pub(super) async fn challenge(
        &self,
        client: &mut Client,
        name: UserName,
        candidate: u8,
    ) -> Result<Answer, Refusal> {
        let wanted = name.clone();
        let found = self.database.read(move |tx| accounts::candidate(tx, &wanted, candidate)).await?;
        // The login says that there is no such account. It is no secret: `create_user` says whether a name is taken.
        let salt = found.as_ref().map_or(NO_SALT, |found| found.account.salt);
        self.check_wait(&guessed(found.as_ref(), &name), name.as_str(), client)?;
        let mut challenge = [0; CHALLENGE_BYTES];
        getrandom::fill(&mut challenge).expect("the system provides randomness");
        client.challenge = Some(challenge);
        Ok(Answer::Challenge { salt, challenge })
    }

    pub(super) async fn login(
        &self,
        client: &mut Client,
        name: UserName,
        number: u8,
        signature: [u8; 64],
    ) -> Result<Answer, Refusal> {
        let (wanted, client_peer) = (name.clone(), client.peer);
        // A sign-out after this moment ends the session that begins by this proof.
        let asked = self.database.read(move |tx| {
            let found = accounts::candidate(tx, &wanted, number)?;
            let since_ms = found.as_ref().map(|found| sessions::since_ms(tx, found.user, client_peer));
            Ok((found, since_ms.transpose()?.unwrap_or(0)))
        });
        let (found, since_ms) = asked.await?;
        let whose = guessed(found.as_ref(), &name);
        self.check_wait(&whose, name.as_str(), client)?;
        if client.session.is_some() {
            return Err(Refusal::new(
                RefusalKind::Exists,
                "you are logged in already; log out first with: logout",
            ));
        }
        let challenge = client.challenge.take();
        let tracker = self.identity.peer_id();
        let proven = found.as_ref().filter(|found| {
            challenge.is_some_and(|challenge| {
                check_answer(found.account.login_key, &challenge, client.peer, tracker, &signature)
            })
        });
        let from = client.remote.ip();
        let Some(proven) = proven else {
            self.throttle().failed(&whose, from, Instant::now());
            if found.as_ref().is_some_and(|found| found.more) {
                return Err(Refusal::new(
                    RefusalKind::TryNext,
                    "another account of that name may be meant; the next one is tried",
                ));
            }
            let text = format!(
                "wrong password for {name}, or there is no such user; try again, or create the account with: \
                 create_user {name}"
            );
            return Err(Refusal::new(RefusalKind::WrongPassword, text));
        };
        self.throttle().succeeded(&whose, from);
        let (user, login_key) = (proven.user, proven.account.login_key);
        self.begin(client, Caller { user, peer: client_peer, login_key, since_ms }).await
    }

    pub(super) async fn resume(&self, client: &mut Client, token: Vec<u8>) -> Result<Answer, Refusal> {
        let now_ms = self.database.read(|tx| Ok(tx.now().wall_ms)).await?;
        let keys = self.trust.keys();
        let token: SessionToken =
            tokens::open(&token, |key| keys.contains(key)).map_err(|_| session_over())?;
        // A token that is good for longer was made with a stolen key, to outlive it.
        let longest = now_ms + SESSION_LIFE_MS + LONGEST_TICKET_MS;
        // One that begins far ahead was made to outlive sign-outs.
        let since_ms = token.since_ms();
        let holds = (now_ms..=longest).contains(&token.expires_ms) && is_credible(since_ms, now_ms);
        if token.peer != client.peer || !holds {
            return Err(session_over());
        }
        let SessionToken { user, peer, login_key, .. } = token;
        self.begin(client, Caller { user, peer, login_key, since_ms }).await
    }

    pub(super) async fn renew(&self, client: &mut Client) -> Result<Answer, Refusal> {
        let caller = client.caller()?;
        let facts = self.facts(caller).await?;
        Ok(self.logged_in(facts, caller))
    }

    fn logged_in(&self, facts: Facts, caller: Caller) -> Answer {
        Answer::LoggedIn(Box::new(facts.into_session(&self.identity, caller, self.trust.keys())))
    }

    pub(super) async fn change_password(
        &self,
        client: &mut Client,
        signature: [u8; 64],
        account: Account,
        change: Option<ChangeSignature>,
    ) -> Result<Answer, Refusal> {
        let caller = client.caller()?;
        let Caller { user, peer, .. } = caller;
        let (whose, from) = (Guessed::Account(user), client.remote.ip());
        self.check_wait(&whose, "this account", client)?;
        let challenge = client.challenge.take();
        let (tracker, login_key) = (self.identity.peer_id(), account.login_key);
        let replaced = self.run_for(caller, move |tx| {
            let proves = |old| {
                challenge.is_some_and(|challenge| check_answer(old, &challenge, peer, tracker, &signature))
            };
            // A proof is as good as a login. If there was nothing to change, there was none, and the session goes on.
            if accounts::replace_secrets(tx, user, account, change, proves)? {
                Ok((true, sessions::since_ms(tx, user, peer)?))
            } else {
                Ok((false, caller.since_ms))
            }
        });
        let replaced = replaced.await;
        match &replaced {
            Ok((true, _)) => self.throttle().succeeded(&whose, from),
            Err(refusal) if refusal.kind == RefusalKind::WrongPassword => {
                self.throttle().failed(&whose, from, Instant::now());
            }
            _ => {}
        }
        let (_, since_ms) = replaced?;
        self.begin(client, Caller { user, peer, login_key, since_ms }).await
    }

    /// Begins the caller's session on this connection, or goes on with it.
    async fn begin(&self, client: &mut Client, caller: Caller) -> Result<Answer, Refusal> {
        let address = client.listen.ok_or_else(session_over)?;
        let facts = self.facts(caller).await?;
        self.offline(client);
        let epoch = self.presence.online(caller.peer, caller.user, address);
        tracing::debug!(session = epoch, user = %caller.user, "a session begins");
        client.session = Some(Session { caller, epoch, over: self.sessions.began(epoch, caller) });
        // The account may have changed since, before this session was among those that are watched.
        if let Err(refusal) = self.check(caller).await {
            // The client does not learn of this session, so there must be none.
            self.end(client);
            return Err(refusal);
        }
        Ok(self.logged_in(facts, caller))
    }

    async fn facts(&self, caller: Caller) -> Result<Facts, Refusal> {
        let facts = self.read_for(caller, move |tx| accounts::facts(tx, caller.user)).await?;
        facts.ok_or_else(session_over)
    }

    fn check_wait(&self, whose: &Guessed, name: &str, client: &Client) -> Result<(), Refusal> {
        let Some(wait) = self.throttle().wait(whose, client.remote.ip(), Instant::now()) else {
            return Ok(());
        };
        let seconds = wait.as_secs_f32().ceil();
        let text = format!("too many wrong passwords for {name} from here; wait {seconds} s and try again");
        Err(Refusal::new(RefusalKind::Wait, text).retry_after(wait))
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // A panic while the lock was held cannot leave worse than a count that is off by one.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose password a login under `name` guesses.
fn guessed(found: Option<&Candidate>, name: &UserName) -> Guessed {
    found.map_or_else(|| Guessed::Nobody(name.clone()), |found| Guessed::Account(found.user))
}
