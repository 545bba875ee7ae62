//! `pause_download`.

use clap::Args;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Pause a download; what was downloaded is kept
#[derive(Debug, Args)]
pub struct PauseDownload {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for PauseDownload {
    const EXAMPLE: &'static str = "pause_download holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        context.client.pause(&file).await?;
        Ok(Reply::new(format!("{} is paused; go on with resume_download", file.file), &file))
    }
}
