//! The `tracker` binary: arguments, then [`shoal_tracker::command_line`].

use std::process::ExitCode;

use clap::Parser;
use shoal_tracker::command_line::{Arguments, main as run};

fn main() -> ExitCode {
    run(Arguments::parse())
}
