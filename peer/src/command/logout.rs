//! `logout`.

use clap::Args;
use shoal_common::UserName;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Stop sharing, pause downloads and log out; or log out another client of the account
///
/// The command sessions shows the clients. The last characters of a client's key are enough if only one has them. Anyone
/// who knows the password can log in there again; change_password ends that.
#[derive(Debug, Args)]
pub struct Logout {
    /// Another client of the account.
    #[arg(value_name = "user_id>@<client", value_parser = other_client)]
    which: Option<(UserName, String)>,
}

impl Run for Logout {
    const EXAMPLE: &'static str = "logout ann@hJk4Qz7P";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let ended = match self.which {
            None => context.client.logout().await?,
            Some((user, client)) => context.client.sign_out(user, &client).await?,
        };
        let user = &ended.user;
        let text = match ended.peer {
            None if ended.untold => format!(
                "{user} is logged out here; no tracker was told, so a copy of the kept session is still good: if there may be one, \
                 change the password"
            ),
            None => format!("{user} is logged out"),
            Some(peer) => format!(
                "{user} is logged out on {peer}; anyone who knows the password can log in there again"
            ),
        };
        Ok(Reply::new(text, &ended))
    }
}

fn other_client(typed: &str) -> Result<(UserName, String), String> {
    // A user id may hold an @, a key never does.
    let Some((user, client)) = typed.rsplit_once('@').filter(|(_, client)| !client.is_empty()) else {
        return Err("logout ends this client's session; another one's is named <user_id>@<client>".to_owned());
    };
    let user = UserName::refer(user).map_err(|error| error.to_string())?;
    Ok((user, client.to_owned()))
}
