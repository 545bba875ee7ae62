//! An Internet of routers and hosts on this machine, which `scripts/lib/nat.c` makes: every host is a network namespace whose only
//! way out is through its router, so not one packet leaves the machine. What crossed is read from the routers' counters.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::{root_or_skip, skip};

/// What went from one host to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes that arrived, with all headers.
    pub bytes: u64,
    /// TCP connections that were begun and whose first packet arrived.
    pub connections: u64,
}

/// What went between hosts: from, to, and whether it stayed within their network.
pub type Flows = HashMap<(String, String, bool), Flow>;

/// See the module. Its namespaces end with it.
pub struct Internet {
    prefix: String,
    process: Child,
    answers: Mutex<BufReader<ChildStdout>>,
}

impl Internet {
    /// Makes one of these routers and hosts (see `nat.c`), a packet taking `delay_ms` through it each way. Nothing, and a note, where
    /// that cannot be done here.
    ///
    /// # Panics
    /// When `nat.c` does not compile, or a node is none.
    #[must_use]
    pub fn or_skip(test: &str, dir: &Path, delay_ms: u32, nodes: &[&str]) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        let tools = Command::new("ip").arg("netns").output().is_ok_and(|output| output.status.success());
        if !tools || !Path::new("/dev/net/tun").exists() {
            skip(test, "needs /dev/net/tun and iproute2 with network namespaces");
            return None;
        }
        let (source, program) =
            (concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lib/nat.c"), dir.join("nat"));
        let compiled = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "nat.c does not compile");
        let prefix = format!("reach{}x{}", std::process::id(), fastrand::u16(..));
        let mut process = Command::new(program)
            .arg(&prefix)
            .arg(delay_ms.to_string())
            .args(nodes)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the Internet is not made of {nodes:?}");
        Some(Self { prefix, process, answers: Mutex::new(answers) })
    }

    /// A program to be run on a host.
    #[must_use]
    pub fn on(&self, host: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{host}", self.prefix)]).arg(program);
        command
    }

    /// Gives a host another address in the place of the one that it has, as its router leads to both.
    pub fn renumber(&self, host: &str, from: &str, to: &str) {
        let namespace = format!("{}-{host}", self.prefix);
        for (what, address) in [("del", from), ("add", to)] {
            let done =
                Command::new("ip").args(["-n", &namespace, "addr", what, address, "dev", "net0"]).status();
            assert!(done.is_ok_and(|status| status.success()), "ip addr {what} {address}");
        }
        let again = Command::new("ip")
            .args(["-n", &namespace, "route", "replace", "default", "dev", "net0"])
            .status();
        assert!(again.is_ok_and(|status| status.success()));
    }

    /// What crossed since [`forget`](Self::forget).
    ///
    /// # Panics
    /// When `nat.c` has ended.
    #[must_use]
    pub fn flows(&self) -> Flows {
        let mut flows = Flows::new();
        for line in self.ask("count") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, from, to, place, bytes, connections] = words[..] else { panic!("{line}") };
            let flow = Flow { bytes: bytes.parse().unwrap(), connections: connections.parse().unwrap() };
            flows.insert((from.to_owned(), to.to_owned(), place == "lan"), flow);
        }
        flows
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        let _ = self.ask("reset");
    }

    fn ask(&self, question: &str) -> Vec<String> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut input = self.process.stdin.as_ref().unwrap();
        // In one write: it is read as one.
        input.write_all(format!("{question}\n").as_bytes()).unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(answers.read_line(&mut line).unwrap() > 0, "nat ended");
            if line.trim() == "end" {
                return lines;
            }
            lines.push(line.trim().to_owned());
        }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
