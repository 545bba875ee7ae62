//! `create_user`.

use clap::Args;
use shoal_common::{Password, UserName};
use shoal_console::secrets::given_password;
use shoal_session::text::quoted;

use super::args::password;
use super::context::note;
use super::{Context, Failure, Run};
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

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let asked = context.attended && self.password.is_none() && given_password().is_none();
        let password = context.new_password(self.password, true).await?;
        if !context.accepts(&password, self.user.as_str(), asked).await? {
            return Err(Failure::Wrong("no account was created; choose another password".to_owned()));
        }
        let created = context.client.create_user(self.user, password.clone(), self.invite).await?;
        let (user, note) = (&created.user, note(created.provisional));
        let text = format!("user {user} created{note}");
        let at_prompt = asked && context.screen.form() == Form::Prompt;
        if at_prompt && context.client.whoami().user.is_none() {
            context.screen.out(&text)?;
            if context.confirm(format!("Log in as {user} now?"), true).await? {
                let login = context.client.login(user.clone(), password).await?;
                return Ok(Reply::new(format!("logged in as {}", login.user), &login));
            }
        }
        Ok(Reply::new(format!("{text}; log in with: login {}", quoted(user.as_str())), &created))
    }
}
