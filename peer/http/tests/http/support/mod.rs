//! Real `server` and `fetch` processes, and an HTTP server that misbehaves as a test asks and counts what it sends.

mod lab;
mod manners;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use lab::Lab;
pub(crate) use manners::{Manners, Node, Signs};
pub(crate) use shoal_tests::free_port;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const MIB: usize = 1 << 20;
/// Piece length that servers of the lab publish.
pub(crate) const PIECE: u32 = 64 * 1024;

/// A server that publishes digests and pieces.
pub(crate) fn publishing() -> Manners {
    Manners { publishes: Some(PIECE), ..Manners::default() }
}

/// `-p` and the ports of these servers.
pub(crate) fn ports(labs: &[&Lab]) -> Vec<String> {
    std::iter::once("-p".to_owned()).chain(labs.iter().map(|lab| lab.port.to_string())).collect()
}

/// The arguments with more of them.
pub(crate) fn with(mut arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

/// Bytes that depend on the seed alone.
pub(crate) fn random(size: usize, seed: u64) -> Arc<Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    Arc::new(bytes)
}

/// Waits until something is the case.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Notes for `scripts/test` that a test was skipped; the reason says what it needs.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("SHOAL_SKIPPED") {
        use std::io::Write;
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}

/// Whether a program is installed; else the test is skipped, and noted.
pub(crate) fn installed_or_skip(test: &str, program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain([PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(program).is_file());
    if !found {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// A process that dies with this value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running `server`.
pub(crate) struct Server {
    process: Process,
    pub(crate) ports: Vec<u16>,
    _cache: tempfile::TempDir,
}

impl Server {
    /// Serves a file on so many ports.
    pub(crate) fn of_file(path: &Path, count: usize) -> Self {
        Self::start(&["-f", path.to_str().unwrap()], count)
    }

    /// Starts `server` with these arguments and so many ports, and waits until it serves.
    pub(crate) fn start(arguments: &[&str], count: usize) -> Self {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let cache = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(arguments).arg("-p").args(ports.iter().map(u16::to_string));
        command.env("XDG_CACHE_HOME", cache.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..count {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("serving ")));
            assert!(line.is_some(), "it does not serve");
        }
        // Its reports are read so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process: Process(child), ports, _cache: cache }
    }

    /// Bytes that it has in memory.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.ports[0])
    }
}

/// `fetch` with these arguments, not started.
pub(crate) fn fetch_command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fetch"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

/// Runs `fetch` to its end.
pub(crate) fn fetch<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    finish(fetch_command(arguments).spawn().unwrap())
}

/// Waits for a process.
pub(crate) fn finish(child: Child) -> Ended {
    let mut child = Process(child);
    let (mut out, mut err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    let started = Instant::now();
    out.read_to_string(&mut stdout).unwrap();
    let status = child.0.wait().unwrap();
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    Ended { code: status.code(), stdout, stderr: read.join().unwrap() }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The last object that `--json` printed.
    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.stdout.lines().next_back().unwrap_or_else(|| panic!("no output: {self:?}"));
        serde_json::from_str(last).unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn failed_saying(&self, text: &str) -> &Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// Asserts that a file has this content.
#[track_caller]
pub(crate) fn assert_content(path: &Path, bytes: &[u8]) {
    let found = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == bytes, "{} is not the file", path.display());
}

/// Names in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Output of another program.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}
