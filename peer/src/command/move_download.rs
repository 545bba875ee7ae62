//! `move_download`.

use std::path::PathBuf;

use clap::Args;

use super::args::{FileArgs, path};
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};
use crate::watch;

/// Move a finished download to another folder; it stays shared
///
/// On the same drive it is renamed. Otherwise it is copied, compared, and only then removed. Nothing is replaced. A folder that
/// ends in / is made.
#[derive(Debug, Args)]
pub struct MoveDownload {
    #[command(flatten)]
    file: FileArgs,
    /// Where it goes.
    #[arg(value_name = "folder", value_parser = path)]
    destination: PathBuf,
}

impl Run for MoveDownload {
    const EXAMPLE: &'static str = "move_download holidays beach.zip ~/archive/";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let folder = context.path(self.destination)?;
        let moved = context.client.move_download(&file, folder);
        let path = watch::hashing(&context.client, &context.screen, moved).await?;
        Ok(Reply::new(format!("{} is at {} now", file.file, shown(&path)), &file).with("path", &path))
    }
}
