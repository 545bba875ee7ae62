//! `relocate`.

use std::path::PathBuf;

use clap::Args;

use super::args::{FileArgs, path};
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};
use crate::watch;

/// Say where a shared file is now, after it was moved or renamed
///
/// It is read once, because only the same content is shared under the name that it has in the group.
#[derive(Debug, Args)]
pub struct Relocate {
    #[command(flatten)]
    file: FileArgs,
    /// Where it is now.
    #[arg(value_name = "file_path", value_parser = path)]
    path: PathBuf,
}

impl Run for Relocate {
    const EXAMPLE: &'static str = "relocate holidays beach.zip ~/pictures/beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let new = context.path(self.path)?;
        let relocated = context.client.relocate(&file, &new);
        let path = watch::hashing(&context.client, &context.screen, relocated).await?;
        let text = format!("{} is shared in {} from {}", file.file, file.group, shown(&path));
        Ok(Reply::new(text, &file).with("path", &path))
    }
}
