//! `whoami`.

use clap::Args;

use shoal_session::text;

use super::context::note;
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};

/// Show who is logged in, and where
#[derive(Debug, Args)]
pub struct Whoami {}

impl Run for Whoami {
    const EXAMPLE: &'static str = "whoami";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let who = context.client.greeted().await;
        let user = match &who.user {
            Some(user) => format!("{user}{}", note(who.provisional)),
            None if context.client.goes_on() => {
                "nobody is logged in yet; the kept session goes on once a tracker answers".to_owned()
            }
            None => "nobody is logged in".to_owned(),
        };
        let tracker = who.tracker.as_deref().unwrap_or("none answers");
        let folder = shown(&who.data_dir);
        let reached = match (&who.given_out, who.reached) {
            (None, _) => String::new(),
            (Some(at), Some(true)) => format!("\nothers reach it at {at}"),
            (Some(at), None) if who.reached_there() => format!("\nothers are told to reach it at {at}"),
            (Some(at), reached) => format!("\n{}", text::unreached(at, reached.is_none(), who.relays)),
        };
        let text = format!(
            "{user}\naddress {}{reached}\ntracker {tracker}\npeer id {}\ndata in {folder}",
            who.address, who.peer
        );
        Ok(Reply::new(text, &who))
    }
}
