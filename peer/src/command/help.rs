//! `help`.

use clap::Args;
use shoal_console::wrapped;

use super::{Context, Failure, ParseError, Run, SECTIONS, definition, find, usage};
use crate::reply::Reply;
use crate::screen::Form;

/// Show this list, or more about one command
#[derive(Debug, Args)]
pub struct Help {
    /// The command.
    #[arg(value_name = "command")]
    command: Option<String>,
}

impl Run for Help {
    const EXAMPLE: &'static str = "help upload_file";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let Some(text) = text(self.command.as_deref()) else {
            let name = self.command.unwrap_or_default();
            return Err(Failure::Wrong(ParseError::unknown(&definition(), &name).to_string()));
        };
        let shown = if context.screen.form() == Form::Prompt { wrapped(&text) } else { text.clone() };
        Ok(Reply { text: shown, ..Reply::default() }.with("text", &text))
    }
}

/// All commands, or one; nothing if there is no such command.
pub(super) fn text(command: Option<&str>) -> Option<String> {
    let all = definition();
    match command {
        None => Some(list(&all)),
        Some(name) => find(&all, name).map(one),
    }
}

/// All commands with their summaries and examples.
fn list(all: &clap::Command) -> String {
    let mut text = String::new();
    for (title, names) in SECTIONS {
        text += &format!("{title}\n");
        for command in names.iter().filter_map(|name| find(all, name)) {
            let (about, example) = (said(command.get_about()), said(command.get_after_help()));
            text += &format!("  {:<16} {about}\n{:19}{example}\n", command.get_name(), "");
        }
    }
    text + "help <command> says more; put names with spaces in quotes"
}

/// One command: how it is used, what it does, how it looks.
fn one(command: &clap::Command) -> String {
    let details = said(command.get_long_about().or_else(|| command.get_about()));
    let details: Vec<_> = details.lines().filter(|line| !line.is_empty()).collect();
    format!("{}\n  {}\n  example: {}", usage(command), details.join("\n  "), said(command.get_after_help()))
}

fn said(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of commands as the README has it.
    fn table(all: &clap::Command) -> String {
        let mut table = "| command | what it does |\n|---|---|\n".to_owned();
        for (title, names) in SECTIONS {
            table += &format!("| **{title}** | |\n");
            for command in names.iter().filter_map(|name| find(all, name)) {
                let usage = usage(command).replace('|', "\\|");
                table += &format!("| `{usage}` | {} |\n", said(command.get_about()));
            }
        }
        table
    }

    #[test]
    fn the_readme_has_the_same_table_of_commands() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let table = table(&definition());
        assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    }

    #[test]
    fn help_names_every_command_once() {
        let all = definition();
        let text = list(&all);
        for command in all.get_subcommands() {
            let name = command.get_name();
            let heads = text.lines().filter(|line| line.starts_with(&format!("  {name} "))).count();
            assert_eq!(heads, 1, "{name}");
            assert!(one(command).contains("example: "));
        }
    }
}
