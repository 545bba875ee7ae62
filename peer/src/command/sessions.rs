//! `sessions`.

use clap::Args;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// List the clients on which this account is logged in now
#[derive(Debug, Args)]
pub struct Sessions {}

impl Run for Sessions {
    const EXAMPLE: &'static str = "sessions";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let sessions = context.client.sessions().await?;
        Ok(Reply::list("sessions", &sessions, "no client is logged in", |entry| {
            let own = if entry.own { "  (this client)" } else { "" };
            format!("{}  {}{own}", entry.peer, entry.address)
        }))
    }
}
