//! Accounts: creating one, logging in by challenge, changing the password, and logging in again without asking.

use std::time::Duration;

use shoal_common::credentials::{Account, CredentialError, SALT_BYTES, Secrets};
use shoal_common::tracker_api::{self, Answer, Call, RefusalKind, Reply};
use shoal_common::{RequestId, UserName};

use super::connection::{Lost, TrackerConnection};
use super::{CallError, MAX_CARRIES, Session, SessionState, Who, lock};
use crate::events::Event;
use shoal_common::Password;

/// Claims to one name that are tried at most; more than two take a cluster that was in as many parts.
const MAX_CANDIDATES: u8 = 16;
/// How often a login waits when a tracker asks for patience.
const MAX_WAITS: usize = 3;
/// Longest wait that a tracker may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What it takes to go on with the session anywhere.
pub(super) struct Login {
    /// For any tracker, until it is too old or the password changes.
    pub(super) token: Vec<u8>,
    /// For logging in again when the token does not hold.
    pub(super) secrets: Secrets,
    /// The secrets of a change that was asked for and not answered yet: either may be the account's.
    pub(super) changing: Option<Secrets>,
    pub(super) account: Account,
}

/// Why no one was logged in, or no account made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The trackers did not do it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No keys could be made from the password.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The present password is another one.
    #[error("the old password is wrong; the password was not changed")]
    OldPassword,
    /// It is not the password of the user who is logged in.
    #[error("that is not the password of {0}, who is logged in and stays so")]
    OtherPassword(UserName),
    /// The new password is the present one.
    #[error("the new password is the one the account has already; choose another")]
    SamePassword,
    /// There is no session.
    #[error("nobody is logged in; log in with: login <user_id>")]
    NotLoggedIn,
}

/// What a login is answered with: a password, or the keys that were made from it before.
#[derive(Clone)]
pub(super) enum Proof {
    Password(Password),
    Secrets(Box<Secrets>),
}

/// How an attempt at one tracker ended.
pub(super) enum Attempt {
    Lost,
    Failed(LoginError),
}

impl From<Lost> for Attempt {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl<E: Into<LoginError>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Session {
    /// Creates an account, by the invitation of that code where trackers ask for one; true if its name may yet be lost to
    /// another.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn create_user(
        &self,
        name: UserName,
        password: Password,
        invitation: Option<String>,
    ) -> Result<bool, LoginError> {
        let account = derive(move || Secrets::create(password.expose())).await?.2;
        match self.call(Call::create_user_by(invitation, name, account).1).await? {
            Answer::Created { provisional } => Ok(provisional),
            _ => Err(CallError::Unexpected.into()),
        }
    }

    /// Begins a session. Dropping the future leaves open whether it began.
    ///
    /// # Errors
    /// See [`LoginError`]; a name without an account is refused as a wrong password is, in other words.
    pub async fn login(&self, name: UserName, password: Password) -> Result<Who, LoginError> {
        let proof = Proof::Password(password);
        let mut waits = 0;
        for _ in 0..MAX_CARRIES {
            let connection = self.connection().await?;
            match self.0.sign_in(&connection, &name, &proof).await {
                Ok((session, secrets)) => {
                    let who = self.0.adopt(&session, Some(secrets));
                    self.0.began.notify_one();
                    return Ok(who);
                }
                Err(Attempt::Lost) => {}
                Err(Attempt::Failed(error)) => self.be_patient(error, &mut waits).await?,
            }
        }
        Err(self.no_tracker().into())
    }

    /// Whether this is the password of the user who is logged in. No tracker is asked.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub async fn is_password(&self, password: Password) -> Result<bool, LoginError> {
        let Some((secrets, account)) = self.0.keys() else { return Err(LoginError::NotLoggedIn) };
        let given = derive(move || Secrets::derive(password.expose(), &account.salt)).await?;
        Ok(given.login_key() == secrets.login_key())
    }

    /// Gives the account another password. All other sessions of the user end.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn change_password(&self, old: Option<Password>, new: Password) -> Result<(), LoginError> {
        let (Some(who), Some((secrets, account))) = (self.who(), self.0.keys()) else {
            return Err(LoginError::NotLoggedIn);
        };
        let salt = account.salt;
        if let Some(old) = old
            && !self.is_password(old).await?
        {
            return Err(LoginError::OldPassword);
        }
        let present = secrets.clone();
        let (same, fresh, renewed) = derive(move || {
            let same = Secrets::derive(new.expose(), &salt)?.login_key() == present.login_key();
            let key = present.open(&account)?;
            let (fresh, renewed) = Secrets::rewrap(new.expose(), &key)?;
            Ok((same, fresh, renewed))
        })
        .await?;
        if same {
            return Err(LoginError::SamePassword);
        }
        if let Some(login) = lock(&self.0.login).as_mut() {
            login.changing = Some(fresh.clone());
        }
        let changed = self.carry_change(&who, &secrets, &renewed).await;
        match changed {
            Ok(session) => {
                self.0.adopt(&session, Some(fresh));
                // To the tracker it is another session, in which nothing was said yet.
                self.0.began.notify_one();
                Ok(())
            }
            Err(error) => {
                // After a refusal the old keys hold; after silence either may, and both are kept.
                if let (CallError::Refused { .. } | CallError::OldTracker { .. }, Some(login)) =
                    (&error, lock(&self.0.login).as_mut())
                {
                    login.changing = None;
                }
                Err(error.into())
            }
        }
    }

    async fn carry_change(
        &self,
        who: &Who,
        secrets: &Secrets,
        account: &Account,
    ) -> Result<Box<tracker_api::Session>, CallError> {
        let request = RequestId::random();
        let change = Some(secrets.sign_change(who.user, &account.digest()));
        let mut waits = 0;
        for _ in 0..MAX_CARRIES {
            let connection = self.connection().await?;
            if connection.revision() < 1 {
                return Err(CallError::OldTracker { tracker: connection.address().to_owned() });
            }
            let challenge = match challenge(&connection, &who.name, 0).await {
                Ok((_, challenge)) => challenge,
                Err(Attempt::Lost) => continue,
                Err(Attempt::Failed(LoginError::Call(error))) => {
                    self.be_patient(error, &mut waits).await?;
                    continue;
                }
                Err(Attempt::Failed(_)) => return Err(CallError::Unexpected),
            };
            let signature = secrets.answer(&challenge, self.0.config.own, connection.peer());
            let account = account.clone();
            match connection.call(Call::ChangePassword { request, signature, account, change }).await {
                Ok(Reply::Done(Answer::LoggedIn(session))) => return Ok(session),
                Ok(Reply::Done(_)) => return Err(CallError::Unexpected),
                Ok(Reply::Refused(refusal)) => self.be_patient(CallError::from(refusal), &mut waits).await?,
                Err(Lost) => {}
            }
        }
        Err(self.no_tracker())
    }

    /// Waits where a tracker asks for patience, a few times: others may have guessed at this name. Else gives the error back.
    async fn be_patient<E>(&self, error: E, waits: &mut usize) -> Result<(), E>
    where
        E: Patience,
    {
        let Some(wait) = error.patience().filter(|_| *waits < MAX_WAITS) else { return Err(error) };
        *waits += 1;
        let reason = format!("too many failed logins; trying again in {} s", wait.as_secs() + 1);
        self.0.config.events.emit(Event::Patience { reason });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Gets fresh tickets now: the user may have become a member of another group.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn renew(&self) -> Result<Who, CallError> {
        match self.call(Call::Renew).await? {
            Answer::LoggedIn(session) => Ok(self.0.adopt(&session, None)),
            _ => Err(CallError::Unexpected),
        }
    }
}

impl SessionState {
    /// Answers challenges on this connection until one of the name's claims takes the proof.
    pub(super) async fn sign_in(
        &self,
        connection: &TrackerConnection,
        name: &UserName,
        proof: &Proof,
    ) -> Result<(Box<tracker_api::Session>, Secrets), Attempt> {
        // One who lost a name does not fail at the winner's claim first, each time.
        let last =
            lock(&self.candidate).clone().filter(|(last, _)| last == name).map(|(_, candidate)| candidate);
        let others = (0..MAX_CANDIDATES).filter(|candidate| Some(*candidate) != last);
        for candidate in last.into_iter().chain(others) {
            let (salt, challenge) = challenge(connection, name, candidate).await?;
            let secrets = match proof.clone() {
                Proof::Secrets(secrets) => *secrets,
                Proof::Password(password) => {
                    derive(move || Secrets::derive(password.expose(), &salt)).await?
                }
            };
            let signature = secrets.answer(&challenge, self.config.own, connection.peer());
            match connection.call(Call::Login { name: name.clone(), candidate, signature }).await? {
                Reply::Done(Answer::LoggedIn(session)) => {
                    *lock(&self.candidate) = Some((name.clone(), candidate));
                    return Ok((session, secrets));
                }
                Reply::Done(_) => return Err(CallError::Unexpected.into()),
                Reply::Refused(refusal) if refusal.kind == RefusalKind::TryNext => {}
                // That claim may be gone, or the first by now.
                Reply::Refused(refusal)
                    if refusal.kind == RefusalKind::WrongPassword
                        && candidate > 0
                        && last == Some(candidate) =>
                {
                    *lock(&self.candidate) = None;
                }
                Reply::Refused(refusal) => return Err(CallError::from(refusal).into()),
            }
        }
        Err(CallError::Unexpected.into())
    }

    /// Takes over what a tracker said about the session; without `secrets` those of before stay, and if there are none
    /// because the session was ended meanwhile, nothing is taken over.
    pub(super) fn adopt(&self, session: &tracker_api::Session, secrets: Option<Secrets>) -> Who {
        let groups = session.tickets.iter().map(|ticket| (ticket.group, ticket.name.clone())).collect();
        let who =
            Who { user: session.user, name: session.name.clone(), provisional: session.provisional, groups };
        let before = {
            let mut login = lock(&self.login);
            let (secrets, changing) = match (secrets, login.take()) {
                (Some(secrets), _) => (secrets, None),
                (None, Some(kept)) => (kept.secrets, kept.changing),
                (None, None) => return who,
            };
            let (token, account) = (session.token.clone(), session.account.clone());
            *login = Some(Login { token, secrets, changing, account });
            self.config.tickets.update(&session.tickets, &session.ticket_keys, session.now_ms);
            self.who.send_replace(Some(who.clone()))
        };
        if let Some(before) = before.filter(|before| before.user == who.user && before.name != who.name) {
            self.config.events.emit(Event::Renamed { from: before.name, to: who.name.clone() });
        }
        who
    }

    fn keys(&self) -> Option<(Secrets, Account)> {
        lock(&self.login).as_ref().map(|login| (login.secrets.clone(), login.account.clone()))
    }
}

async fn challenge(
    connection: &TrackerConnection,
    name: &UserName,
    candidate: u8,
) -> Result<([u8; SALT_BYTES], [u8; shoal_common::credentials::CHALLENGE_BYTES]), Attempt> {
    match connection.call(Call::Challenge { name: name.clone(), candidate }).await? {
        Reply::Done(Answer::Challenge { salt, challenge }) => Ok((salt, challenge)),
        Reply::Done(_) => Err(CallError::Unexpected.into()),
        Reply::Refused(refusal) => Err(CallError::from(refusal).into()),
    }
}

/// Argon2 takes some 20 ms of a core: not on the reactor.
async fn derive<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CredentialError> + Send + 'static,
) -> Result<T, CredentialError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(CredentialError::Memory))
}

/// An error that may say how long to wait before the same is worth trying again.
trait Patience {
    fn patience(&self) -> Option<Duration>;
}

impl Patience for CallError {
    fn patience(&self) -> Option<Duration> {
        match self {
            Self::Refused { kind: RefusalKind::Wait, again: Some(again), .. } => {
                Some((*again).min(LONGEST_WAIT))
            }
            _ => None,
        }
    }
}

impl Patience for LoginError {
    fn patience(&self) -> Option<Duration> {
        if let Self::Call(error) = self { error.patience() } else { None }
    }
}
