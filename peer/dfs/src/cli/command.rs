//! The commands, as they are given on the command line and at the prompt.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use shoal_common::UserName;
use shoal_common::storage::MAX_COPIES;
use shoal_prompt::split;
use shoal_session::text;

/// What a user can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    /// Store regular files; a name that exists gets a new version.
    Put {
        /// The files; without any, those of the current folder are listed.
        files: Vec<PathBuf>,
        /// Copies of each part, on different servers [default: as many as the stored file of that name has, else 2].
        #[arg(long, short, value_parser = copies)]
        copies: Option<u8>,
        /// Leave them in the queue, which a prompt of dfs works off; no server is needed now.
        #[arg(long)]
        queue: bool,
    },
    /// Fetch a stored file.
    Get {
        /// Its name; without it, your stored files are listed.
        name: Vec<String>,
        /// A folder or a file name; the current folder without.
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Replace a file that is there already.
        #[arg(long, short)]
        force: bool,
    },
    /// List your stored files: size, copies and health; for one file, which server holds which of its parts.
    List {
        /// The file; all without.
        name: Vec<String>,
        /// Show for all files which server holds which parts.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Remove a stored file.
    Rm {
        /// Its name.
        #[arg(required = true)]
        name: Vec<String>,
    },
    /// Show the servers, their room, and what repair does.
    Status,
    /// List the jobs of the queue: at a terminal's prompt, put and get are jobs.
    Queue {
        /// Take out those that failed.
        #[arg(long)]
        clear: bool,
    },
    /// Pause a job of the queue, or all.
    Pause {
        /// Its number.
        #[arg(value_parser = job)]
        job: Option<u64>,
    },
    /// Continue a paused job of the queue, or all; try a failed one again.
    Resume {
        /// Its number.
        #[arg(value_parser = job)]
        job: Option<u64>,
    },
    /// Take a job out of the queue; what it did is as if it had been interrupted.
    Cancel {
        /// Its number.
        #[arg(value_parser = job)]
        job: u64,
    },
    /// Wait for a job of the queue, or for all; works the queue off if no prompt does.
    Wait {
        /// Its number.
        #[arg(value_parser = job)]
        job: Option<u64>,
    },
    /// Log in again, after the password was changed or the session ended elsewhere.
    Login,
    /// Create an account.
    CreateUser {
        /// Its name; --user without.
        #[arg(value_parser = user)]
        user: Option<UserName>,
        /// The code of an invitation, where accounts are made by invitation
        #[arg(long, value_name = "CODE")]
        invite: Option<String>,
    },
    /// Give your account another password.
    ChangePassword,
    /// Show the commands, or how one is used.
    #[command(visible_alias = "?")]
    Help {
        /// The command.
        command: Option<String>,
    },
    /// Leave.
    #[command(visible_alias = "quit")]
    Exit,
}

impl Command {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Get { .. } => "get",
            Self::List { .. } => "list",
            Self::Rm { .. } => "rm",
            Self::Status => "status",
            Self::Queue { .. } => "queue",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Cancel { .. } => "cancel",
            Self::Wait { .. } => "wait",
            Self::Login => "login",
            Self::CreateUser { .. } => "create_user",
            Self::ChangePassword => "change_password",
            Self::Help { .. } => "help",
            Self::Exit => "exit",
        }
    }

    /// Whether it needs a login.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        !matches!(
            self,
            Self::CreateUser { .. }
                | Self::Help { .. }
                | Self::Exit
                | Self::Queue { .. }
                | Self::Pause { .. }
                | Self::Resume { .. }
                | Self::Cancel { .. }
        )
    }
}

/// A line of the prompt.
#[derive(Debug, Parser)]
#[command(
    name = "dfs",
    no_binary_name = true,
    disable_version_flag = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    override_usage = "COMMAND"
)]
pub(super) struct Line {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// All commands, as clap knows them.
pub(super) fn definition() -> clap::Command {
    Line::command()
}

/// Reads the name of a user.
pub(super) fn user(typed: &str) -> Result<UserName, String> {
    UserName::refer(typed).map_err(|error| error.to_string())
}

impl Line {
    /// Reads a line; `None` for an empty one.
    pub(super) fn read(line: &str) -> Result<Option<Command>, String> {
        let cut = split(line);
        if !cut.closed {
            return Err("a quote is not closed".to_owned());
        }
        let mut words: Vec<String> = cut.words.into_iter().map(|word| word.text).collect();
        let Some(first) = words.first_mut() else { return Ok(None) };
        *first = first.to_ascii_lowercase();
        let typed = text::short(first);
        if words.get(1).is_some_and(|word| word == "--help") {
            return Ok(Some(Command::Help { command: words.into_iter().next() }));
        }
        Self::try_parse_from(words).map(|line| Some(line.command)).map_err(|error| problem(&error, &typed))
    }
}

/// What is wrong with a line, without clap's pointer to an option that a prompt does not have.
fn problem(error: &clap::Error, typed: &str) -> String {
    if error.kind() == ErrorKind::InvalidSubcommand {
        let near = match error.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(names)) => names.last().cloned(),
            _ => None,
        };
        let near = near.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
        return format!("there is no command {typed}{near}; type help for the list");
    }
    let text = error.to_string();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    text.strip_prefix("error: ").unwrap_or(text).trim_end().to_owned()
}

/// The text of `help`: all commands, or how one is used.
pub(super) fn help(command: Option<&str>) -> Result<String, String> {
    let mut all = definition();
    let Some(name) = command else {
        let line = |command: &clap::Command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            format!("{:<16}  {about}", command.get_name())
        };
        let lines: Vec<String> = all.get_subcommands().map(line).collect();
        return Ok(lines.join("\n") + "\n\nhelp COMMAND shows how a command is used");
    };
    let found = all.find_subcommand_mut(name.to_ascii_lowercase());
    let command =
        found.ok_or_else(|| format!("there is no command {}; type help for the list", text::short(name)))?;
    // A prompt has no option for it.
    let mut command = command.clone().disable_help_flag(true);
    Ok(command.render_help().to_string().trim_end().to_owned())
}

fn job(typed: &str) -> Result<u64, String> {
    typed.parse().map_err(|_| "write the number of a job, as queue shows it".to_owned())
}

fn copies(typed: &str) -> Result<u8, String> {
    let copies = typed.parse().ok().filter(|copies| (1..=MAX_COPIES).contains(copies));
    copies.ok_or_else(|| format!("write a whole number from 1 to {MAX_COPIES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_users_type_them() {
        assert_eq!(Line::read("  ").unwrap(), None);
        assert_eq!(
            Line::read("PUT 'a b' -c 3").unwrap(),
            Some(Command::Put { files: vec!["a b".into()], copies: Some(3), queue: false })
        );
        assert_eq!(Line::read("quit").unwrap(), Some(Command::Exit));
        let name = vec!["Richard".to_owned(), "III".to_owned()];
        assert_eq!(
            Line::read("get Richard III -f").unwrap(),
            Some(Command::Get { name, output: None, force: true })
        );
        for (bad, reason) in [
            ("lits", "there is no command lits, did you mean list?; type help for the list"),
            ("put 'a", "a quote is not closed"),
            ("rm", "required"),
            ("put -c 99 x", "from 1 to 16"),
            ("put -c x y", "from 1 to 16"),
            ("cancel x", "write the number of a job, as queue shows it"),
            ("wait -x", "unexpected argument"),
        ] {
            let error = Line::read(bad).unwrap_err();
            assert!(error.contains(reason) && !error.contains("--help"), "{bad}: {error}");
        }
        assert_eq!(Line::read("Rm --help").unwrap(), Some(Command::Help { command: Some("rm".to_owned()) }));
        assert!(!help(Some("cancel")).unwrap().contains("--help"));
        let all = help(None).unwrap();
        for command in definition().get_subcommands() {
            assert!(all.contains(command.get_name()), "{all}");
            assert!(help(Some(command.get_name())).is_ok());
        }
        assert!(help(Some("what")).is_err());
    }
}
