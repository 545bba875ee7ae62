//! The `fetch` binary: arguments, then [`shoal_http::fetch`].

use std::process::ExitCode;

use shoal_console::{descriptors, log};
use shoal_http::fetch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = fetch::Options::from_command_line(std::env::args_os());
    // Without a file nothing can fail.
    let _ = log::start(options.log_format, log::ERRORS, None);
    descriptors::raise();
    match fetch::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fetch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
