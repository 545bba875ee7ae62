//! The commands to a server: from its operator's terminal, from a pipe, or none.

use std::io;
use std::io::IsTerminal;
use std::path::PathBuf;

use shoal_console::pipe;
use tokio::sync::mpsc;

use crate::{Candidate, Complete, Completion, Output, Prompt, Read};

/// Whether a user sits at a terminal.
#[must_use]
pub fn attended() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Completes the first word of a line to one of these, and keeps every line.
#[derive(Debug, Clone, Copy)]
pub struct FirstWord(pub &'static [&'static str]);

impl Complete for FirstWord {
    fn complete(&self, line: &str) -> Completion {
        let fits = self.0.iter().filter(|command| command.starts_with(&line.to_lowercase()));
        let candidate =
            |command: &&str| Candidate { display: (*command).into(), replacement: (*command).into() };
        Completion::Words(0, fits.map(candidate).collect())
    }

    fn kept(&self, line: &str) -> Option<String> {
        Some(line.trim().to_owned())
    }
}

/// Command lines. They end with the input; without an input none comes, and none ends it.
#[derive(Debug)]
pub struct CommandLines(Source);

#[derive(Debug)]
enum Source {
    Terminal { prompt: Prompt, text: &'static str },
    Pipe(mpsc::Receiver<String>),
    None,
}

impl CommandLines {
    /// Lines at the prompt `text`, where a user sits at a terminal, or from a pipe on standard input. While a line is being
    /// edited, `output` shows its own above it.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn open(
        text: &'static str,
        history: Option<PathBuf>,
        commands: impl Complete,
        output: &Output,
    ) -> io::Result<Self> {
        Ok(Self(if attended() {
            let (prompt, above) = Prompt::start(history, commands)?;
            output.print_above(above);
            Source::Terminal { prompt, text }
        } else if pipe::is_given() {
            let (lines, typed) = mpsc::channel(1);
            pipe::read(lines);
            Source::Pipe(typed)
        } else {
            Source::None
        }))
    }

    /// The next line, or several that were pasted; `None` when the input has ended. Ctrl-C cancels a line that is being edited.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<String> {
        match &mut self.0 {
            Source::Terminal { prompt, text } => loop {
                match prompt.command(text).await {
                    Ok(Read::Text(line)) => return Some(line),
                    Ok(Read::Cancelled) => {}
                    Ok(Read::End) => return None,
                    Err(error) => {
                        tracing::error!(%error, "the terminal cannot be read");
                        return None;
                    }
                }
            },
            Source::Pipe(typed) => typed.recv().await,
            Source::None => std::future::pending().await,
        }
    }
}
