//! What end-to-end tests share: trackers and clients as real processes in scratch folders, driven as a user's script
//! drives them, and killed as a power cut does.
//!
//! Everything waits for conditions; [`PATIENCE`] bounds each wait. Processes die with the value that owns them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers: a panic is how a test fails")]

mod attack;
mod browser;
mod chromium;
mod client;
mod crowd;
mod dfs;
mod earlier;
mod forger;
mod impostor;
mod internet;
mod lacks;
mod liar;
mod load;
mod member;
mod mount;
mod network;
mod odd_disk;
mod process;
mod refusal;
mod seeder;
mod service;
mod terminal;
mod tracker;
mod up;
mod world;

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use sha1::Digest;

pub use attack::{Attacker, Flood, Target};
pub use browser::{Browser, ask_port};
pub use chromium::{Chromium, chromium_or_skip};
pub use client::{Client, Outcome, Stopped};
pub use crowd::Crowd;
pub use dfs::{Store, files_below, node_secret};
pub use earlier::Earlier;
pub use forger::Forger;
pub use impostor::Impostor;
pub use internet::{Flow, Flows, Internet};
pub use lacks::Lacks;
pub use liar::Liar;
pub use load::{Load, Promises, share_many};
pub use member::{Heard, Member, TrackerAddress, Wire};
pub use mount::Mount;
pub use network::{Network, in_own_network};
pub use odd_disk::OddDisk;
pub use process::{
    Finished, client_command, cpu_time, descriptors, finish, peak_memory, run_script, tracker_command,
};
pub use refusal::{Refusal, refused};
pub use seeder::{Manners, Seeder};
pub use service::{Answered, Service, ask_raw};
pub use terminal::Terminal;
pub use tracker::Trackers;
pub use up::{line_for_friends, up, up_command};
pub use world::{World, download};

/// How long a condition may take to come true on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether one has: most conditions are a command to a client.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ports that one process of tests has.
const PORTS: u16 = 1_000;
/// Those of them that a process has that runs one of its tests.
const GIVEN: u16 = 50;
/// Names the first of those to it.
const GIVEN_PORTS: &str = "SHOAL_TEST_PORTS";

/// A binary of the workspace, which `scripts/test` has built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    while dir.pop() {
        let path = dir.join(name);
        if path.is_file() {
            return path;
        }
    }
    panic!("{name} is not built; run scripts/test, or cargo build --bins");
}

/// A port that nothing listens on. Ports are handed out in turn below the system's ephemeral ones, from a range that this
/// process alone has, so that tests that run at once do not meet.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..RANGE.count {
        let port = RANGE.first + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE.count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpStream::connect(("127.0.0.1", port)).is_err()
        {
            return port;
        }
    }
    panic!("no free port");
}

/// Ports of this process.
struct PortRange {
    first: u16,
    count: u16,
    /// By which this process has them.
    _lock: Option<File>,
}

static RANGE: LazyLock<PortRange> = LazyLock::new(port_range);
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Gives some of this process's ports to a process that runs one test of it: the value of [`GIVEN_PORTS`].
fn give_ports() -> String {
    let at = NEXT.fetch_add(GIVEN, Ordering::Relaxed) % (RANGE.count - GIVEN);
    (RANGE.first + at).to_string()
}

fn port_range() -> PortRange {
    if let Ok(first) = std::env::var(GIVEN_PORTS) {
        return PortRange { first: first.parse().unwrap(), count: GIVEN, _lock: None };
    }
    for range in 0..20 {
        let path = std::env::temp_dir().join(format!("shoal-test-ports-{range}"));
        // Another user's file cannot be opened: that range is theirs.
        let Ok(file) = File::options().create(true).truncate(false).write(true).open(path) else { continue };
        if file.try_lock().is_ok() {
            return PortRange { first: 10_000 + range * PORTS, count: PORTS, _lock: Some(file) };
        }
    }
    panic!("twenty other processes test at once");
}

/// As many of them.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port()).collect()
}

/// Waits until something is the case.
///
/// # Panics
/// When it is not within [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let held = eventually(|| condition().then_some(()));
    assert!(held.is_some(), "not within {PATIENCE:?}: {what}");
}

/// Looks again and again until there is something to give; nothing if there is none within [`PATIENCE`].
fn eventually<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    within(PATIENCE, look)
}

/// Looks again and again until there is something to give; nothing if there is none in that time.
fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Writes a file of random bytes that depend on the seed alone.
pub fn random_file(path: &Path, size: usize, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let now = left.min(block.len());
        rng.fill(&mut block[..now]);
        file.write_all(&block[..now]).unwrap();
        left -= now;
    }
    file.flush().unwrap();
}

/// Whether two files hold the same; they are compared a block at a time.
#[must_use]
pub fn same_content(one: &Path, other: &Path) -> bool {
    use std::io::Read;
    let (Ok(one), Ok(other)) = (std::fs::File::open(one), std::fs::File::open(other)) else {
        return false;
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&one).take(1 << 20).read_to_end(&mut left).unwrap();
        (&other).take(1 << 20).read_to_end(&mut right).unwrap();
        if left != right || left.is_empty() {
            return left == right;
        }
    }
}

/// SHA-1 of a file in hex.
#[must_use]
pub fn sha1_of(path: &Path) -> String {
    let digest = sha1::Sha1::digest(std::fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that a process has read by system calls so far, from files above all.
#[must_use]
pub fn bytes_read(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Notes for `scripts/test` that a test was skipped; the reason says what it needs.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("SHOAL_SKIPPED") {
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}

/// Whether this is root; else the test is skipped, and noted.
#[must_use]
pub fn root_or_skip(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Whether long tests were asked for; else the test is skipped, and noted.
#[must_use]
pub fn long_or_skip(test: &str) -> bool {
    let long = std::env::var_os("SHOAL_LONG").is_some();
    if !long {
        skip(test, "runs under scripts/test --long only");
    }
    long
}
