//! The `fetch` binary: arguments, then [`shoal_segment::fetch`].

use std::process::ExitCode;

use shoal_segment::{fetch, logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = fetch::Options::from_command_line(std::env::args_os());
    logging::start(options.log_format);
    match fetch::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fetch: {error:#}");
            ExitCode::FAILURE
        }
    }
}
