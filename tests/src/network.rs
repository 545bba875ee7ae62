//! Machines of their own on a network of the test's own: Linux network namespaces behind a router that can be made to lose
//! what one sends to another, one way or both.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};

use crate::{root_or_skip, skip, until};

/// Set in the process that runs a test inside its own network.
const INSIDE: &str = "SHOAL_OWN_NETWORK";

/// Whether this process is on a network of the test's own. If not, the test is run again in a process that is, and has to
/// pass there; the caller returns. Skipped, and noted, without root or the tools.
///
/// # Panics
/// When the test fails there.
#[must_use]
pub fn in_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !root_or_skip(test) {
        return false;
    }
    let probe = ["--net", "nsenter", "--net=/proc/self/ns/net", "ip", "link", "set", "lo", "up"];
    if !Command::new("unshare").args(probe).status().is_ok_and(|status| status.success()) {
        skip(test, "needs network namespaces, iproute2 and util-linux");
        return false;
    }
    let inside = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status();
    assert!(inside.unwrap().success(), "{test} failed on its own network");
    false
}

/// Machines behind a router, which is where the test itself is. They vanish with it.
pub struct Network(Vec<Child>);

impl Network {
    /// Makes so many machines. To be called once, [`in_own_network`].
    #[must_use]
    pub fn new(machines: u8) -> Self {
        ip(&["link", "set", "lo", "up"]);
        // Each namespace has a file of its own here.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut network = Self(Vec::new());
        for number in 1..=machines {
            network.add(number);
        }
        network
    }

    /// A process holds the namespace for as long as the network is there.
    fn add(&mut self, number: u8) {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().unwrap();
        let of = |process: &str| std::fs::metadata(format!("/proc/{process}/ns/net")).map(|file| file.ino());
        let (id, own) = (holder.id().to_string(), of("self").unwrap());
        self.0.push(holder);
        until("a namespace is there", || of(&id).is_ok_and(|namespace| namespace != own));
        let (port, router) = (format!("r{number}"), format!("10.83.{number}.254"));
        ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &id]);
        ip(&["addr", "add", &format!("{router}/24"), "dev", &port]);
        ip(&["link", "set", &port, "up"]);
        let inside = |arguments: &[&str]| succeed(self.on(number, "ip").args(arguments));
        inside(&["link", "set", "lo", "up"]);
        inside(&["addr", "add", &format!("{}/24", self.address(number)), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        inside(&["route", "add", "default", "via", &router]);
    }

    /// A machine's address.
    #[must_use]
    pub fn address(&self, number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 83, number, 1))
    }

    /// A program to be run on a machine.
    #[must_use]
    pub fn on(&self, number: u8, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0[usize::from(number) - 1].id().to_string(), "-n", "--", program]);
        command
    }

    /// Loses from now on what one machine sends to another. What the other one sends still arrives.
    pub fn cut(&self, from: u8, to: u8) {
        self.rule("add", from, to);
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&self, from: u8, to: u8) {
        self.rule("del", from, to);
    }

    fn rule(&self, what: &str, from: u8, to: u8) {
        let (from, to) = (self.address(from).to_string(), self.address(to).to_string());
        ip(&["rule", what, "from", &from, "to", &to, "pref", "10", "blackhole"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn ip(arguments: &[&str]) {
    succeed(Command::new("ip").args(arguments));
}

fn succeed(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
