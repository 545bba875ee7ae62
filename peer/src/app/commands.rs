//! The commands, by family; [`App::execute`] knows which belongs where.

use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{GroupName, PeerId, RequestId, Uid, UserName};
use tokio::time::Instant;

use super::{App, AppError, LIMIT_DOWN, LIMIT_UP, Output, unexpected};
use crate::command::{Command, Direction, FileRef};
use crate::shares::{self, ShareError};
use crate::store::StoreError;
use crate::{text, transfers};

/// How long after its start a client that has found no tracker yet is not said to have none.
const GREETING: Duration = Duration::from_millis(1_500);

impl App {
    pub(super) async fn account(&self, command: Command) -> Result<Output, AppError> {
        let session = &self.0.session;
        match command {
            Command::CreateUser { user, password, invitation } => {
                let password = password.ok_or(AppError::NoPassword)?;
                let provisional = session.create_user(user.clone(), password, invitation).await?;
                Ok(Output::UserCreated { user, provisional })
            }
            Command::Login { user, password } => {
                let _gate = self.0.gate.lock().await;
                if let Some(who) = session.who() {
                    return Err(AppError::LoggedIn(who.name));
                }
                let who = session.login(user.clone(), password.ok_or(AppError::NoPassword)?).await?;
                let (shares, downloads) = self.restore(who.user).await?;
                let typed = (who.name != user).then_some(user);
                Ok(Output::LoggedIn {
                    user: who.name,
                    provisional: who.provisional,
                    typed,
                    shares,
                    downloads,
                })
            }
            Command::Logout => {
                let user = session.who().ok_or(AppError::NotLoggedIn)?.name;
                let app = self.clone();
                // Whoever gives up waiting does not leave the session half ended.
                let _ = self.0.tasks.spawn(async move { app.end_session().await }).await;
                Ok(Output::LoggedOut { user })
            }
            Command::ChangePassword { old, new } => {
                session.change_password(old, new.ok_or(AppError::NoPassword)?).await?;
                Ok(Output::PasswordChanged)
            }
            _ => {
                // The first command of a script comes before the first connection.
                session.reached(GREETING.saturating_sub(self.0.started.elapsed())).await;
                Ok(Output::WhoAmI(Box::new(self.whoami())))
            }
        }
    }

    /// Ends the account's session on another client, or this one's where that is meant.
    pub(super) async fn sign_out(&self, user: UserName, client: &str) -> Result<Output, AppError> {
        let who = self.0.session.who().ok_or(AppError::NotLoggedIn)?;
        if user != who.name {
            return Err(AppError::OthersSession(user));
        }
        let peer = match client.parse::<PeerId>() {
            // One that is not online now can be meant too.
            Ok(peer) => peer,
            Err(_) => {
                let sessions = self.sessions().await?;
                let mut meant = sessions.iter().filter(|entry| entry.peer.to_string().ends_with(client));
                match (meant.next(), meant.next()) {
                    (Some(entry), None) => entry.peer,
                    (None, _) => return Err(AppError::NoSession(text::short(client))),
                    (Some(_), Some(_)) => return Err(AppError::SeveralSessions(text::short(client))),
                }
            }
        };
        if peer == self.peer_id() {
            self.end_session().await;
            return Ok(Output::LoggedOut { user });
        }
        self.0.session.call(Call::SignOut { request: RequestId::random(), peer }).await?;
        Ok(Output::SignedOut { user, peer })
    }

    /// Takes back what the account shared on a client that is lost.
    pub(super) async fn forget_client(&self, client: &str) -> Result<Output, AppError> {
        let clients = self.quota(None).await?.clients.unwrap_or_default();
        let mut meant = clients.iter().filter(|one| one.peer.to_string().ends_with(client));
        let peer = match (meant.next(), meant.next()) {
            (Some(one), None) => one.peer,
            (None, _) => return Err(AppError::NoSharesOn(text::short(client))),
            (Some(_), Some(_)) => return Err(AppError::SeveralClients(text::short(client))),
        };
        let mut files: u64 = 0;
        loop {
            let call = Call::ForgetClient { request: RequestId::random(), peer };
            let Answer::Forgotten { shares, more } = self.0.session.call(call).await? else {
                return unexpected();
            };
            files += u64::from(shares);
            if !more || shares == 0 {
                return Ok(Output::ClientForgotten { peer, files });
            }
        }
    }

    /// Lets shares and downloads go on; gives their numbers. Whoever gives up waiting does not stop it.
    async fn restore(&self, user: Uid) -> Result<(usize, usize), AppError> {
        let app = self.clone();
        let restored = self.0.tasks.spawn(async move {
            let shared = app.0.shares.restore(user).await?;
            Ok::<_, StoreError>((shared, app.0.transfers.restore(user).await?))
        });
        match restored.await {
            Ok(restored) => Ok(restored?),
            // The client leaves.
            Err(_) => Err(AppError::NotLoggedIn),
        }
    }

    pub(super) async fn group(&self, command: Command) -> Result<Output, AppError> {
        let session = &self.0.session;
        let request = RequestId::random();
        match command {
            Command::CreateGroup(name) => {
                let founder = session.who().ok_or(AppError::NotLoggedIn)?.user;
                let call = Call::create_group(founder, name.clone()).1;
                let Answer::Created { provisional } = session.call(call).await? else { return unexpected() };
                // The owner's ticket; without it the next renewal brings it.
                let _ = session.renew().await;
                Ok(Output::GroupCreated { group: name, provisional })
            }
            Command::JoinGroup(group) => {
                session.call(Call::JoinGroup { request, group: group.clone() }).await?;
                Ok(Output::JoinRequested(group))
            }
            Command::LeaveGroup(group) => {
                self.leave_group(request, &group).await?;
                Ok(Output::Left(group))
            }
            Command::ListMembers(group) => {
                let members = |after| Call::ListMembers { group: group.clone(), after };
                Ok(Output::Members { users: self.users(members).await?, group })
            }
            Command::ListRequests(group) => {
                let requests = |after| Call::ListRequests { group: group.clone(), after };
                Ok(Output::Requests { users: self.users(requests).await?, group })
            }
            Command::Decide { group, user, accept } => {
                let call = Call::Decide { request, group: group.clone(), user: user.clone(), accept };
                session.call(call).await?;
                Ok(Output::Decided { group, user, accepted: accept })
            }
            _ => Ok(Output::Groups(self.groups().await?)),
        }
    }

    /// Leaves a group; what was shared in it is not served any more, and what is downloaded from it ends.
    async fn leave_group(&self, request: RequestId, group: &GroupName) -> Result<(), AppError> {
        let who = self.0.session.who().ok_or(AppError::NotLoggedIn)?;
        self.0.session.call(Call::LeaveGroup { request, group: group.clone() }).await?;
        if let Some(gid) = shares::gid(&who, group) {
            self.0.transfers.leave(gid).await;
            self.0.shares.leave(who.user, gid).await?;
        }
        // The tickets of the other groups; without them the next renewal brings them.
        let _ = self.0.session.renew().await;
        Ok(())
    }

    pub(super) async fn stop_share(&self, file: FileRef) -> Result<Output, AppError> {
        let who = self.0.session.who().ok_or(AppError::NotLoggedIn)?;
        let key = match self.0.shares.find(&who, &file).await?.or_else(|| self.0.transfers.key_of(&file)) {
            Some(key) => key,
            // It may be shared here under another name than it goes by now.
            None => self.find(&file).await?,
        };
        let downloading = self.0.transfers.stop_share(who.user, key).await?;
        let shared = self.0.shares.stop(who.user, key).await?;
        if downloading || shared {
            Ok(Output::ShareStopped(file))
        } else {
            Err(ShareError::NotShared(file).into())
        }
    }

    pub(super) async fn download(&self, command: Command) -> Result<Output, AppError> {
        let transfers = &self.0.transfers;
        match command {
            Command::DownloadFile { file, destination, overwrite } => {
                let begun = transfers.begin(file, destination, overwrite, &self.0.hashing).await?;
                let transfers::Begun { file, path, sharers, complete, waits } = begun;
                Ok(Output::Download { file, path, sharers, complete, waits })
            }
            Command::PauseDownload(file) => {
                transfers.pause(&file).await?;
                Ok(Output::DownloadPaused(file))
            }
            Command::ResumeDownload(file) => {
                let transfers::Resumed { anew, waits } = transfers.resume(&file).await?;
                Ok(Output::DownloadResumed { file, anew, waits })
            }
            Command::CancelDownload(file) => {
                let complete = transfers.cancel(&file).await?;
                Ok(Output::DownloadCancelled { file, complete })
            }
            Command::Wait(limit) => self.wait(limit).await,
            Command::ShowDownloads { verbose, .. } => {
                Ok(Output::Downloads { rows: transfers.rows(), verbose })
            }
            _ => Ok(Output::Downloads { rows: transfers.rows(), verbose: false }),
        }
    }

    async fn wait(&self, limit: Option<Duration>) -> Result<Output, AppError> {
        let begun = Instant::now();
        let idle = self.0.transfers.idle();
        match limit {
            None => idle.await,
            Some(limit) => {
                if tokio::time::timeout(limit, idle).await.is_err() {
                    return Err(AppError::StillRunning {
                        running: self.0.transfers.running(),
                        waited: limit,
                    });
                }
            }
        }
        let failed = self.0.transfers.take_failures();
        if failed.is_empty() {
            Ok(Output::Waited { took: begun.elapsed() })
        } else {
            Err(AppError::DownloadsFailed(failed))
        }
    }

    pub(super) async fn limit(&self, direction: Direction, rate: Option<u64>) -> Result<Output, AppError> {
        let setting = match direction {
            Direction::Up => {
                self.0.swarm.set_upload_limit(rate);
                LIMIT_UP
            }
            Direction::Down => {
                self.0.engine.set_download_limit(rate);
                LIMIT_DOWN
            }
        };
        self.0.store.set_setting(setting, rate.unwrap_or(0).to_string()).await?;
        Ok(Output::LimitSet { direction, rate })
    }
}
