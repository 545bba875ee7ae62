//! Setting Shoal up on a machine: moving a client from another one, and the page that `shoal up` opens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod moving;
mod package;
mod page;

use std::path::Path;
use std::process::Command;

use shoal_tests::{Finished, Service, binary, finish, free_ports};

/// Two free ports beside each other.
fn pair() -> String {
    loop {
        let ports = free_ports(2);
        if ports[1] == ports[0] + 1 {
            return format!("127.0.0.1:{}", ports[0]);
        }
    }
}

/// `shoal` where no client runs.
fn alone(dir: &Path, arguments: &[&str], input: &str) -> Finished {
    let mut command = Command::new(binary("shoal"));
    command.args(arguments).env("XDG_RUNTIME_DIR", dir.join("run-none"));
    command.env("XDG_DATA_HOME", dir.join("no-data")).env_remove("SHOAL_PASSWORD").env_remove("SHOAL_SOCKET");
    finish(&mut command, input)
}

fn ok(service: &Service, arguments: &[&str], input: &str) -> String {
    let finished = service.run(arguments, input);
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

fn succeeds(finished: &Finished) -> &str {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    &finished.stdout
}

fn fails<'a>(finished: &'a Finished, said: &[&str]) -> &'a str {
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(said.iter().all(|said| finished.stderr.contains(said)), "{said:?}: {finished:?}");
    &finished.stderr
}
