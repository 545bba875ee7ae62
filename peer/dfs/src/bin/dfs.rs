//! The client of the encrypted file store: `dfs dfs.conf [COMMAND]`.

use std::process::ExitCode;

use clap::Parser;
use shoal_dfs::cli::Options;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shoal_dfs::cli::main(Options::parse())
}
