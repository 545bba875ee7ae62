//! The interactive prompt: reads lines on a thread of its own, has them carried out one after another, and shows what
//! happens meanwhile above the line.

mod complete;
mod history;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use shoal_client::Client;

use crate::command::Context;
use crate::runner::{self, Next};
use complete::LineHelper;

/// The history's file in the data directory.
const HISTORY_FILE: &str = "history";
/// Lines that are kept.
const MAX_HISTORY: usize = 1_000;

/// What was read at the prompt.
enum Read {
    /// A line; several, if they were pasted.
    Text(String),
    /// Ctrl-C: the line is not wanted.
    Cancelled,
    /// Ctrl-D.
    End,
    Failed(ReadlineError),
}

type LineEditor = Editor<LineHelper, FileHistory>;

/// Reads and carries out lines until `quit` or Ctrl-D. Ctrl-C cancels the line, or the command that runs.
///
/// # Errors
/// When the terminal fails.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let Context { client, screen, .. } = context;
    let history = client.whoami().data_dir.join(HISTORY_FILE);
    let mut editor = editor(client.clone(), &history)?;
    let mut printer = editor.create_external_printer()?;
    screen.print_above(Box::new(move |line| {
        // The terminal is gone; so will be the prompt in a moment.
        let _ = printer.print(line);
    }));
    let (prompts, wanted) = std::sync::mpsc::sync_channel(1);
    let (lines, mut typed) = mpsc::channel(1);
    let reader = thread::Builder::new().name("prompt".to_owned());
    reader.spawn(move || read(editor, &history, &wanted, &lines))?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    loop {
        prompts.send(prompt(client))?;
        let text = match typed.recv().await {
            Some(Read::Text(text)) => text,
            Some(Read::Cancelled) => continue,
            Some(Read::End) | None => return Ok(()),
            Some(Read::Failed(error)) => return Err(error.into()),
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

fn editor(client: Client, history: &Path) -> rustyline::Result<LineEditor> {
    let config = Config::builder()
        .max_history_size(MAX_HISTORY)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(LineHelper::new(client, Handle::current())));
    if let Err(error) = private(history).and_then(|()| editor.load_history(history).map_err(io::Error::other))
    {
        tracing::warn!(%error, path = %history.display(), "the history cannot be read");
    }
    Ok(editor)
}

/// Makes the history's file, readable by its owner only.
fn private(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

/// The prompt's thread: one line for each prompt that is asked for.
fn read(
    mut editor: LineEditor,
    history: &Path,
    wanted: &std::sync::mpsc::Receiver<String>,
    lines: &mpsc::Sender<Read>,
) {
    while let Ok(prompt) = wanted.recv() {
        let read = match editor.readline(&prompt) {
            Ok(text) => {
                text.lines().for_each(|line| keep(&mut editor, history, line));
                Read::Text(text)
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Read::Cancelled,
            Err(ReadlineError::Eof) => Read::End,
            Err(error) => Read::Failed(error),
        };
        if lines.blocking_send(read).is_err() {
            return;
        }
    }
}

fn keep(editor: &mut LineEditor, path: &Path, line: &str) {
    let Some(entry) = history::entry(line) else { return };
    let kept = editor.add_history_entry(entry).and_then(|_| editor.append_history(path));
    if let Err(error) = kept {
        tracing::warn!(%error, path = %path.display(), "the history cannot be written");
    }
}
