//! `shoal up` in folders of a test.

use std::path::Path;
use std::process::Command;

use crate::{Service, binary, until};

/// `shoal up` with its data in the folder of that name, and with a runtime folder of its own.
#[must_use]
pub fn up_command(dir: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("shoal"));
    command.arg("up").arg("--data").arg(dir.join(name)).args(arguments);
    command
        .env("XDG_RUNTIME_DIR", dir.join(format!("run-{name}")))
        .env_remove("SHOAL_PASSWORD")
        .env_remove("RUST_LOG");
    command
}

/// Runs it.
#[must_use]
pub fn up(dir: &Path, name: &str, arguments: &[&str]) -> Service {
    Service::launch(dir, name, up_command(dir, name, arguments))
}

/// The words that a friend is to type behind `--join`.
#[must_use]
pub fn line_for_friends(service: &Service) -> String {
    until("it says what to send to a friend", || service.log().contains("--join '"));
    let log = service.log();
    let words = log.rsplit("--join '").next().and_then(|words| words.split('\'').next());
    words.unwrap_or_default().to_owned()
}
