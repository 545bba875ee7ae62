//! `set`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use shoal_session::text::{printable, short};

use super::args::path;
use super::{Context, Failure, Run};
use crate::reply::{Reply, shown};

/// Show or change a setting: download_folder, active_downloads (0: no bound), on_complete
///
/// download_folder is where downloads go without a destination. active_downloads bounds how many are fetched at the same time;
/// one that waits for a sharer does not count. on_complete is a command that is run when a download is complete. No shell reads it;
/// SHOAL_PATH, SHOAL_FILE, SHOAL_GROUP, SHOAL_SIZE and SHOAL_SHA1 are in its environment. An empty value ("") takes a setting
/// back. Settings are kept over restarts.
#[derive(Debug, Args)]
pub struct Set {
    /// Which setting.
    #[arg(value_name = "setting", value_parser = PossibleValuesParser::new(SETTINGS))]
    setting: Option<String>,
    /// Its new value.
    #[arg(value_name = "value")]
    value: Option<String>,
}

const SETTINGS: [&str; 3] = ["download_folder", "active_downloads", "on_complete"];
/// Most downloads that a user can bound them to: beyond that the limit of open files binds.
const MOST_ACTIVE: usize = 100_000;

impl Run for Set {
    const EXAMPLE: &'static str = "set download_folder ~/downloads";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        if let (Some(setting), Some(value)) = (&self.setting, self.value) {
            change(context, setting, value).await?;
        }
        let client = &context.client;
        let folder = client.download_folder().await?;
        let shown_folder = folder.as_deref().map_or_else(|| "none".to_owned(), shown);
        let active = client.active_downloads().await?;
        let command = client.on_complete();
        let lines = [
            ("download_folder", shown_folder),
            ("active_downloads", active.map_or_else(|| "no bound".to_owned(), |bound| bound.to_string())),
            ("on_complete", command.as_deref().map_or_else(|| "none".to_owned(), printable)),
        ];
        let wanted = lines.iter().filter(|(name, _)| self.setting.as_deref().is_none_or(|one| one == *name));
        let text = wanted.map(|(name, value)| format!("{name:<16} {value}")).collect::<Vec<_>>().join("\n");
        let reply = Reply { text, ..Reply::default() };
        let reply = reply.with("download_folder", &lines[0].1);
        Ok(reply.with("active_downloads", &active.unwrap_or(0)).with("on_complete", &command))
    }
}

async fn change(context: &Context, setting: &str, value: String) -> Result<(), Failure> {
    let client = &context.client;
    match setting {
        "active_downloads" => {
            let bound = if value.is_empty() { Some(0) } else { value.parse().ok() };
            let bound = bound.filter(|bound| *bound <= MOST_ACTIVE).ok_or_else(|| {
                let problem =
                    format!("{:?} is no number of downloads, such as 3; 0 for no bound", short(&value));
                Failure::Wrong(problem)
            })?;
            client.set_active_downloads(Some(bound)).await?;
        }
        "on_complete" => client.set_on_complete(Some(value)).await?,
        _ => {
            let folder: Option<PathBuf> = match value.as_str() {
                "" => None,
                typed => Some(context.path(path(typed).map_err(Failure::Wrong)?)?),
            };
            client.set_download_folder(folder).await?;
        }
    }
    Ok(())
}
