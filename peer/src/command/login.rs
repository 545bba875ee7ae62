//! `login`.

use clap::Args;
use shoal_client::LoggedIn;
use shoal_common::{Password, UserName};
use shoal_session::text::count;

use super::args::password;
use super::context::note;
use super::{Context, Failure, Run, Secret};
use crate::reply::Reply;

/// Log in; shares and downloads continue where they stopped
///
/// Files that were shared before are checked, and shared again if they are there and unchanged. --keep writes the session and its
/// keys into the data folder, so that a client that is started again is logged in. Who copies that file is you until the password is
/// another one.
#[derive(Debug, Args)]
pub struct Login {
    /// The account.
    #[arg(value_name = "user_id", value_parser = UserName::refer)]
    user: UserName,
    /// Its password; asked for when it is left out.
    #[arg(value_name = "password", value_parser = password)]
    password: Option<Password>,
    /// Stay logged in over restarts.
    #[arg(long)]
    keep: bool,
}

impl Run for Login {
    const EXAMPLE: &'static str = "login ann";

    fn asks(&self) -> &'static [Secret] {
        if self.password.is_none() { &[Secret::Present] } else { &[] }
    }

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let password = context.present_password(self.password).await?;
        let mut reply = logged_in(&context.client.login(self.user, password).await?);
        if self.keep {
            context.client.keep_session().await?;
            reply.text += "; stays so over restarts, until logout or change_password";
        }
        Ok(reply)
    }
}

/// What is said of a login.
pub(super) fn logged_in(login: &LoggedIn) -> Reply {
    let mut text = format!("logged in as {}{}", login.user, note(login.provisional));
    if let Some(typed) = &login.typed {
        text += &format!(" ({typed} was taken by an earlier claim; this account goes on as {})", login.user);
    }
    if login.shares > 0 {
        text += &format!("; sharing {}", count(login.shares, "file"));
    }
    if login.downloads > 0 {
        text += &format!("; going on with {}", count(login.downloads, "download"));
    }
    Reply::new(text, login)
}
