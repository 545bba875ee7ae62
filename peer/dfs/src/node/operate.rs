//! In front of a running node: its prompt, its status line at an interval, and the signals that end it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use shoal_console::{pipe, wrapped};
use shoal_prompt::{Candidate, Complete, Completion, Output, Prompt, Read};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

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

/// Whether the operator sits at a terminal.
pub(super) fn attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Serves until a signal, `quit`, or the end of the commands on a pipe. A status line is shown every `interval`, if there is one.
///
/// # Errors
/// When the terminal fails, or signals cannot be waited for.
pub(super) async fn operate(node: &Node, data_dir: &Path, interval: Option<Duration>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let output = Output::default();
    let prompt = async {
        if attended() {
            at_prompt(node, data_dir, &output).await
        } else if pipe::is_given() {
            from_pipe(node, &output).await;
            Ok(())
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = prompt => ended,
        () = show_lines(node, &output, interval) => Ok(()),
    }
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

async fn at_prompt(node: &Node, data_dir: &Path, output: &Output) -> anyhow::Result<()> {
    let (mut prompt, above) = Prompt::start(data_dir.join(HISTORY_FILE), Commands)?;
    output.print_above(above);
    loop {
        match prompt.command("dfs-server> ").await? {
            Read::Text(text) => {
                if text.lines().any(|line| obey(node, output, line)) {
                    return Ok(());
                }
            }
            Read::Cancelled => {}
            Read::End => return Ok(()),
        }
    }
}

async fn from_pipe(node: &Node, output: &Output) {
    let (lines, mut typed) = mpsc::channel(1);
    pipe::read(lines);
    while let Some(line) = typed.recv().await {
        if obey(node, output, &line) {
            return;
        }
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

/// What the prompt knows of the commands.
struct Commands;

impl Complete for Commands {
    fn complete(&self, line: &str) -> Completion {
        let fits = COMMANDS.iter().filter(|command| command.starts_with(&line.to_lowercase()));
        let candidate =
            |command: &&str| Candidate { display: (*command).into(), replacement: (*command).into() };
        Completion::Words(0, fits.map(candidate).collect())
    }

    fn kept(&self, line: &str) -> Option<String> {
        Some(line.trim().to_owned())
    }
}
