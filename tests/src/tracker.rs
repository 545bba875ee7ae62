//! A cluster of tracker processes.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use shoal_net::Identity;

use crate::{Member, Network, binary, free_port, tracker_command, until};

/// Lines of each tracker's log that a failed test shows.
const LOG_TAIL: usize = 25;

/// Trackers on loopback or on machines of their own, numbered from 1.
pub struct Trackers {
    dir: PathBuf,
    addresses: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    arguments: Vec<Vec<String>>,
    /// The program of each.
    programs: Vec<PathBuf>,
    network: Option<Arc<Network>>,
}

impl Trackers {
    /// Starts `count` trackers with their state below `dir`.
    #[must_use]
    pub fn start(dir: &Path, count: usize) -> Self {
        Self::start_with(dir, count, &[])
    }

    /// As [`start`](Self::start), with more arguments for each.
    #[must_use]
    pub fn start_with(dir: &Path, count: usize, arguments: &[&str]) -> Self {
        let mut trackers = Self::stopped(dir, count);
        for number in 1..=count {
            trackers.set_arguments(number, arguments);
            trackers.restart(number);
        }
        trackers
    }

    /// So many trackers of which none runs yet.
    #[must_use]
    pub fn stopped(dir: &Path, count: usize) -> Self {
        let addresses = (0..count).map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).collect();
        Self::prepare(dir, addresses, None)
    }

    /// Starts a tracker on each of the first `count` machines of a network.
    #[must_use]
    pub fn start_on(network: &Arc<Network>, dir: &Path, count: u8) -> Self {
        let addresses = (1..=count).map(|number| SocketAddr::new(network.address(number), 7_001)).collect();
        let mut trackers = Self::prepare(dir, addresses, Some(network.clone()));
        for number in 1..=usize::from(count) {
            // The load of a test comes from one address that is not this machine's.
            trackers.set_arguments(number, &["--accounts-per-address", "1000000"]);
            trackers.restart(number);
        }
        trackers
    }

    /// Writes the cluster's file; nothing runs yet.
    fn prepare(dir: &Path, addresses: Vec<SocketAddr>, network: Option<Arc<Network>>) -> Self {
        let lines: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let trackers = Self {
            dir: dir.to_owned(),
            running: addresses.iter().map(|_| None).collect(),
            arguments: addresses.iter().map(|_| Vec::new()).collect(),
            programs: addresses.iter().map(|_| binary("tracker")).collect(),
            addresses,
            network,
        };
        trackers.write_info(&lines);
        trackers
    }

    /// Writes the cluster's file, line by line; a tracker reads it when it starts.
    pub fn write_info(&self, lines: &[String]) {
        std::fs::write(self.info(), lines.join("\n") + "\n").unwrap();
    }

    /// What a tracker is started with from its next start on, besides what all are.
    pub fn set_arguments(&mut self, number: usize, arguments: &[&str]) {
        self.arguments[number - 1] = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Which program a tracker is from its next start on.
    pub fn set_program(&mut self, number: usize, program: PathBuf) {
        self.programs[number - 1] = program;
    }

    /// The cluster's `tracker_info.txt`.
    #[must_use]
    pub fn info(&self) -> PathBuf {
        self.dir.join("tracker_info.txt")
    }

    /// A `tracker_info.txt` that names only the tracker of that number.
    #[must_use]
    pub fn info_of(&self, number: usize) -> PathBuf {
        let path = self.dir.join(format!("tracker_info-{number}.txt"));
        std::fs::write(&path, format!("127.0.0.1 {}\n", self.port(number))).unwrap();
        path
    }

    /// A tracker's port.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.address(number).port()
    }

    /// Where a tracker listens.
    #[must_use]
    pub fn address(&self, number: usize) -> SocketAddr {
        self.addresses[number - 1]
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Where a tracker keeps its state.
    #[must_use]
    pub fn data(&self, number: usize) -> PathBuf {
        self.dir.join(format!("tracker-{number}"))
    }

    /// What a tracker logged, over all its starts.
    #[must_use]
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.dir.join(format!("tracker-{number}.log"))).unwrap_or_default()
    }

    /// What a tracker answered at its prompt, over all its starts.
    #[must_use]
    pub fn said(&self, number: usize) -> String {
        std::fs::read_to_string(self.dir.join(format!("tracker-{number}.out"))).unwrap_or_default()
    }

    /// Starts a tracker that does not run, and waits until it listens.
    pub fn restart(&mut self, number: usize) {
        let log =
            File::options().create(true).append(true).open(self.dir.join(format!("tracker-{number}.log")));
        let said =
            File::options().create(true).append(true).open(self.dir.join(format!("tracker-{number}.out")));
        let usual = tracker_command(&self.info(), number, &self.data(number));
        let program = &self.programs[number - 1];
        let mut command = match &self.network {
            Some(network) => network.on(u8::try_from(number).unwrap(), program.to_str().unwrap()),
            None => Command::new(program),
        };
        let child = command
            .args(usual.get_args())
            .env_remove("RUST_LOG")
            .args(&self.arguments[number - 1])
            .stdin(Stdio::piped())
            .stdout(said.unwrap())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.running[number - 1] = Some(child);
        let address = self.address(number);
        until("the tracker listens", || TcpStream::connect(address).is_ok());
    }

    /// Types a line at a tracker's prompt.
    pub fn say(&mut self, number: usize, line: &str) {
        let child = self.running[number - 1].as_mut().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Has a tracker believe the key that the tracker of that number has now, as its operator does after a replacement.
    pub fn accept(&mut self, at: usize, number: usize) {
        let key = self.peer_id(number);
        self.say(at, &format!("accept-tracker {number} {key}"));
        until("the key is accepted", || self.logged(at, &format!("{key}: its operator says so")) == 1);
    }

    /// The key that a tracker has now.
    #[must_use]
    pub fn peer_id(&self, number: usize) -> String {
        let key = Identity::load_or_create(&self.data(number).join("identity.key")).unwrap();
        key.peer_id().to_string()
    }

    /// What `tracker --status --json` says of a tracker.
    #[must_use]
    pub fn status(&self, number: usize) -> serde_json::Value {
        let mut command = Command::new(binary("tracker"));
        let asked =
            crate::finish(command.args(["--status", &self.address(number).to_string(), "--json"]), "");
        serde_json::from_str(&asked.stdout).unwrap_or_else(|_| panic!("{asked:?}"))
    }

    /// Kills a tracker with -9.
    pub fn kill(&mut self, number: usize) {
        let mut child = self.running[number - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends a tracker with SIGTERM and returns whether it ended well.
    #[must_use]
    pub fn stop(&mut self, number: usize) -> bool {
        let mut child = self.running[number - 1].take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap().success()
    }

    /// The process id of a tracker that runs.
    #[must_use]
    pub fn pid(&self, number: usize) -> u32 {
        self.running[number - 1].as_ref().unwrap().id()
    }

    /// Waits until those that run are linked and in step: a name created at one of them is definite at once (T7).
    pub fn until_in_step(&self) {
        for number in (1..=self.count()).filter(|&number| self.running[number - 1].is_some()) {
            let mut member = Member::connect(self.address(number));
            until("a created name is definite", || {
                !member.create_user(&format!("probe-{:x}", fastrand::u64(..)), "secret")
            });
        }
    }

    /// How often a line with these words is in a tracker's log.
    #[must_use]
    pub fn logged(&self, number: usize, words: &str) -> usize {
        self.log(number).lines().filter(|line| line.contains(words)).count()
    }
}

impl Drop for Trackers {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            // It may have died already.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for number in 1..=self.count() {
                let log = self.log(number);
                let lines: Vec<_> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
                eprintln!("--- end of the log of tracker {number}\n{}", tail.join("\n"));
            }
        }
    }
}
