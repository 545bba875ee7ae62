//! The `server` binary: arguments, then [`shoal_http::server`].

use std::process::ExitCode;

use clap::Parser;
use shoal_http::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::main(server::Options::parse())
}
