//! The operator's prompt: reads commands, and prints lines above the one being edited, or to standard output where there
//! is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use rustyline::ExternalPrinter;
use rustyline::error::ReadlineError;
use shoal_console::pipe;
use tokio::sync::mpsc;

/// What `help` prints.
pub(super) const HELP: &str = "status | stop N | start N | help | quit";

/// A command of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Stop(usize),
    Start(usize),
    Help,
    Quit,
    /// Not a command, and what to say.
    Wrong(String),
}

type LinePrinter = Box<dyn FnMut(String) + Send>;

/// See the module.
pub(super) struct Prompt {
    typed: mpsc::Receiver<String>,
    /// Keeps the channel open where there is no input.
    _silent: Option<mpsc::Sender<String>>,
    above: Mutex<Option<LinePrinter>>,
}

impl Prompt {
    /// Reads the terminal, or a pipe on standard input; otherwise no commands come.
    pub(super) fn new() -> Self {
        let (lines, typed) = mpsc::channel(1);
        let mut prompt = Self { typed, _silent: None, above: Mutex::new(None) };
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            if let Ok(mut editor) = rustyline::DefaultEditor::new() {
                if let Ok(mut printer) = editor.create_external_printer() {
                    let print: LinePrinter = Box::new(move |line| {
                        // A terminal that is gone has no reader either.
                        let _ = printer.print(line + "\n");
                    });
                    *prompt.above.lock().unwrap_or_else(PoisonError::into_inner) = Some(print);
                }
                std::thread::spawn(move || read_terminal(&mut editor, &lines));
                return prompt;
            }
        } else if pipe::is_given() {
            pipe::read(lines);
            return prompt;
        }
        prompt._silent = Some(lines);
        prompt
    }

    /// The next command; `None` when the input has ended. Safe to drop.
    pub(super) async fn command(&mut self) -> Option<Command> {
        self.typed.recv().await.map(|line| parse(&line))
    }

    /// Shows a line.
    pub(super) fn print(&self, line: &str) {
        let mut above = self.above.lock().unwrap_or_else(PoisonError::into_inner);
        match above.as_mut() {
            Some(print) => print(line.to_owned()),
            None => {
                // A closed standard output has no reader.
                let mut stdout = std::io::stdout().lock();
                let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
            }
        }
    }
}

fn parse(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| text.parse::<usize>().ok();
    let lower = words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    match (lower.as_str(), &words[..]) {
        ("" | "status", [] | [_]) => Command::Status,
        ("help" | "?", _) => Command::Help,
        ("quit" | "exit", [_]) => Command::Quit,
        ("stop", [_, which]) if number(which).is_some() => Command::Stop(number(which).unwrap_or_default()),
        ("start", [_, which]) if number(which).is_some() => Command::Start(number(which).unwrap_or_default()),
        _ => Command::Wrong(format!("not understood; commands: {HELP}")),
    }
}

fn read_terminal(editor: &mut rustyline::DefaultEditor, lines: &mpsc::Sender<String>) {
    loop {
        match editor.readline("server> ") {
            Ok(line) => {
                // History is a convenience.
                let _ = editor.add_history_entry(&line);
                // Another prompt would be left on the terminal.
                let quits = parse(&line) == Command::Quit;
                if lines.blocking_send(line).is_err() || quits {
                    return;
                }
            }
            // Ctrl-C cancels the line, not the server.
            Err(ReadlineError::Interrupted) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_in_any_case() {
        for (line, command) in [
            ("stop 2", Command::Stop(2)),
            ("  START 10 ", Command::Start(10)),
            ("quit", Command::Quit),
            ("", Command::Status),
            ("help", Command::Help),
        ] {
            assert_eq!(parse(line), command, "{line:?}");
        }
        for line in ["stop", "stop x", "stop -1", "stop 1 2", "reboot", "quit now"] {
            assert!(matches!(parse(line), Command::Wrong(_)), "{line:?}");
        }
    }
}
