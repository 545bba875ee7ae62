//! Text for a terminal, broken between words.

use std::io;

use rustix::termios::tcgetwinsize;
use textwrap::{Options, fill};

/// On a terminal of fewer columns lines are not wrapped.
const LEAST: usize = 40;
/// Continued lines begin no further to the right.
const DEEPEST: usize = 24;

/// The text with lines that are longer than the terminal is wide broken between words; unchanged if standard output is no
/// terminal.
#[must_use]
pub fn wrapped(text: &str) -> String {
    match tcgetwinsize(io::stdout()) {
        Ok(size) => wrapped_to(text, size.ws_col.into()),
        Err(_) => text.to_owned(),
    }
}

fn wrapped_to(text: &str, columns: usize) -> String {
    if columns < LEAST {
        return text.to_owned();
    }
    let lines = text.lines().map(|line| {
        let indent = " ".repeat(hang(line));
        fill(line, Options::new(columns).subsequent_indent(&indent).break_words(false))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a line is continued: below the second column of a table, else a little to the right of its beginning.
fn hang(line: &str) -> usize {
    let begins = line.len() - line.trim_start().len();
    let column = line[begins..].find("  ").map(|gap| {
        let behind = begins + gap;
        behind + line[behind..].len() - line[behind..].trim_start().len()
    });
    column.filter(|&column| column <= DEEPEST && column < line.len()).unwrap_or(begins + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_go_on_below_their_column() {
        let text = "expel NAME|KEY    take a storage node out of the cluster\n\nshort\n  a note that is somewhat longer than that";
        let expected = "\
expel NAME|KEY    take a storage node
                  out of the cluster

short
  a note that is somewhat longer than
    that";
        assert_eq!(wrapped_to(text, 40), expected);
        let key = "0123456789abcdef".repeat(4);
        assert_eq!(wrapped_to(&key, 40), key, "a key stays whole, to be copied");
        assert_eq!(wrapped_to(text, 20), text);
        assert_eq!(wrapped_to(text, 0), text, "it does not know how wide it is");
    }
}
