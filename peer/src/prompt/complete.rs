//! Completion at the prompt: commands, options, and names, by what an argument is.

use std::time::Duration;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::{Context, Helper, Highlighter, Hinter, Validator};
use shoal_common::GroupName;
use tokio::runtime::Handle;

use shoal_client::{Client, Names};
use shoal_session::text::quoted;

use crate::command::{Word, definition, find, split};

/// How long the completer waits for names from a tracker.
const PATIENCE: Duration = Duration::from_millis(500);

/// Completes lines. Runs on the prompt's own thread, where it may block.
#[derive(Helper, Highlighter, Hinter, Validator)]
pub(super) struct LineHelper {
    client: Client,
    runtime: Handle,
    paths: FilenameCompleter,
}

/// The word that is being typed, and what came before it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The words before it.
    before: Vec<String>,
    /// As much of it as there is, unquoted.
    typed: String,
    /// Where it begins in the line.
    start: usize,
}

impl LineHelper {
    pub(super) fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime, paths: FilenameCompleter::new() }
    }

    fn names(&self, names: Names) -> Vec<String> {
        let asked =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.names(names)).await });
        asked.unwrap_or_default()
    }

    fn group_names(&self, before: &[String], at: usize, names: fn(GroupName) -> Names) -> Vec<String> {
        let group = before.get(at).and_then(|group| GroupName::refer(group).ok());
        group.map(|group| self.names(names(group))).unwrap_or_default()
    }
}

impl Completer for LineHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let place = place(&line[..pos]);
        let all = definition();
        let commands =
            || all.get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
        let Some(command) = place.before.first() else {
            return Ok((place.start, matching(commands().into_iter(), &place.typed)));
        };
        let Some(command) = find(&all, command) else { return Ok((place.start, Vec::new())) };
        if place.typed.starts_with('-') {
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            return Ok((place.start, matching(options.map(|long| format!("--{long}")), &place.typed)));
        }
        let arguments: Vec<String> =
            place.before[1..].iter().filter(|word| !word.starts_with('-')).cloned().collect();
        let expected =
            command.get_positionals().nth(arguments.len()).map(|argument| argument.get_id().as_str());
        let names = match expected {
            Some("path" | "destination") => return self.paths.complete_path(line, pos),
            Some("group") if command.get_name() != "create_group" => self.names(Names::Groups),
            Some("file") => self.group_names(&arguments, 0, Names::Files),
            Some("user") if !arguments.is_empty() => self.group_names(&arguments, 0, Names::Requests),
            Some("direction") => vec!["up".to_owned(), "down".to_owned()],
            Some("command") => commands(),
            _ => Vec::new(),
        };
        Ok((place.start, matching(names.into_iter(), &place.typed)))
    }
}

/// Where in a line the cursor is, which stands at its end.
fn place(line: &str) -> Place {
    let cut = split(line);
    let mut words = cut.words;
    let within = !cut.closed || !line.ends_with(char::is_whitespace);
    let last = if within { words.pop() } else { None };
    let before = words.into_iter().map(|word| word.text).collect();
    match last {
        Some(Word { text, start, .. }) => Place { before, typed: text, start },
        None => Place { before, typed: String::new(), start: line.len() },
    }
}

fn matching(names: impl Iterator<Item = String>, typed: &str) -> Vec<Pair> {
    let typed = typed.to_lowercase();
    let fits = |name: &String| name.to_lowercase().starts_with(&typed);
    names.filter(fits).map(|name| Pair { replacement: quoted(&name) + " ", display: name }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_being_typed_is_found() {
        for (line, before, typed, start) in [
            ("", vec![], "", 0),
            ("lo", vec![], "lo", 0),
            ("login ", vec!["login"], "", 6),
            ("list_files \"my gr", vec!["list_files"], "my gr", 11),
            ("stop_share \"my group\" a\\ b", vec!["stop_share", "my group"], "a b", 22),
            ("stop_share g 'a ", vec!["stop_share", "g"], "a ", 13),
        ] {
            let before = before.into_iter().map(str::to_owned).collect();
            assert_eq!(place(line), Place { before, typed: typed.into(), start }, "{line}");
        }
    }

    #[test]
    fn names_with_spaces_are_offered_in_quotes() {
        let names = || ["my group", "mine", "other"].into_iter().map(str::to_owned);
        let offered: Vec<String> = matching(names(), "M").into_iter().map(|pair| pair.replacement).collect();
        assert_eq!(offered, ["\"my group\" ", "mine "]);
    }
}
