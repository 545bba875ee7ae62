//! The operator's prompt: reads commands, and prints lines above the one being edited, or to standard output where there
//! is no terminal.

use std::io;

use shoal_prompt::{CommandLines, FirstWord, Output};

/// All commands.
const COMMANDS: [&str; 5] = ["status", "stop", "start", "help", "quit"];
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

/// See the module.
pub(super) struct Prompt {
    lines: CommandLines,
    output: Output,
}

impl Prompt {
    /// Reads the terminal, or a pipe on standard input; otherwise no commands come.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub(super) fn new() -> io::Result<Self> {
        let output = Output::default();
        let lines = CommandLines::open("server> ", None, FirstWord(&COMMANDS), &output)?;
        Ok(Self { lines, output })
    }

    /// The next command; `None` when the input has ended. Safe to drop.
    pub(super) async fn command(&mut self) -> Option<Command> {
        self.lines.next().await.map(|line| parse(&line))
    }

    /// Shows a line.
    pub(super) fn print(&self, line: &str) {
        // A closed standard output has no reader.
        let _ = self.output.above(line);
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
