//! Links of a given rate: what leaves a server's port on the loopback device is held to it by the kernel's htb.
//!
//! That is done only in a network namespace of the bench's own (`scripts/bench` makes it, as root): nothing else on the
//! machine may get slower.

use std::process::Command;

/// Largest packet, as on a real link; the loopback device's own is 64 KiB.
const MTU: &str = "1500";
const USUAL_MTU: &str = "65536";

/// Whether the loopback device is the bench's own.
pub(crate) fn own_loopback() -> bool {
    std::env::var_os("SHOAL_BENCH_NAMESPACE").is_some()
}

/// Links, undone with the value.
pub(crate) struct Links(());

impl Links {
    /// Lets each of these ports send this many megabits per second.
    ///
    /// # Errors
    /// When the kernel lacks htb or its filters.
    pub(crate) fn shape(ports: &[u16], megabits: u32) -> Result<Self, String> {
        run("ip", &["link", "set", "lo", "mtu", MTU])?;
        let links = Self(());
        run("tc", &["qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb"])?;
        let rate = format!("{megabits}mbit");
        for (port, number) in ports.iter().zip(1..) {
            let (class, port) = (format!("1:{number}"), port.to_string());
            run(
                "tc",
                &[
                    "class", "add", "dev", "lo", "parent", "1:", "classid", &class, "htb", "rate", &rate,
                    "burst", "64k", "quantum", "60000",
                ],
            )?;
            run(
                "tc",
                &[
                    "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "prio", "1", "u32",
                    "match", "ip", "sport", &port, "0xffff", "flowid", &class,
                ],
            )?;
        }
        Ok(links)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // What was never set up cannot be taken away.
        let _ = run("tc", &["qdisc", "del", "dev", "lo", "root"]);
        let _ = run("ip", &["link", "set", "lo", "mtu", USUAL_MTU]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    succeed(Command::new(program).args(arguments))
}

/// Runs a command to its good end.
///
/// # Errors
/// What it said otherwise.
pub(crate) fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
