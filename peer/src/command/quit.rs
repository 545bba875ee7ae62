//! `quit`.

use clap::Args;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Leave; unfinished downloads continue after the next login (Ctrl-D does the same)
#[derive(Debug, Args)]
pub struct Quit {}

impl Run for Quit {
    const EXAMPLE: &'static str = "quit";

    async fn run(self, _: &Context) -> Result<Reply, Failure> {
        Ok(Reply::default())
    }
}
