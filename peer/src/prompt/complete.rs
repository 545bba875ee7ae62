//! Completion at the prompt: commands, options, and names, by what an argument is.

use std::time::Duration;

use shoal_common::GroupName;
use shoal_common::names::shown;
use shoal_prompt::{Candidate, Complete, Completion, cursor};
use tokio::runtime::Handle;

use shoal_client::{Client, Names};
use shoal_session::text::quoted;

use super::history;
use crate::command::{definition, find};

/// How long the completer waits for names from a tracker.
const PATIENCE: Duration = Duration::from_millis(500);

/// Completes lines. Runs on the prompt's own thread, where it may block.
pub(super) struct LineHelper {
    client: Client,
    runtime: Handle,
}

impl LineHelper {
    pub(super) fn new(client: Client, runtime: Handle) -> Self {
        Self { client, runtime }
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

impl Complete for LineHelper {
    fn kept(&self, line: &str) -> Option<String> {
        history::entry(line)
    }

    fn complete(&self, line: &str) -> Completion {
        let place = cursor(line);
        let complete = |names| Completion::Words(place.start, names);
        let all = definition();
        let commands =
            || all.get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>();
        let Some(command) = place.before.first() else {
            return complete(matching(commands().into_iter(), &place.typed));
        };
        let Some(command) = find(&all, command) else { return complete(Vec::new()) };
        if place.typed.starts_with('-') {
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            return complete(matching(options.map(|long| format!("--{long}")), &place.typed));
        }
        let arguments: Vec<String> =
            place.before[1..].iter().filter(|word| !word.starts_with('-')).cloned().collect();
        let expected =
            command.get_positionals().nth(arguments.len()).map(|argument| argument.get_id().as_str());
        let names = match expected {
            Some("path" | "destination") => return Completion::Path,
            Some("group") if command.get_name() != "create_group" => self.names(Names::Groups),
            Some("file") => self.group_names(&arguments, 0, Names::Files),
            Some("user") if !arguments.is_empty() => self.group_names(&arguments, 0, Names::Requests),
            Some("order") => ["high", "normal", "low", "first", "last"].map(str::to_owned).into(),
            Some("action") => ["add", "remove", "list"].map(str::to_owned).into(),
            Some("setting") => {
                ["download_folder", "active_downloads", "on_complete"].map(str::to_owned).into()
            }
            Some("direction") => vec!["up".to_owned(), "down".to_owned()],
            Some("command") => commands(),
            _ => Vec::new(),
        };
        complete(matching(names.into_iter(), &place.typed))
    }
}

fn matching(names: impl Iterator<Item = String>, typed: &str) -> Vec<Candidate> {
    let typed = typed.to_lowercase();
    let fits = |name: &String| name.to_lowercase().starts_with(&typed);
    names
        .filter(fits)
        .map(|name| Candidate { replacement: quoted(&name) + " ", display: shown(&name).into_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_prompt::split;

    #[test]
    fn quoted_words_read_back() {
        for word in ["plain", "two words", "", "a\"b", "a\\b", "it's", " "] {
            let words: Vec<String> = split(&quoted(word)).words.into_iter().map(|word| word.text).collect();
            assert_eq!(words, [word]);
        }
    }

    #[test]
    fn names_with_spaces_are_offered_in_quotes() {
        let names = || ["my group", "mine", "other"].into_iter().map(str::to_owned);
        let offered: Vec<String> = matching(names(), "M").into_iter().map(|pair| pair.replacement).collect();
        assert_eq!(offered, ["\"my group\" ", "mine "]);
    }
}
