//! The `server` binary: arguments, then [`shoal_segment::server`].

use std::process::ExitCode;

use clap::Parser;
use shoal_segment::{logging, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = server::Options::parse();
    options.check();
    logging::start(options.log_format);
    match server::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
