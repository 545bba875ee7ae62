//! The command line of `dfs`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use shoal_common::UserName;
use shoal_console::LogFormat;

use super::command::{Command, user};
use crate::client::RETRY_TIME;

/// Keeps files encrypted on storage nodes; only you can read them.
#[derive(Debug, Parser)]
#[command(
    name = "dfs",
    version,
    disable_help_subcommand = true,
    subcommand_negates_reqs = true,
    after_help = "Examples: dfs dfs.conf\n          dfs dfs.conf --user ann put photos.tar\n          dfs dfs.conf --user ann get photos.tar -o /tmp\n          dfs dfs.conf --user ann put --queue photos.tar   (a prompt, or \"wait\", works the queue off)"
)]
pub struct Options {
    /// The file that names the servers, and where the trackers are named.
    #[arg(value_name = "DFS_CONF", required = true)]
    pub conf: Option<PathBuf>,
    /// Who you are; the password is that of --password-file or SHOAL_PASSWORD, or asked for.
    #[arg(long, value_name = "NAME", value_parser = user)]
    pub user: Option<UserName>,
    /// Take the password from the first line of this file, which only its owner may read (mode 600).
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print one JSON object per command, and one per event.
    #[arg(long, global = true)]
    pub json: bool,
    /// Work the queue off without a prompt until a signal, as a service does; needs --user and a password.
    #[arg(long, requires = "user")]
    pub headless: bool,
    /// Where interrupted puts are kept [default: a folder under the XDG data home].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Seconds that put and get try again while this machine lacks something: space, open files, a drive.
    #[arg(long, value_name = "SECS", default_value_t = RETRY_TIME.as_secs(), value_parser = seconds)]
    pub retry_time: u64,
    /// How log lines look; RUST_LOG says which are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do; without it there is a prompt.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Options {
    /// Ends the process with a usage error if something is missing or two things contradict each other.
    pub fn check(&self) {
        let (kind, problem) = match &self.command {
            Some(Command::Help { .. }) => return,
            Some(_) if self.headless => {
                (ErrorKind::ArgumentConflict, "--headless works the queue off and takes no command")
            }
            Some(_) if self.conf.is_none() => (
                ErrorKind::MissingRequiredArgument,
                "the file that names the servers is missing: dfs DFS_CONF COMMAND",
            ),
            _ => return,
        };
        Self::command().error(kind, problem).exit();
    }
}

fn seconds(typed: &str) -> Result<u64, String> {
    let seconds = typed.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    seconds.ok_or_else(|| "write a whole number of seconds from 1 to 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
        let options = Options::parse_from(["dfs", "c", "--user", "ann", "put", "a", "b", "--copies", "3"]);
        assert!(
            matches!(options.command, Some(Command::Put { ref files, copies: Some(3), queue: false }) if files.len() == 2)
        );
        assert!(Options::parse_from(["dfs", "c"]).command.is_none());
        assert!(Options::parse_from(["dfs", "c", "list", "f", "--json"]).json);
        assert!(Options::parse_from(["dfs", "help", "put"]).conf.is_none());
        assert!(Options::try_parse_from(["dfs"]).is_err());
        assert!(Options::try_parse_from(["dfs", "c", "--headless"]).is_err(), "--user is missing");
        assert!(Options::try_parse_from(["dfs", "c", "put", "a", "--copies", "0"]).is_err());
    }
}
