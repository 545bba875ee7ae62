//! The `server` binary: arguments, then [`shoal_http::server`].

use std::process::ExitCode;

use clap::Parser;
use shoal_console::{descriptors, log};
use shoal_http::server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = server::Options::parse();
    options.check();
    // Without a file nothing can fail.
    let _ = log::start(options.log_format, log::ERRORS, None);
    descriptors::raise();
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
