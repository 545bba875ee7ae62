//! `login --keep`: the session lies in a file in the data folder, and the client goes on with it by itself after a restart. The
//! file goes when the session ends by a logout, here or elsewhere, or by a changed password.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use shoal_common::UserName;
use shoal_common::tracker_api::RefusalKind;
use shoal_console::read_key;
use shoal_session::events::Event;
use shoal_session::{CallError, Kept, LoginError};
use tokio::time::Instant;

use crate::files::{SESSION_FILE, wipe};
use crate::{Client, ClientError};

/// How long trackers must refuse the keys before the session is over: one that was just started may still be catching up.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The pause before the trackers are asked again, and the longest one.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// How long is waited for a tracker at a time, outside of any lock.
const TRACKER_WITHIN: Duration = Duration::from_secs(60);
const CHANGED: &str = "the account's password was changed elsewhere; log in again with the new one";

impl Client {
    /// Keeps the present session over restarts, until a logout or a changed password.
    ///
    /// # Errors
    /// When nobody is logged in, or the file cannot be written.
    pub async fn keep_session(&self) -> Result<(), ClientError> {
        let bytes = self.0.session.keep().ok_or(ClientError::NotLoggedIn)?;
        let path = self.kept_path();
        let written = tokio::task::spawn_blocking({
            let path = path.clone();
            move || shoal_disk::replace(&path, &bytes)
        });
        let written = written.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        written.map_err(|error| ClientError::NotKept { path, error })
    }

    /// Whether a session is kept over restarts.
    #[must_use]
    pub fn keeps_session(&self) -> bool {
        self.kept_path().exists()
    }

    /// Waits until the session that was kept over the last end goes on, or cannot; at once where none was.
    pub async fn gone_on(&self) {
        // The sender lives as long as the client.
        let _ = self.0.going_on.subscribe().wait_for(|going_on| !going_on).await;
    }

    /// Whether a session that was kept over the last end is still tried.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        *self.0.going_on.borrow()
    }

    /// Whose session is kept, if it can be read.
    pub(crate) fn kept_user(&self) -> Option<UserName> {
        Some(Kept::read(&read_key(&self.kept_path(), "the kept session").ok()?)?.name)
    }

    /// Forgets the kept session; whether there was one.
    pub(crate) fn forget_kept(&self) -> bool {
        let path = self.kept_path();
        // A crash may have left some that were being written.
        let mut all = shoal_disk::drafts(&path);
        all.push(path.clone());
        let wiped = all.iter().map(|one| wipe(one)).collect::<std::io::Result<Vec<bool>>>();
        match wiped.map(|were| were.contains(&true)) {
            Ok(was) => was,
            Err(error) => {
                tracing::error!(
                    "cannot remove the kept session {}: {error}; remove it by hand",
                    path.display()
                );
                true
            }
        }
    }

    fn kept_path(&self) -> PathBuf {
        self.0.config.data_dir.path().join(SESSION_FILE)
    }
}

/// Goes on with the session that was kept, as soon as a tracker answers; ends when there is a session or none to go on with.
pub(crate) async fn run(client: Client) {
    go_on(&client).await;
    client.0.going_on.send_replace(false);
}

async fn go_on(client: &Client) {
    let mut refused = None;
    let mut pause = AGAIN;
    while client.0.session.who().is_none() && client.keeps_session() {
        if !client.0.session.reached(TRACKER_WITHIN).await {
            continue;
        }
        match attempt(client).await {
            Ok(()) => return,
            Err(LoginError::Call(CallError::Refused { kind: RefusalKind::SignedOut, text, .. })) => {
                return over(client, &text);
            }
            Err(LoginError::Call(CallError::Refused { kind: RefusalKind::WrongPassword, .. })) => {
                let since = *refused.get_or_insert_with(Instant::now);
                if since.elapsed() >= REFUSED_FOR {
                    return over(client, CHANGED);
                }
                // Three tries: a tracker counts wrong ones, and lets nobody in from here for a while after more.
                tokio::time::sleep(REFUSED_FOR / 2).await;
                continue;
            }
            Err(error) => {
                refused = None;
                tracing::warn!("cannot go on with the kept session yet: {error}");
                pause = (pause * 2).min(LONGEST);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// One try, while no other session can begin or end.
async fn attempt(client: &Client) -> Result<(), LoginError> {
    let _session_change = client.0.session_change.lock().await;
    if client.0.session.who().is_some() || !client.keeps_session() {
        return Ok(());
    }
    let path = client.kept_path();
    let Some(kept) = read_key(&path, "the kept session").ok().and_then(|bytes| Kept::read(&bytes)) else {
        let reason = "cannot be read, or others may read it; log in again with --keep".to_owned();
        client.0.events.emit(Event::NotResumed { file: path, reason });
        return Ok(());
    };
    let who = client.0.session.resume(&kept).await?;
    // With a fresh token, which holds for longer.
    if let Err(error) = client.keep_session().await {
        tracing::warn!("{error}");
    }
    client.0.events.emit(Event::Resumed { user: who.name });
    if let Err(error) = client.restore(who.user).await {
        tracing::error!("shares and downloads do not go on: {error}");
    }
    Ok(())
}

fn over(client: &Client, reason: &str) {
    let user = client.kept_user();
    client.forget_kept();
    if let Some(user) = user {
        client.0.events.emit(Event::SessionEnded { user, reason: reason.to_owned() });
    }
}
