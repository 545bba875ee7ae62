//! The line editor, on a thread of its own: one line for each prompt that is asked for. Lines that are shown meanwhile go above the
//! one that is being edited.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    CompletionType, Config, Context, Editor, ExternalPrinter, Helper, Highlighter, Hinter, Validator,
};
use tokio::sync::mpsc;

/// Lines of history that are kept.
const MAX_HISTORY: usize = 1_000;

/// The prompt on the terminal, while a line is being read.
type Shown = Arc<Mutex<Option<String>>>;

/// Shows a line while another is being edited.
pub type LinePrinter = Box<dyn FnMut(String) + Send>;

/// What a word can be completed to: how it is shown, and what replaces the word.
pub type Candidate = Pair;

/// How the word at the end of a line can be completed.
pub enum Completion {
    /// To one of these; the word begins at that byte of the line.
    Words(usize, Vec<Candidate>),
    /// To a path.
    Path,
}

/// What a prompt knows of its commands. Called on the prompt's thread, where it may block.
pub trait Complete: Send + 'static {
    /// Completes the word at the line's end.
    fn complete(&self, line: &str) -> Completion;
    /// The line as the history may keep it; `None` to keep nothing. A password is never kept.
    fn kept(&self, line: &str) -> Option<String>;
}

/// What was read.
#[derive(Debug)]
pub enum Read {
    /// A line; several, if they were pasted.
    Text(String),
    /// Ctrl-C: the line is not wanted.
    Cancelled,
    /// Ctrl-D.
    End,
}

/// What is to be read next.
struct Wanted {
    prompt: String,
    /// Whether it is a command line, that may be kept, and not the answer to a question.
    is_command: bool,
}

/// A prompt on the terminal. Its thread ends after the line that it is reading when this is dropped.
#[derive(Debug)]
pub struct Prompt {
    wanted: std::sync::mpsc::SyncSender<Wanted>,
    lines: mpsc::Receiver<Result<Read, ReadlineError>>,
    /// Whether a line is being read.
    reading: bool,
}

#[derive(Helper, Highlighter, Hinter, Validator)]
struct LineHelper<C: Complete> {
    commands: C,
    paths: FilenameCompleter,
}

impl<C: Complete> Completer for LineHelper<C> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        match self.commands.complete(&line[..pos]) {
            Completion::Words(start, words) => Ok((start, words)),
            Completion::Path => self.paths.complete_path(line, pos),
        }
    }
}

type LineEditor<C> = Editor<LineHelper<C>, FileHistory>;

impl Prompt {
    /// Opens the terminal; the history is kept in that file, or only until the end. The second result shows lines above the
    /// one that is being edited; on a terminal without cursor movement, below it and before the prompt anew.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn start(history: Option<PathBuf>, commands: impl Complete) -> io::Result<(Self, LinePrinter)> {
        let mut editor = editor(commands, history.as_deref()).map_err(io::Error::other)?;
        let shown = Shown::default();
        // Where the terminal is gone, so will be the prompt in a moment.
        let above: LinePrinter = match editor.create_external_printer() {
            Ok(mut printer) => Box::new(move |line| drop(printer.print(line))),
            // `TERM` is dumb, or the like: lines are read all the same, without editing.
            Err(_) => {
                let shown = Arc::clone(&shown);
                Box::new(move |line| drop(print_between(&line, &shown)))
            }
        };
        let (wanted, prompts) = std::sync::mpsc::sync_channel(1);
        let (read, lines) = mpsc::channel(1);
        let thread = thread::Builder::new().name("prompt".to_owned());
        thread.spawn(move || read_lines(editor, history.as_deref(), &prompts, &read, &shown))?;
        Ok((Self { wanted, lines, reading: false }, above))
    }

    /// Reads a command line. When the future is dropped, the next call gives the line that is being read.
    ///
    /// # Errors
    /// When the terminal fails.
    pub async fn command(&mut self, prompt: &str) -> io::Result<Read> {
        self.read(Wanted { prompt: prompt.to_owned(), is_command: true }).await
    }

    /// Reads the answer to a question, which is not kept. When the future is dropped, the next call gives the answer.
    ///
    /// # Errors
    /// When the terminal fails.
    pub async fn answer(&mut self, question: &str) -> io::Result<Read> {
        self.read(Wanted { prompt: question.to_owned(), is_command: false }).await
    }

    async fn read(&mut self, wanted: Wanted) -> io::Result<Read> {
        if !self.reading && self.wanted.send(wanted).is_err() {
            return Ok(Read::End);
        }
        self.reading = true;
        let read = self.lines.recv().await;
        self.reading = false;
        match read {
            Some(read) => read.map_err(io::Error::other),
            None => Ok(Read::End),
        }
    }
}

/// Writes a line to a terminal without cursor movement. It does not end up behind a prompt, and a prompt comes after it.
fn print_between(line: &str, shown: &Shown) -> io::Result<()> {
    let prompt = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut terminal = io::stdout().lock();
    match prompt {
        Some(prompt) => write!(terminal, "\n{line}{prompt}")?,
        None => write!(terminal, "{line}")?,
    }
    terminal.flush()
}

fn editor<C: Complete>(commands: C, history: Option<&Path>) -> rustyline::Result<LineEditor<C>> {
    let config = Config::builder()
        .max_history_size(MAX_HISTORY)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(LineHelper { commands, paths: FilenameCompleter::new() }));
    if let Some(history) = history
        && let Err(error) =
            private(history).and_then(|()| editor.load_history(history).map_err(io::Error::other))
    {
        tracing::warn!(%error, path = %history.display(), "the history cannot be read");
    }
    Ok(editor)
}

/// Makes the history's file, readable by its owner only.
fn private(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

fn read_lines<C: Complete>(
    mut editor: LineEditor<C>,
    history: Option<&Path>,
    wanted: &std::sync::mpsc::Receiver<Wanted>,
    lines: &mpsc::Sender<Result<Read, ReadlineError>>,
    shown: &Shown,
) {
    let set_shown = |prompt: Option<&str>| {
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = prompt.map(str::to_owned)
    };
    while let Ok(Wanted { prompt, is_command }) = wanted.recv() {
        set_shown(Some(&prompt));
        let line = editor.readline(&prompt);
        set_shown(None);
        let read = match line {
            Ok(text) => {
                if is_command {
                    text.lines().for_each(|line| keep(&mut editor, history, line));
                }
                Ok(Read::Text(text))
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Ok(Read::Cancelled),
            Err(ReadlineError::Eof) => Ok(Read::End),
            Err(error) => Err(error),
        };
        if lines.blocking_send(read).is_err() {
            return;
        }
    }
}

fn keep<C: Complete>(editor: &mut LineEditor<C>, path: Option<&Path>, line: &str) {
    let Some(entry) = editor.helper().and_then(|helper| helper.commands.kept(line)) else { return };
    let added = editor.add_history_entry(entry);
    if let Some(path) = path
        && let Err(error) = added.and_then(|_| editor.append_history(path))
    {
        tracing::warn!(%error, path = %path.display(), "the history cannot be written");
    }
}
