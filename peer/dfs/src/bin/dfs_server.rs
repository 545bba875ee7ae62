//! A storage node: `dfs-server PORT --trackers tracker_info.txt`.

use std::process::ExitCode;

use clap::Parser;
use shoal_dfs::node::options::Options;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shoal_dfs::node::options::main(Options::parse())
}
