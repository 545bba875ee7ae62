//! Accounts and sessions: creating one, proving whose it is, and going on with it.

use std::sync::PoisonError;
use std::time::Instant;

use shoal_common::credentials::{Account, CHALLENGE_BYTES, ChangeSignature, check_answer};
use shoal_common::tokens::{self, LONGEST_TICKET_MS, SESSION_LIFE_MS, SessionToken};
use shoal_common::tracker_api::{Answer, Refusal, RefusalKind};
use shoal_common::{PeerId, Uid, UserName};
use shoal_replica::NameSpace;

use super::accounts::{self, Candidate, Facts, NewUser};
use super::sessions::{self, Caller};
use super::throttle::{Guessed, Throttle};
use super::{Client, Service, Session, refusal, session_over};
use crate::registration;

impl Service {
    pub(super) async fn create_user(&self, client: &Client, new: NewUser) -> Result<Answer, Refusal> {
        let (id, name) = (new.id, new.name.clone());
        let (registration, rates, from) = (self.registration, self.rates.clone(), client.remote.ip());
        let created = self.core.run(move |tx| {
            accounts::create(tx, new, |tx, who| {
                let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
                registration::admit(tx, registration, &mut rates, from, who)
            })
        });
        created.await?;
        let space = NameSpace::User;
        let provisional =
            self.core.read(move |tx| accounts::is_provisional(tx, space, name.as_str(), id.0)).await?;
        Ok(Answer::Created { provisional })
    }

    pub(super) async fn challenge(
        &self,
        client: &mut Client,
        name: UserName,
        candidate: u8,
    ) -> Result<Answer, Refusal> {
        let wanted = name.clone();
        let asked = self.core.read(move |tx| {
            let found = accounts::candidate(tx, &wanted, candidate)?;
            let salt = match &found {
                Some(found) => found.account.salt,
                None => accounts::salt_of_nobody(tx, &wanted)?,
            };
            Ok((found, salt))
        });
        let (found, salt) = asked.await?;
        self.check_wait(&guessed(found.as_ref(), &name), &name, client)?;
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
        let wanted = name.clone();
        let found = self.core.read(move |tx| accounts::candidate(tx, &wanted, number)).await?;
        let whose = guessed(found.as_ref(), &name);
        self.check_wait(&whose, &name, client)?;
        if client.session.is_some() {
            return Err(refusal(
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
        let from = client.remote.ip().to_canonical();
        let Some(proven) = proven else {
            self.throttle().failed(&whose, from, Instant::now());
            if found.is_some_and(|found| found.more) {
                return Err(refusal(RefusalKind::TryNext, "another account of that name may be meant"));
            }
            let text = "wrong user id or password; a new account is made with: create_user";
            return Err(refusal(RefusalKind::WrongPassword, text));
        };
        self.throttle().succeeded(&whose, from);
        self.begin(client, proven.user, proven.account.login_key, None).await
    }

    pub(super) async fn resume(&self, client: &mut Client, token: Vec<u8>) -> Result<Answer, Refusal> {
        let now_ms = self.core.read(|tx| Ok(tx.now().wall_ms)).await?;
        let keys = self.trust.keys();
        let token: SessionToken =
            tokens::open(&token, |key| keys.contains(key)).map_err(|_| session_over())?;
        // One that says to be good for longer was made with a stolen key, to outlive it.
        let longest = now_ms + SESSION_LIFE_MS + LONGEST_TICKET_MS;
        if token.peer != client.peer || !(now_ms..=longest).contains(&token.expires_ms) {
            return Err(session_over());
        }
        self.begin(client, token.user, token.login_key, Some(token.since_ms())).await
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
        let Caller { user, .. } = client.caller()?;
        let challenge = client.challenge.take();
        let (peer, tracker, login_key) = (client.peer, self.identity.peer_id(), account.login_key);
        let replaced = self.core.run(move |tx| {
            let proves = |old| {
                challenge.is_some_and(|challenge| check_answer(old, &challenge, peer, tracker, &signature))
            };
            accounts::replace_secrets(tx, user, account, change, proves)
        });
        replaced.await?;
        self.begin(client, user, login_key, None).await
    }

    /// Begins a session that was proven with that login key, or goes on with one since that time.
    async fn begin(
        &self,
        client: &mut Client,
        user: Uid,
        login_key: PeerId,
        since_ms: Option<u64>,
    ) -> Result<Answer, Refusal> {
        let address = client.listen.ok_or_else(session_over)?;
        let peer = client.peer;
        let (since_ms, facts) = self
            .core
            .read(move |tx| {
                // A login just after a sign-out counts, whichever tracker's clock is ahead.
                let since_ms = match since_ms {
                    Some(since_ms) => since_ms,
                    None => tx.now().wall_ms.max(sessions::signed_out_ms(tx, user, peer)? + 1),
                };
                let caller = Caller { user, peer, login_key, since_ms };
                sessions::check(tx, caller)?;
                Ok((since_ms, accounts::facts(tx, user)?))
            })
            .await?;
        let facts = facts.ok_or_else(session_over)?;
        self.offline(client);
        let caller = Caller { user, peer, login_key, since_ms };
        let epoch = self.presence.online(peer, user, address);
        client.session = Some(Session { caller, epoch, over: self.sessions.began(epoch, caller) });
        // The account may have changed since, before this session was among those that are watched.
        self.check(caller).await?;
        Ok(self.logged_in(facts, caller))
    }

    async fn facts(&self, caller: Caller) -> Result<Facts, Refusal> {
        let facts = self.read_for(caller, move |tx| accounts::facts(tx, caller.user)).await?;
        facts.ok_or_else(session_over)
    }

    fn check_wait(&self, whose: &Guessed, name: &UserName, client: &Client) -> Result<(), Refusal> {
        match self.throttle().wait(whose, client.remote.ip().to_canonical(), Instant::now()) {
            None => Ok(()),
            Some(wait) => {
                let seconds = wait.as_secs_f32().ceil();
                Err(Refusal {
                    kind: RefusalKind::Wait,
                    text: format!(
                        "too many failed logins for {name} from here; wait {seconds} s and try again"
                    ),
                    again_ms: u32::try_from(wait.as_millis()).ok(),
                })
            }
        }
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        // A panic while the lock was held cannot leave worse than a count that is off by one.
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose password a login under `name` guesses.
fn guessed(found: Option<&Candidate>, name: &UserName) -> Guessed {
    found.map_or_else(|| Guessed::Nobody(name.clone()), |found| Guessed::Account(found.user))
}
