//! `change_password`.

use clap::Args;
use shoal_client::ClientError;
use shoal_common::Password;

use super::args::password;
use super::{Context, Failure, Run, Secret};
use crate::reply::Reply;

/// Change the password; asks for what is left out
///
/// All other sessions of the account end. In a script SHOAL_PASSWORD stands in for the new password.
#[derive(Debug, Args)]
pub struct ChangePassword {
    /// The present one, which a person at a terminal is asked for, and the new one.
    #[arg(value_names = ["old_password", "new_password"], num_args = 0..=2, value_parser = password)]
    #[arg(id = "password")]
    passwords: Vec<Password>,
}

impl Run for ChangePassword {
    const EXAMPLE: &'static str = "change_password";

    fn asks(&self) -> &'static [Secret] {
        match self.passwords.len() {
            0 => &[Secret::Old, Secret::New],
            1 => &[Secret::Old],
            _ => &[],
        }
    }

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let mut typed = self.passwords.into_iter().rev();
        let (new, old) = (typed.next(), typed.next());
        let user = context.client.whoami().user.ok_or(ClientError::NotLoggedIn)?;
        let old = match old {
            None => context.old_password(new.is_some()).await?,
            old => old,
        };
        // Who changes a password at a terminal means to type the new one.
        let new = context.new_password(&user, new, !context.attended).await?;
        let kept = context.client.change_password(old, new.password).await?;
        let mut text = "the password is changed; all other sessions of the account ended".to_owned();
        if kept {
            text += "; this one no longer outlives a restart: login <user_id> --keep";
        }
        Ok(Reply { text, ..Reply::default() })
    }
}
