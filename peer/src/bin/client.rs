//! The peer daemon with its interactive prompt: `client <ip:port> <tracker_info.txt>`.

use std::process::ExitCode;

use clap::Parser;
use shoal_peer::options::Options;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shoal_peer::client::main(Options::parse())
}
