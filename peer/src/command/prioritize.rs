//! `prioritize`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use shoal_client::{Priority, QueueEnd};

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Say how urgent a download is, or put it first or last among those that are as urgent
///
/// A high one takes the place of a less urgent one that runs, where set active_downloads bounds how many run. first and last
/// change the order of those that wait.
#[derive(Debug, Args)]
pub struct Prioritize {
    #[command(flatten)]
    file: FileArgs,
    /// How urgent it is, or where it goes.
    #[arg(value_name = "high|normal|low|first|last", ignore_case = true)]
    #[arg(value_parser = PossibleValuesParser::new(["high", "normal", "low", "first", "last"]))]
    order: String,
}

impl Run for Prioritize {
    const EXAMPLE: &'static str = "prioritize holidays beach.zip high";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let (file, client) = (self.file.name(), &context.client);
        match self.order.to_ascii_lowercase().as_str() {
            "first" => client.move_in_queue(&file, QueueEnd::First).await?,
            "last" => client.move_in_queue(&file, QueueEnd::Last).await?,
            name => {
                let named = Priority::ALL.into_iter().find(|priority| priority.name() == name);
                client.set_priority(&file, named.unwrap_or_default()).await?;
            }
        }
        let rows = client.downloads();
        let row = rows.iter().rev().find(|row| row.group == file.group && row.file == file.file);
        let (priority, queued) = row.map_or((Priority::Normal, None), |row| (row.priority, row.queued));
        let place = queued.map(|place| format!("; it waits its turn: {} before it", place - 1));
        let text = format!("{} has {} priority{}", file.file, priority.name(), place.unwrap_or_default());
        let reply = Reply::new(text, &file).with("priority", &priority);
        Ok(match queued {
            Some(place) => reply.with("queued", &place),
            None => reply,
        })
    }
}
