//! What clap knows of `shoal`: help, completions and man pages come from here.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Subcommand, value_parser};

use crate::{moving, programs, up};

/// What `shoal` does itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Own {
    /// Begin: run a client in this process, and a tracker of its own where no other is named
    Up(up::Options),
    /// Show events and downloads as they happen, until Ctrl-C
    Watch,
    /// Show a link with which a browser on this machine may look in, good once and for a minute
    Web {
        /// Open a browser there instead.
        #[arg(long)]
        open: bool,
    },
    /// Write this client into one file, for another machine: its key, shares and downloads, under a passphrase
    ///
    /// The client ends, and does not start here again. The shared files themselves are not in the export.
    Export(moving::Export),
    /// Go on here with a client that was exported on another machine
    ///
    /// Shared files are looked for where they were and where --shares-at says. One counts if it has the content that was shared,
    /// whatever it is called.
    Import(moving::Import),
    /// Print the completions of a shell
    Completions {
        /// The shell.
        #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]))]
        shell: String,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder; made if it does not exist.
        dir: PathBuf,
    },
}

/// All of it.
pub(crate) fn definition() -> clap::Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).global(true);
    let socket = Arg::new("socket")
        .long("socket")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .global(true);
    let all = Own::augment_subcommands(clap::Command::new("shoal"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Private-group file sharing: begin with shoal up, and type commands to the client that then runs",
        )
        .long_about(None)
        .after_help("Example: shoal up; then, in another terminal: shoal create_user ann")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .arg(json.help("Print one JSON object per command, and one per event"))
        .arg(socket.help("The socket of the client, where several run [env: SHOAL_SOCKET]"));
    let commands = shoal_peer::command::definition();
    // What begins everything comes first, then the prompt's commands in their order, then the programs.
    let more = commands.get_subcommands().cloned().chain(programs::definitions());
    all.subcommands(more.enumerate().map(|(at, command)| command.display_order(OWN + at)))
}

/// More than `shoal` itself does.
const OWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_has_every_command_once() {
        definition().debug_assert();
        let all = definition();
        let mut names: Vec<&str> = all.get_subcommands().map(clap::Command::get_name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        for name in ["up", "watch", "tracker", "dfs-server", "list_files", "whoami", "help"] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
