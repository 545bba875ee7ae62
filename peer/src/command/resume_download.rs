//! `resume_download`.

use clap::Args;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Continue a paused or failed download
///
/// One that waits for something that is lacking tries again at once. If its partial file is gone, it starts again from the
/// beginning.
#[derive(Debug, Args)]
pub struct ResumeDownload {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for ResumeDownload {
    const EXAMPLE: &'static str = "resume_download holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let resumed = context.client.resume(&file).await?;
        let how = if resumed.restarted { "from the beginning: its partial file was gone" } else { "again" };
        let waits = resumed.waits.as_ref().map(|waits| format!("; {waits}")).unwrap_or_default();
        let reply = Reply::new(format!("downloading {} {how}{waits}", file.file), &resumed);
        Ok(reply.with("group", &file.group).with("file", &file.file))
    }
}
