//! `limit_download`.

use clap::Args;
use shoal_session::text::size;

use super::args::{FileArgs, rate};
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Limit the rate of one download in bytes per second; 0 for no limit of its own
///
/// RATE may end in K, M or G (1024, 1024 squared, 1024 cubed). The limit is kept over restarts. That of all downloads (limit down)
/// holds besides.
#[derive(Debug, Args)]
pub struct LimitDownload {
    #[command(flatten)]
    file: FileArgs,
    /// Bytes per second.
    #[arg(value_name = "RATE", value_parser = rate)]
    rate: u64,
}

impl Run for LimitDownload {
    const EXAMPLE: &'static str = "limit_download holidays beach.zip 500K";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let limit = Some(self.rate).filter(|&rate| rate > 0);
        context.client.set_download_limit(&file, limit).await?;
        let text = match limit {
            Some(rate) => format!("{} takes {}/s at most", file.file, size(rate)),
            None => format!("{} has no limit of its own", file.file),
        };
        Ok(Reply::new(text, &file).with("limit", &self.rate))
    }
}
