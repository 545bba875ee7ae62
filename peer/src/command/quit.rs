//! `quit`.

use clap::Args;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Leave; unfinished downloads continue after the next login (Ctrl-D does the same)
#[derive(Debug, Args)]
pub struct Quit {}

impl Run for Quit {
    const EXAMPLE: &'static str = "quit";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let text = match context.caller {
            Some(_) => "the daemon ends; shares and downloads go on when it is started and you are logged in",
            None => "",
        };
        Ok(Reply { text: text.to_owned(), ..Reply::default() })
    }
}
