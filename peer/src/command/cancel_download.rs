//! `cancel_download`.

use clap::Args;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Abandon a download, or take a finished one off the list
///
/// An unfinished file is removed; a finished one stays, and stays shared.
#[derive(Debug, Args)]
pub struct CancelDownload {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for CancelDownload {
    const EXAMPLE: &'static str = "cancel_download holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let text = if context.client.cancel(&file).await? {
            format!("{} is off the list; the file stays", file.file)
        } else {
            format!("the download of {} is cancelled", file.file)
        };
        Ok(Reply::new(text, &file))
    }
}
