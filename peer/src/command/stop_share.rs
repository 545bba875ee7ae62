//! `stop_share`.

use clap::Args;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Stop sharing a file; the file itself stays
///
/// During its download it stops uploading, and the finished download is not shared.
#[derive(Debug, Args)]
pub struct StopShare {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for StopShare {
    const EXAMPLE: &'static str = "stop_share holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        context.client.stop_share(&file).await?;
        Ok(Reply::new(format!("{} is not shared in {} any more", file.file, file.group), &file))
    }
}
