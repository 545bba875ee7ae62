//! A cluster of tracker processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::{Member, free_port, tracker_command, until};

/// Trackers on loopback, numbered from 1.
pub struct Trackers {
    dir: PathBuf,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
    arguments: Vec<String>,
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
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let lines: Vec<String> = ports.iter().map(|port| format!("127.0.0.1 {port}\n")).collect();
        std::fs::write(dir.join("tracker_info.txt"), lines.concat()).unwrap();
        let mut trackers = Self {
            dir: dir.to_owned(),
            running: ports.iter().map(|_| None).collect(),
            ports,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        for number in 1..=count {
            trackers.restart(number);
        }
        trackers
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
        self.ports[number - 1]
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

    /// Starts a tracker that does not run, and waits until it listens.
    pub fn restart(&mut self, number: usize) {
        let log =
            File::options().create(true).append(true).open(self.dir.join(format!("tracker-{number}.log")));
        let child = tracker_command(&self.info(), number, &self.data(number))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.running[number - 1] = Some(child);
        let port = self.port(number);
        until("the tracker listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
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

    /// Waits until the trackers are linked and in step: a name created at one of them is definite at once (T7).
    pub fn until_in_step(&self) {
        for number in 1..=self.ports.len() {
            let mut member = Member::connect(self.port(number));
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
            for number in 1..=self.ports.len() {
                eprintln!("--- log of tracker {number}\n{}", self.log(number));
            }
        }
    }
}
