//! What `fetch` and `server` have in common as programs.

use std::io::{self, Write};
use std::process::ExitCode;

use shoal_console::{LogFormat, descriptors, log};

/// Does a program's work; the exit code is 0, or 1 if it failed, and then the error is shown under the program's name.
pub(crate) fn run(name: &str, log_format: LogFormat, work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    // Without a file nothing can fail.
    let _ = log::start(log_format, log::ERRORS, None);
    descriptors::raise();
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads stderr: there is no other way to say it.
            let _ = writeln!(io::stderr(), "{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
