//! Parses lines into commands. Every mistake gets one line that says what was expected. A word that may be a password is
//! never repeated.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use shoal_prompt::{Word, Words, split};
use shoal_session::text;

use super::{Command, definition, find, in_table, usage};

/// Longest line that is read as a command, in bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// A line that is not blank and no comment.
#[derive(Debug)]
pub struct Parsed {
    /// The command's name as the table has it; else what was typed instead, made printable and cut.
    pub name: String,
    /// The command, or what is wrong.
    pub command: Result<Command, ParseError>,
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such command.
    #[error("there is no command {typed}{}; type help for the list", .nearest.as_ref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// What was typed, made printable.
        typed: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Too few or too many arguments, or unknown options.
    #[error("{problem}; use: {usage}")]
    Arguments {
        /// What is wrong.
        problem: String,
        /// How it is used.
        usage: String,
    },
    /// An argument that cannot be what it stands for.
    #[error("{0}")]
    Value(String),
    /// A quote that is not closed.
    #[error("a quote is not closed, or the line ends in a backslash")]
    Unclosed,
    /// Absurdly long.
    #[error("the line is too long for a command: {MAX_LINE_BYTES} bytes are the most")]
    TooLong,
}

impl ParseError {
    /// There is no command of that name.
    pub(super) fn unknown(all: &clap::Command, typed: &str) -> Self {
        let typed = text::short(typed);
        let error = all.clone().try_get_matches_from([in_table(&typed)]).err();
        let nearest = error.and_then(|error| match error.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(names)) => names.last().cloned(),
            Some(ContextValue::String(name)) => Some(name.clone()),
            _ => None,
        });
        Self::Unknown { typed, nearest }
    }
}

/// Reads a line; `None` if there is nothing on it, or a comment.
#[must_use]
pub fn parse(line: &str) -> Option<Parsed> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    if line.len() > MAX_LINE_BYTES {
        return Some(Parsed { name: text::short(first), command: Err(ParseError::TooLong) });
    }
    let cut = split(line);
    if !cut.closed && cut.words.len() == 1 {
        return Some(Parsed { name: text::short(first), command: Err(ParseError::Unclosed) });
    }
    let typed = cut.words.first().map_or(first, |word| word.text.as_str()).to_owned();
    Some(parse_cut(&typed, &cut))
}

/// Reads words that are cut already, as a shell does it; `None` if there are none. Those that begin with a dash are options, up to
/// a `--`.
#[must_use]
pub fn parse_words(words: Vec<String>) -> Option<Parsed> {
    let typed = words.first()?.clone();
    if words.iter().map(String::len).sum::<usize>() > MAX_LINE_BYTES {
        return Some(Parsed { name: text::short(&typed), command: Err(ParseError::TooLong) });
    }
    let words = words.into_iter().map(|text| Word { text, start: 0, quote: None }).collect();
    Some(parse_cut(&typed, &Words { words, closed: true }))
}

fn parse_cut(typed: &str, cut: &Words) -> Parsed {
    let all = definition();
    let Some(command) = find(&all, typed) else {
        return Parsed { name: text::short(typed), command: Err(ParseError::unknown(&all, typed)) };
    };
    let name = command.get_name().to_owned();
    let command = if cut.closed { read(command, &cut.words[1..]) } else { Err(ParseError::Unclosed) };
    Parsed { name, command }
}

fn read(command: &clap::Command, words: &[Word]) -> Result<Command, ParseError> {
    let words = in_order(command, words)?;
    let matches = command.clone().no_binary_name(true).try_get_matches_from(words);
    matches
        .and_then(|matches| Command::read(command.get_name(), &matches))
        .map_err(|error| explained(command, &error))
}

/// The words with all options before all arguments: what was quoted is no option, also if it begins with a dash.
fn in_order(command: &clap::Command, words: &[Word]) -> Result<Vec<String>, ParseError> {
    let (mut options, mut arguments) = (Vec::new(), vec!["--".to_owned()]);
    let mut words = words.iter();
    let mut options_end = command.get_arguments().all(clap::Arg::is_positional);
    while let Some(word) = words.next() {
        if options_end || word.quote.is_some() || !word.text.starts_with('-') || word.text.len() < 2 {
            arguments.push(word.text.clone());
            continue;
        }
        if word.text == "--" {
            options_end = true;
            continue;
        }
        let (name, value) =
            word.text.split_once('=').map_or((word.text.as_str(), None), |(n, v)| (n, Some(v)));
        let named = |option: &&clap::Arg| {
            option.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
                || option.get_short().is_some_and(|short| name.strip_prefix('-') == Some(&short.to_string()))
        };
        let Some(option) = command.get_arguments().find(named) else {
            return Err(wrong(command, format!("there is no option {}", text::short(&word.text))));
        };
        options.push(word.text.clone());
        if option.get_action().takes_values() && value.is_none() {
            let value = words.next().ok_or_else(|| wrong(command, format!("{name} needs a value")))?;
            options.pop();
            options.push(format!("{name}={}", value.text));
        }
    }
    options.append(&mut arguments);
    Ok(options)
}

fn wrong(command: &clap::Command, problem: String) -> ParseError {
    ParseError::Arguments { problem, usage: usage(command) }
}

/// What clap found, in one line that repeats nothing of what was typed.
fn explained(command: &clap::Command, error: &clap::Error) -> ParseError {
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(names)) => names.first().map_or("an argument", String::as_str),
                _ => "an argument",
            };
            wrong(command, format!("{missing} is missing"))
        }
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues => {
            wrong(command, "there are too many arguments (quote names that hold spaces)".to_owned())
        }
        kind => match error.source() {
            Some(source) => ParseError::Value(source.to_string()),
            None => wrong(command, kind.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(line: &str) -> String {
        let command = parse(line).unwrap().command.unwrap_or_else(|error| panic!("{line}: {error}"));
        format!("{command:?}")
    }

    fn error(line: &str) -> String {
        parse(line).unwrap().command.unwrap_err().to_string()
    }

    #[test]
    fn case_quotes_and_options() {
        for (one, same) in [
            ("LIST_Groups", "list_groups"),
            ("  join_group  \"my group\" ", "join_group my\\ group"),
            ("exit", "quit"),
            (
                "upload_file --mirror http://a/ ./x g --mirror=http://b/",
                "upload_file ./x g --mirror http://a/ --mirror http://b/",
            ),
            ("upload_file -- -x g", "upload_file '-x' g"),
            ("show_downloads -v", "show_downloads --verbose"),
            ("limit DOWN 0", "limit down 0"),
            ("wait 1.5", "wait 1.50"),
        ] {
            assert_eq!(command(one), command(same));
        }
        assert!(command("login bob '#a b'").contains("Some(Password)"));
        assert!(command("login bob '-a'").contains("Some(Password)"));
        assert!(command("login bob").contains("None"));
        assert!(command("limit up 20M").contains("20971520"));
        assert!(command("download_file g f /tmp --overwrite").contains("overwrite: true"));
        assert!(command("download_file g '--overwrite' /tmp").contains("overwrite: false"));
        assert!(command("stop_share g 'a b.txt'").contains("a b.txt"));
        assert_eq!(command("change_password a b").matches("Password,").count(), 1, "two passwords");
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (line, expected) in [
            ("xyzzy", "there is no command xyzzy; type help"),
            ("list_grups", "did you mean list_groups?"),
            ("login", "<user_id> is missing; use: login <user_id> [<password>]"),
            ("download_file g", "<file_name> is missing"),
            ("join_group my group", "too many arguments"),
            ("join_group \"my", "quote is not closed"),
            ("\"abc", "quote is not closed"),
            ("it's", "quote is not closed"),
            ("upload_file '' g", "a path is empty"),
            ("create_user bob~abcdef x", "six hex digits"),
            ("download_file g ../../etc/x /tmp", "must not contain the character '/'"),
            ("show_downloads --all", "there is no option --all"),
            ("upload_file a g --mirror", "--mirror needs a value"),
            ("limit sideways 3", "neither up nor down"),
            ("limit up fast", "is not a rate"),
            ("limit up 99999999999999999999G", "is not a rate"),
            ("wait soon", "is not a number of seconds"),
            ("wait -1", "is not a number of seconds"),
            ("wait 1e300", "is not a number of seconds"),
        ] {
            assert!(error(line).contains(expected), "{line}: {}", error(line));
        }
        assert!(error(&format!("join_group {}", "x".repeat(10_000))).contains("bytes are the most"));
        assert!(error(&"x".repeat(100_000)).contains("too long"));
        assert!(parse("").is_none() && parse("  # a comment").is_none());
    }

    #[test]
    fn names_of_commands_are_the_tables() {
        assert_eq!(parse("Show_Downloads -x").unwrap().name, "show_downloads");
        assert_eq!(parse("bad\u{1b}[31m").unwrap().name, "bad[31m");
    }

    #[test]
    fn passwords_are_not_printed() {
        let shown = format!("{:?}", parse("login bob secret"));
        assert!(!shown.contains("secret"), "{shown}");
        let wrong = format!("{:?}", parse("login bob secret more"));
        assert!(!wrong.contains("secret"), "{wrong}");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}|(login|limit|wait|upload_file|help) .{0,40}") {
            let _ = parse(&line);
        }
    }
}
