//! Shows what a daemon says, as the prompt or a script would. What it sends is text from elsewhere: no control character of it
//! reaches the terminal.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use shoal_console::{table, wrapped};
use shoal_prompt::{Bar, Output, ShownBars};
use shoal_session::text::printable;
use shoal_web::{Done, Said, Table};

/// Most bars at a time; a terminal has not many more lines.
const MAX_BARS: usize = 20;

/// Where it is shown.
pub(crate) struct Show {
    json: bool,
    terminal: bool,
    output: Output,
    bars: Option<Drawn>,
}

/// The bars that are drawn now.
struct Drawn {
    shown: ShownBars,
    by_name: HashMap<String, Bar>,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, output: Output::default(), bars: None }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Shows what comes before a result.
    ///
    /// # Errors
    /// When nobody reads it.
    pub(crate) fn said(&mut self, said: &Said) -> io::Result<()> {
        match said {
            Said::Line(text) if !self.json => self.output.out(&clean(text)),
            Said::Note(text) if !self.json => self.output.err(&wrapped(&clean(text))),
            Said::Progress { json: Some(json), .. } if self.json => self.output.out(&json.to_string()),
            Said::Progress { bars, .. } if self.terminal && !self.json => {
                self.draw(bars);
                Ok(())
            }
            Said::Progress { lines, .. } if !self.json => {
                lines.iter().try_for_each(|line| self.output.out(&clean(line)))
            }
            _ => Ok(()),
        }
    }

    /// Shows a result; whether it is one of success.
    ///
    /// # Errors
    /// When nobody reads it.
    pub(crate) fn done(&mut self, done: &Done) -> io::Result<bool> {
        self.bars = None;
        let succeeded = done.result.get("ok").is_some_and(|ok| *ok == true);
        if self.json {
            self.output.out(&Value::Object(done.result.clone()).to_string())?;
        } else if !succeeded {
            self.output.err(&format!("error: {}", clean(&done.text)))?;
        } else if !done.text.is_empty() {
            let columns = done.table.as_ref().and_then(in_columns);
            self.output.out(&columns.unwrap_or_else(|| clean(&done.text)))?;
        }
        Ok(succeeded)
    }

    /// Says that a command was not done, in the form that was asked for.
    pub(crate) fn failed(&mut self, command: &str, error: &str) -> ExitCode {
        self.bars = None;
        let error = shoal_session::text::error_line(error);
        // Nobody reads the output: there is no other way to say it.
        let _ = if self.json {
            writeln!(io::stdout(), "{}", json!({ "command": command, "ok": false, "error": error }))
        } else {
            writeln!(io::stderr(), "error: {error}")
        };
        ExitCode::FAILURE
    }

    /// Draws bars, those alone.
    pub(crate) fn draw(&mut self, bars: &[shoal_web::Bar]) {
        if bars.is_empty() {
            self.bars = None;
            return;
        }
        let output = &self.output;
        let drawn =
            self.bars.get_or_insert_with(|| Drawn { shown: output.show_bars(), by_name: HashMap::new() });
        drawn.by_name.retain(|name, _| bars.iter().any(|bar| bar.name == *name));
        for bar in bars.iter().take(MAX_BARS) {
            let add = || drawn.shown.bars.add(&printable(&bar.name));
            let line = drawn.by_name.entry(bar.name.clone()).or_insert_with(add);
            line.set(bar.done, bar.total, printable(&bar.message));
        }
    }

    /// Whether bars can be drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && !self.json
    }

    /// Shows a line.
    ///
    /// # Errors
    /// When nobody reads it.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.output.out(text)
    }
}

/// Says why something was not done.
pub(crate) fn failed(error: &str) -> ExitCode {
    // Nobody reads stderr: there is no other way to say it.
    let _ = writeln!(io::stderr(), "error: {}", shoal_session::text::error_line(error));
    ExitCode::FAILURE
}

fn in_columns(list: &Table) -> Option<String> {
    let titles: Vec<&str> = list.titles.iter().map(String::as_str).collect();
    let row = |row: &Vec<String>| row.iter().map(|cell| printable(cell)).collect();
    table(&titles, &list.rows.iter().map(row).collect::<Vec<Vec<String>>>())
}

/// Text with its lines, without anything that a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b\nc\u{202e}d\r"), "a]0;xb\nc\\u{202e}d");
        assert_eq!(clean(""), "");
    }
}
