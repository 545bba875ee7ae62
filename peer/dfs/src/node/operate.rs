//! In front of a running node: its prompt, its status line at an interval, and the signals that end it.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use shoal_console::wrapped;
use shoal_prompt::{CommandLines, FirstWord, Output};
use tokio::signal::unix::{SignalKind, signal};

use super::Node;

/// The history's file in the data directory.
const HISTORY_FILE: &str = "history";
/// The text of `help`.
const HELP: &str = "\
status   how this node is: its trackers, room, transfers, repair and scrubbing
help     this list
quit     end this node cleanly; its chunks are copied to the others after a while";
/// All commands.
const COMMANDS: [&str; 3] = ["status", "help", "quit"];

/// Serves until a signal, `quit`, or the end of the commands on a pipe. A status line is shown every `interval`, if there is one.
///
/// # Errors
/// When the terminal fails, or signals cannot be waited for.
pub(super) async fn operate(
    node: &Node,
    output: &Output,
    data_dir: &Path,
    interval: Option<Duration>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let history = Some(data_dir.join(HISTORY_FILE));
    let mut lines = CommandLines::open("dfs-server> ", history, FirstWord(&COMMANDS), output)?;
    let prompt = async {
        while let Some(text) = lines.next().await {
            if text.lines().any(|line| obey(node, output, line)) {
                break;
            }
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = prompt => {}
        () = show_lines(node, output, interval) => {}
    }
    Ok(())
}

async fn show_lines(node: &Node, output: &Output, interval: Option<Duration>) {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        // A closed stdout is no reason not to serve.
        let _ = output.above(&node.status().line());
    }
}

/// Carries out what was typed; true if that was to quit.
fn obey(node: &Node, output: &Output, line: &str) -> bool {
    let word = line.trim().to_lowercase();
    let text = match word.as_str() {
        "" => return false,
        "quit" | "exit" => return true,
        "status" => node.status().text(),
        "help" | "?" => HELP.to_owned(),
        other => {
            let shown = shoal_session::text::short(other);
            let _ = writeln!(
                std::io::stderr(),
                "there is no command {shown}; there are: {}",
                COMMANDS.join(", ")
            );
            return false;
        }
    };
    let _ = output.out(&wrapped(&text));
    false
}
