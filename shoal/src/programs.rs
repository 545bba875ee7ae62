//! The six programs as subcommands and as links: the same code as theirs, under other names.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shoal_http::{fetch, server};

/// What stands before the name of a program in the name of a link.
const LINK_PREFIX: &str = "shoal-";

/// Runs one of the six programs: that after which the link is named by which this was called (`shoal-tracker`), or the one that the first
/// argument names.
pub(crate) fn run(called: Option<&OsStr>, arguments: &[OsString]) -> Option<ExitCode> {
    if let Some(link) = called.and_then(|called| Path::new(called).file_name()?.to_str())
        && let Some(name) = link.strip_prefix(LINK_PREFIX)
    {
        return run_as(name, link, arguments);
    }
    let (name, rest) = arguments.split_first()?;
    let name = name.to_str()?;
    run_as(name, &format!("shoal {name}"), rest)
}

/// Usage and errors name the program as it was called.
fn run_as(name: &str, called: &str, arguments: &[OsString]) -> Option<ExitCode> {
    let all = || std::iter::once(OsString::from(called)).chain(arguments.iter().cloned());
    Some(match name {
        "tracker" => shoal_tracker::command_line::main(Parser::parse_from(all())),
        "client" => shoal_peer::client::main(Parser::parse_from(all())),
        "server" => server::main(Parser::parse_from(all())),
        "fetch" => fetch::main(fetch::Options::from_command_line(all())),
        "dfs" => {
            let options: shoal_dfs::cli::Options = Parser::parse_from(all());
            options.check();
            shoal_dfs::cli::main(options)
        }
        "dfs-server" => shoal_dfs::node::options::main(Parser::parse_from(all())),
        _ => return None,
    })
}

/// What clap knows of them.
pub(crate) fn definitions() -> [clap::Command; 6] {
    [
        shoal_tracker::command_line::Arguments::command().name("tracker"),
        shoal_peer::options::Options::command().name("client"),
        server::Options::command().name("server"),
        fetch::Options::command().name("fetch"),
        shoal_dfs::cli::Options::command().name("dfs"),
        shoal_dfs::node::options::Options::command().name("dfs-server"),
    ]
}
