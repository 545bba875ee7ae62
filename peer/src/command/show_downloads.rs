//! `show_downloads`.

use clap::Args;
use shoal_client::ClientError;

use super::{Context, Failure, Run};
use crate::reply::Reply;
use crate::reply::{line, verbose_line, without_activity};
use crate::watch;

/// List all downloads: [D] downloading, [C] complete, [P] paused, [F] failed
///
/// -v adds percent, rate, time left, sources, and what it waits for. --watch shows live progress until nothing runs;
/// Ctrl-C ends the display, not the downloads.
#[derive(Debug, Args)]
pub struct ShowDownloads {
    /// Percent, rate, time left, sources, and what it waits for.
    #[arg(short, long)]
    verbose: bool,
    /// Live progress until nothing runs.
    #[arg(long)]
    watch: bool,
}

impl Run for ShowDownloads {
    const EXAMPLE: &'static str = "show_downloads -v";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        if context.client.whoami().user.is_none() {
            return Err(ClientError::NotLoggedIn.into());
        }
        if self.watch {
            watch::downloads(&context.client, &context.screen).await?;
        }
        let rows = context.client.downloads();
        if self.verbose {
            return Ok(Reply::list("downloads", &rows, NONE, verbose_line));
        }
        Ok(Reply::list("downloads", &without_activity(rows), NONE, line))
    }
}

const NONE: &str = "there are no downloads";
