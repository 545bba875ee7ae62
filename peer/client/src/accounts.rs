//! Accounts and sessions.

use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call, QuotaAnswer, SessionEntry};
use shoal_common::{GroupName, Password, PeerId, RequestId, Uid, UserName};
use shoal_session::{LoginError, text};

use crate::client::unexpected;
use crate::results::{ClientForgotten, LoggedIn, LoggedOut, UserCreated, WhoAmI};
use crate::store::StoreError;
use crate::{Client, ClientError};

/// How long after its start a client that has found no tracker is not yet reported as having none.
const GREETING: Duration = Duration::from_millis(1_500);

/// How long a logout waits for a tracker to take that the kept session is over.
const SIGN_OUT_WITHIN: Duration = Duration::from_secs(3);

impl Client {
    /// Creates an account; `invitation` is the code that an operator gave, where one is needed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_user(
        &self,
        user: UserName,
        password: Password,
        invitation: Option<String>,
    ) -> Result<UserCreated, ClientError> {
        let provisional = self.0.session.create_user(user.clone(), password, invitation).await?;
        Ok(UserCreated { user, provisional })
    }

    /// Begins a session; shares and downloads go on. For the user who is logged in, only the password is checked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn login(&self, user: UserName, password: Password) -> Result<LoggedIn, ClientError> {
        let _session_change = self.0.session_change.lock().await;
        if let Some(who) = self.0.session.who() {
            if who.name != user {
                return Err(ClientError::LoggedIn(who.name));
            }
            // The session goes on; a wrong password is an error all the same.
            if !self.0.session.is_password(password).await? {
                return Err(LoginError::OtherPassword(user).into());
            }
            return Ok(LoggedIn { user, provisional: who.provisional, typed: None, shares: 0, downloads: 0 });
        }
        // The end of the session before may not have been noticed yet.
        self.suspend().await;
        let who = self.0.session.login(user.clone(), password).await?;
        // Another user's session does not come back in place of this one, nor one of which nothing is known.
        if self.keeps_session() && self.kept_user().is_none_or(|kept| kept != who.name) {
            self.forget_kept();
        }
        let (shares, downloads) = self.restore(who.user).await?;
        let typed = (who.name != user).then_some(user);
        Ok(LoggedIn { user: who.name, provisional: who.provisional, typed, shares, downloads })
    }

    /// Ends the session, one that is kept too. It goes on ending when the future is dropped.
    ///
    /// # Errors
    /// When nobody is logged in.
    pub async fn logout(&self) -> Result<LoggedOut, ClientError> {
        let kept = self.kept_user();
        let was_kept = self.forget_kept();
        let user = match (self.who(), kept) {
            (Ok(who), _) => who.name,
            // It waits for a tracker yet.
            (Err(_), Some(user)) if was_kept => user,
            (Err(error), _) => return Err(error),
        };
        let client = self.clone();
        let ended = self.0.tasks.spawn(async move {
            let untold = was_kept && !client.void_copies().await;
            client.end_session().await;
            untold
        });
        // A task that was stopped has told nobody.
        let untold = ended.await.unwrap_or(was_kept);
        Ok(LoggedOut { user, peer: None, untold })
    }

    /// Ends on every tracker what a copy of the kept session could go on with by its token; whether a tracker took that.
    async fn void_copies(&self) -> bool {
        let out = Call::SignOut { request: RequestId::random(), peer: self.peer_id() };
        let done = tokio::time::timeout(SIGN_OUT_WITHIN, self.0.session.call(out)).await;
        matches!(done, Ok(Ok(_)))
    }

    /// Ends the account's session on another client, or this one's where that is meant. `client` is the end of its key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sign_out(&self, user: UserName, client: &str) -> Result<LoggedOut, ClientError> {
        if user != self.who()?.name {
            return Err(ClientError::OthersSession(user));
        }
        let peer = match client.parse::<PeerId>() {
            // One that is not online now can be meant too.
            Ok(peer) => peer,
            Err(_) => self.session_ending_in(client).await?,
        };
        if peer == self.peer_id() {
            return self.logout().await;
        }
        self.0.session.call(Call::SignOut { request: RequestId::random(), peer }).await?;
        Ok(LoggedOut { user, peer: Some(peer), untold: false })
    }

    async fn session_ending_in(&self, tail: &str) -> Result<PeerId, ClientError> {
        let sessions = self.sessions().await?;
        let mut meant = sessions.iter().filter(|entry| entry.peer.to_string().ends_with(tail));
        match (meant.next(), meant.next()) {
            (Some(entry), None) => Ok(entry.peer),
            (None, _) => Err(ClientError::NoSession(text::short(tail))),
            (Some(_), Some(_)) => Err(ClientError::SeveralSessions(text::short(tail))),
        }
    }

    /// The clients on which the account is logged in now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sessions(&self) -> Result<Vec<SessionEntry>, ClientError> {
        self.who()?;
        match self.0.session.call(Call::Sessions).await? {
            Answer::Sessions(sessions) => Ok(sessions
                .into_iter()
                .map(|entry| SessionEntry { address: text::printable(&entry.address), ..entry })
                .collect()),
            _ => unexpected(),
        }
    }

    /// Replaces the password; all other sessions of the account end, and a session that is kept here is forgotten. Without `old`
    /// the session is proof enough. Gives whether a session was kept.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change_password(&self, old: Option<Password>, new: Password) -> Result<bool, ClientError> {
        self.who()?;
        self.0.session.change_password(old, new).await?;
        Ok(self.forget_kept())
    }

    /// What the account, or a group, has and may have.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn quota(&self, group: Option<&GroupName>) -> Result<QuotaAnswer, ClientError> {
        self.who()?;
        match self.0.session.call(Call::Quota { group: group.cloned() }).await? {
            Answer::Quota(quota) => Ok(*quota),
            _ => unexpected(),
        }
    }

    /// Takes back what the account shared on a client that is lost; `client` is the end of its key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn forget_client(&self, client: &str) -> Result<ClientForgotten, ClientError> {
        let clients = self.quota(None).await?.clients.unwrap_or_default();
        let mut meant = clients.iter().filter(|one| one.peer.to_string().ends_with(client));
        let peer = match (meant.next(), meant.next()) {
            (Some(one), None) => one.peer,
            (None, _) => return Err(ClientError::NoSharesOn(text::short(client))),
            (Some(_), Some(_)) => return Err(ClientError::SeveralClients(text::short(client))),
        };
        let mut files: u64 = 0;
        loop {
            let call = Call::ForgetClient { request: RequestId::random(), peer };
            let Answer::Forgotten { shares, more } = self.0.session.call(call).await? else {
                return unexpected();
            };
            files += u64::from(shares);
            if !more || shares == 0 {
                return Ok(ClientForgotten { peer, files });
            }
        }
    }

    /// [`Client::whoami`], after a first tracker had time to answer.
    pub async fn greeted(&self) -> WhoAmI {
        self.reached(GREETING.saturating_sub(self.0.started.elapsed())).await;
        self.whoami()
    }

    /// Lets shares and downloads go on; gives their numbers. It goes on when the future is dropped.
    pub(crate) async fn restore(&self, user: Uid) -> Result<(usize, usize), ClientError> {
        let client = self.clone();
        let restored = self.0.tasks.spawn(async move {
            let shared = client.0.shares.restore(user).await?;
            Ok::<_, StoreError>((shared, client.0.transfers.restore(user).await?))
        });
        match restored.await {
            Ok(restored) => Ok(restored?),
            // The client leaves.
            Err(_) => Err(ClientError::NotLoggedIn),
        }
    }
}
