//! The commands, as they are given on the command line and at the prompt.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use shoal_common::UserName;
use shoal_prompt::split;

/// Copies of each part by default.
const COPIES: u8 = 2;

/// What a user can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    /// Store regular files; a name that exists gets a new version.
    Put {
        /// The files; without any, those of the current folder are listed.
        files: Vec<PathBuf>,
        /// Copies of each part, on different servers.
        #[arg(long, short, default_value_t = COPIES, value_parser = clap::value_parser!(u8).range(1..=16))]
        copies: u8,
    },
    /// Fetch a stored file.
    Get {
        /// Its name; without it, your stored files are listed.
        name: Option<String>,
        /// A folder or a file name; the current folder without.
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Replace a file that is there already.
        #[arg(long, short)]
        force: bool,
    },
    /// List your stored files: size, copies and health.
    List,
    /// Remove a stored file.
    Rm {
        /// Its name.
        name: String,
    },
    /// Show the servers, their room, and what repair does.
    Status,
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
            Self::List => "list",
            Self::Rm { .. } => "rm",
            Self::Status => "status",
            Self::CreateUser { .. } => "create_user",
            Self::ChangePassword => "change_password",
            Self::Exit => "exit",
        }
    }

    /// Whether it needs a login.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        !matches!(self, Self::CreateUser { .. } | Self::Exit)
    }
}

/// A line of the prompt.
#[derive(Debug, Parser)]
#[command(name = "dfs", no_binary_name = true, disable_version_flag = true, override_usage = "COMMAND")]
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
        Self::try_parse_from(words).map(|line| Some(line.command)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_users_type_them() {
        assert_eq!(Line::read("  ").unwrap(), None);
        assert_eq!(
            Line::read("PUT 'a b' -c 3").unwrap(),
            Some(Command::Put { files: vec!["a b".into()], copies: 3 })
        );
        assert_eq!(Line::read("quit").unwrap(), Some(Command::Exit));
        for bad in ["what", "put 'a", "rm", "put -c 99 x"] {
            assert!(Line::read(bad).is_err(), "{bad}");
        }
    }
}
