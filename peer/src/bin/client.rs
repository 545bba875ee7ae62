//! The peer daemon with its interactive prompt: `client <ip:port> <tracker_info.txt>`.

use std::process::ExitCode;

use clap::Parser;
use shoal_peer::options::Options;
use shoal_wipe::Wiping;

/// Keeps the memory it got: giving it back and faulting it in again costs a third of the time at full speed. What work on secrets
/// frees is wiped.
#[global_allocator]
static ALLOCATOR: Wiping<mimalloc::MiMalloc> = Wiping(mimalloc::MiMalloc);

fn main() -> ExitCode {
    shoal_peer::client::main(Options::parse())
}
