//! Running the binaries: their usual arguments, scripts from beginning to end, and what the system says of a process.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{PATIENCE, binary, eventually, free_port};

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// A client with its state in `dir/name`, as yet without more arguments.
#[must_use]
pub fn client_command(dir: &Path, name: &str, info: &Path, port: u16) -> Command {
    let mut command = Command::new(binary("client"));
    command.arg(format!("127.0.0.1:{port}")).arg(info).arg("--data-dir").arg(dir.join(name));
    // Nothing of the tester's own environment may answer for a user, nor stand between a client and a mirror.
    command.env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

/// The tracker of that number with its state in `data`.
#[must_use]
pub fn tracker_command(info: &Path, number: usize, data: &Path) -> Command {
    let mut command = Command::new(binary("tracker"));
    command.arg(info).arg(number.to_string()).arg("--data-dir").arg(data);
    command.env_remove("RUST_LOG");
    command
}

/// Runs a client with these arguments on the input, to the end of it.
#[must_use]
pub fn run_script(dir: &Path, name: &str, info: &Path, arguments: &[&str], input: &str) -> Finished {
    finish(client_command(dir, name, info, free_port()).args(arguments), input)
}

/// Runs a program on the input until it ends.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn finish(command: &mut Command, input: &str) -> Finished {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let writer = std::thread::spawn(move || {
        // It may leave before it has read everything.
        let _ = stdin.write_all(input.as_bytes());
    });
    let stdout = std::thread::spawn(move || read(&mut out));
    let stderr = std::thread::spawn(move || read(&mut err));
    let status = eventually(|| child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    writer.join().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!("{command:?} does not end within {PATIENCE:?}\n{stdout}\n{stderr}");
    };
    Finished { code: status.code(), stdout, stderr }
}

/// The most memory that a process has had resident so far, in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The processor time that a process has used so far.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the command, which may have spaces: utime and stime are the 14th and 15th fields of all (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    // A tick is a hundredth of a second on all of Linux.
    Duration::from_millis(ticks * 10)
}

/// How many files and sockets a process has open.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn read(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
