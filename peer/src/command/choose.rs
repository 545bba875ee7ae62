//! `choose`.

use clap::Args;
use shoal_client::Rule;
use shoal_session::text::{count, size};

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Fetch more or fewer files of a folder that is being downloaded
///
/// A GLOB is a path in the folder, a folder above files, or a pattern such as '*.mp3'. What --add and --drop say comes after
/// what was said before; of all that match a file the last one counts, and --drop after --add. A download that is complete
/// goes on if there is more to fetch. Files that are whole stay where they are. list_files <group_id> <file_name> shows the
/// paths.
#[derive(Debug, Args)]
pub struct Choose {
    #[command(flatten)]
    file: FileArgs,
    /// Fetch files that match.
    #[arg(long = "add", value_name = "GLOB", required_unless_present = "drops")]
    adds: Vec<String>,
    /// Do not fetch files that match.
    #[arg(long = "drop", value_name = "GLOB")]
    drops: Vec<String>,
}

impl Run for Choose {
    const EXAMPLE: &'static str = "choose holidays pictures --add 'day 2/' --drop '*.mov'";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let rule = |fetch| move |glob| Rule { fetch, glob };
        let rules = self.adds.into_iter().map(rule(true)).chain(self.drops.into_iter().map(rule(false)));
        let chosen = context.client.choose(&file, rules.collect()).await?;
        let what = match (chosen.files, chosen.bytes) {
            (Some(files), Some(bytes)) => {
                format!("{} ({})", count(usize::try_from(files).unwrap_or(usize::MAX), "file"), size(bytes))
            }
            _ => "what you chose, once what is in it is known".to_owned(),
        };
        let waits = chosen.waits.as_ref().map_or(String::new(), |waits| format!("; {waits}"));
        Ok(Reply::new(format!("of {} is fetched: {what}{waits}", file.file), &chosen))
    }
}
