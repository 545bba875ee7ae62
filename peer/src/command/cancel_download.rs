//! `cancel_download`.

use clap::Args;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};

/// Abandon a download, or take a finished one off the list
///
/// An unfinished file is removed; a finished one stays, and stays shared. Files of a folder that are whole stay, too.
#[derive(Debug, Args)]
pub struct CancelDownload {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for CancelDownload {
    const EXAMPLE: &'static str = "cancel_download holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let row = context
            .client
            .downloads()
            .into_iter()
            .find(|row| row.group == file.group && row.file == file.file);
        let text = if context.client.cancel(&file).await? {
            format!("{} is off the list; the file stays", file.file)
        } else {
            let whole =
                row.filter(|row| row.files.is_some_and(|files| files.done.is_none_or(|done| done > 0)));
            let stay = whole.filter(|row| row.path.is_dir()).map(|row| shown(&row.path));
            let stay =
                stay.map_or(String::new(), |path| format!("; files of it that are whole stay in {path}"));
            format!("the download of {} is cancelled{stay}", file.file)
        };
        Ok(Reply::new(text, &file))
    }
}
