//! The six programs as subcommands: the same code as theirs, under other names.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shoal_http::{fetch, server};

/// Runs one of the six programs, if the first argument names one.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.split_first()?;
    // Usage and errors name the program as it was called.
    let called = format!("shoal {}", name.to_str()?);
    let all = || std::iter::once(OsString::from(&called)).chain(rest.iter().cloned());
    Some(match name.to_str()? {
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
