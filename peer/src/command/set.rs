//! `set`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::args::path;
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};

/// Show or change a setting: download_folder, where downloads go without a destination
///
/// An empty value ("") takes the setting back. Settings are kept over restarts.
#[derive(Debug, Args)]
pub struct Set {
    /// Which setting.
    #[arg(value_name = "setting", value_parser = PossibleValuesParser::new(["download_folder"]))]
    setting: Option<String>,
    /// Its new value.
    #[arg(value_name = "value")]
    value: Option<String>,
}

impl Run for Set {
    const EXAMPLE: &'static str = "set download_folder ~/downloads";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        if let (Some(_), Some(value)) = (self.setting, self.value) {
            let folder: Option<PathBuf> = match value.as_str() {
                "" => None,
                typed => Some(context.path(path(typed).map_err(Failure::Wrong)?)?),
            };
            context.client.set_download_folder(folder).await?;
        }
        let folder = context.client.download_folder().await?;
        let folder = folder.map_or_else(|| "none".to_owned(), |folder| shown(&folder));
        let reply = Reply { text: format!("download_folder  {folder}"), ..Reply::default() };
        Ok(reply.with("download_folder", &folder))
    }
}
