//! The interactive prompt: reads lines, has them carried out one after another, and shows events above the line that is being
//! edited.

mod complete;
mod history;

use shoal_prompt::{Prompt, Read};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use shoal_client::Client;

use crate::command::Context;
use crate::runner::{self, Next};
use complete::LineHelper;

/// The history's file in the data directory.
const HISTORY_FILE: &str = "history";
/// Reads and carries out lines until `quit` or Ctrl-D. Ctrl-C cancels the line, or the command that runs.
///
/// # Errors
/// When the terminal fails.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let Context { client, screen, .. } = context;
    let history = client.whoami().data_dir.join(HISTORY_FILE);
    let helper = LineHelper::new(client.clone(), Handle::current());
    let (mut terminal, above) = Prompt::start(Some(history), helper)?;
    screen.print_above(above);
    let mut interrupts = signal(SignalKind::interrupt())?;
    loop {
        let text = match terminal.command(&prompt(client)).await? {
            Read::Text(text) => text,
            Read::Cancelled => continue,
            Read::End => return Ok(()),
        };
        for line in text.lines() {
            tokio::select! {
                next = runner::run(context, line) => if next? == Next::Quit {
                    return Ok(());
                },
                _ = interrupts.recv() => {
                    screen.out("cancelled; downloads and uploads go on")?;
                    break;
                }
            }
        }
    }
}

fn prompt(client: &Client) -> String {
    match client.whoami().user {
        Some(user) => format!("{user}> "),
        None => "shoal> ".to_owned(),
    }
}
