//! The client of the encrypted file store: `dfs dfs.conf [COMMAND]`.

use std::process::ExitCode;

use clap::Parser;
use shoal_dfs::cli::Options;
use shoal_wipe::Wiping;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed. What work on secrets
/// frees is wiped.
#[global_allocator]
static ALLOCATOR: Wiping<mimalloc::MiMalloc> = Wiping(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let options = Options::parse();
    options.check();
    shoal_dfs::cli::main(options)
}
