//! The `fetch` binary: arguments, then [`shoal_http::fetch`].

use std::process::ExitCode;

use shoal_http::fetch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fetch::main(fetch::Options::from_command_line(std::env::args_os()))
}
