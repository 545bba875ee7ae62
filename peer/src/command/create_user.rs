//! `create_user`.

use clap::Args;
use shoal_common::{Password, UserName};
use shoal_session::text::quoted;

use super::args::password;
use super::context::{NewPassword, note};
use super::login::logged_in;
use super::{Context, Failure, Run, Secret};
use crate::reply::Reply;
use crate::screen::Form;

/// Create an account; asks for the password when it is left out
///
/// The password never leaves this machine, and nobody can recover it. Where accounts are made by invitation, a tracker's
/// operator gives a code.
#[derive(Debug, Args)]
pub struct CreateUser {
    /// Its name.
    #[arg(value_name = "user_id", value_parser = UserName::create)]
    user: UserName,
    /// Its password.
    #[arg(value_name = "password", value_parser = password)]
    password: Option<Password>,
    /// The code of an invitation.
    #[arg(long, value_name = "code")]
    invite: Option<String>,
}

impl Run for CreateUser {
    const EXAMPLE: &'static str = "create_user ann";

    fn asks(&self) -> &'static [Secret] {
        if self.password.is_none() { &[Secret::New] } else { &[] }
    }

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let NewPassword { password, asked } = context.new_password(&self.user, self.password, true).await?;
        let created = context.client.create_user(self.user, password.clone(), self.invite).await?;
        let (user, note) = (&created.user, note(created.provisional));
        let text = format!("user {user} was created{note}");
        let at_prompt = asked && context.screen.form() == Form::Prompt;
        if at_prompt && context.client.whoami().user.is_none() {
            context.screen.out(&text)?;
            if context.confirm(format!("Log in as {user} now?"), true).await? {
                return Ok(logged_in(&context.client.login(user.clone(), password).await?));
            }
        }
        Ok(Reply::new(format!("{text}; log in with: login {}", quoted(user.as_str())), &created))
    }
}
