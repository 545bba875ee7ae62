//! One seeder and many leechers, each on a machine of its own (a network namespace) behind a link of a given rate: how much
//! longer than it must the whole swarm takes until the last one has the file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use shoal_tests::{Client, Manners, Member, Network, Seeder, Trackers, random_file, same_content};

use crate::links::{self, own_loopback};
use crate::noise::Noise;
use crate::running::{cpu_seconds, wait_until_idle};
use crate::{Plan, absent};

/// Size of the file.
const BYTES: u64 = 32 << 20;
/// What a link carries, up and down, in megabits per second.
const UP: f64 = 40.0;
const DOWN: f64 = 200.0;
/// What a slow one carries upwards.
const SLOW_UP: f64 = 4.0;
/// Machines of the tracker, whose link has no limit, and of the seeder; the leechers' follow.
const TRACKER: u8 = 1;
const SEEDER: u8 = 2;
const FIRST: u8 = 3;

/// Who is in a swarm beside the seeder.
#[derive(Clone, Copy)]
struct Crew {
    leechers: u8,
    /// How many of them, the last ones, have a slow link.
    slow: u8,
    /// Whether a member with an unlimited link offers the file and sends wrong bytes.
    liar: bool,
}

const CREWS: [Crew; 3] = [
    Crew { leechers: 8, slow: 0, liar: false },
    Crew { leechers: 20, slow: 2, liar: false },
    Crew { leechers: 20, slow: 2, liar: true },
];

/// A swarm of real clients.
struct Swarm {
    seeder: Client,
    leechers: Vec<Client>,
    crew: Crew,
    trackers: Trackers,
    network: Arc<Network>,
    dir: tempfile::TempDir,
}

/// Prints a table: 8 leechers, then 20 of which two are slow, then a liar among them.
pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    noise.probe();
    let what = "1 → 8 and 1 → 20 over links of 40 Mbit/s";
    if !own_loopback() {
        return absent(what, "which needs root and network namespaces");
    }
    println!(
        "\n{} MiB from one seeder to all, uplinks of {UP} Mbit/s, downlinks of {DOWN}; until the last one has it.\n",
        BYTES >> 20
    );
    println!(
        "| swarm | s | × the bound | copies the seeder's link carried | CPU s | banned the liar, of those it served |"
    );
    println!("|---|---|---|---|---|---|");
    for crew in CREWS {
        let mut swarm = match Swarm::start(plan, crew) {
            Ok(swarm) => swarm,
            Err(reason) => return absent(what, &reason),
        };
        let mut runs: Vec<Run> = (0..plan.runs).map(|round| swarm.distribute(round)).collect();
        runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        let (median, bound) = (&runs[runs.len() / 2], swarm.bound());
        println!(
            "| {crew} | {:.1} ({:.1}–{:.1}) | {:.2} | {:.2} | {:.1} | {} |",
            median.seconds,
            runs[0].seconds,
            runs[runs.len() - 1].seconds,
            median.seconds / bound,
            median.copies,
            median.cpu_seconds,
            runs.iter().filter_map(|run| run.banned.clone()).collect::<Vec<_>>().join("; ")
        );
    }
}

struct Run {
    seconds: f64,
    /// What left the seeder's machine, headers and all, in sizes of the file.
    copies: f64,
    cpu_seconds: f64,
    /// How many banned the liar, of those to whom it sent something.
    banned: Option<String>,
}

impl std::fmt::Display for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1 → {}", self.leechers)?;
        if self.slow > 0 {
            write!(f, ", {} of them with {SLOW_UP} Mbit/s", self.slow)?;
        }
        if self.liar { write!(f, ", and a liar") } else { Ok(()) }
    }
}

impl Swarm {
    fn start(plan: &Plan, crew: Crew) -> Result<Self, String> {
        let leechers = crew.leechers;
        let (dir, network) = (plan.in_memory(), Arc::new(Network::new(SEEDER + leechers)));
        for machine in SEEDER..FIRST + leechers {
            let is_slow = machine - SEEDER > leechers - crew.slow;
            let up = format!("{}mbit", if is_slow { SLOW_UP } else { UP });
            links::succeed(network.on(machine, "tc").args(tbf("eth0", &up, "16kb")))?;
            links::succeed(Command::new("tc").args(tbf(
                &format!("r{machine}"),
                &format!("{DOWN}mbit"),
                "64kb",
            )))?;
        }
        let trackers = Trackers::start_on(&network, dir.path(), TRACKER);
        let client = |machine: u8| {
            Client::start_on(&network, machine, dir.path(), &format!("c{machine}"), &trackers.info())
                .entered()
        };
        let mut seeder = client(SEEDER);
        let mut leechers: Vec<Client> = (FIRST..FIRST + leechers).map(client).collect();
        seeder.ok("create_group g");
        seeder.let_in("g", &mut leechers.iter_mut().collect::<Vec<_>>());
        Ok(Self { seeder, leechers, crew, trackers, network, dir })
    }

    /// The time that no swarm can beat: the seeder's link has to carry the file once, and all links together carry it to
    /// everyone.
    fn bound(&self) -> f64 {
        let (leechers, slow) = (f64::from(self.crew.leechers), f64::from(self.crew.slow));
        let megabits = BYTES as f64 * 8e-6;
        let up = UP * (1.0 + leechers - slow) + SLOW_UP * slow;
        (megabits / UP).max(leechers * megabits / up)
    }

    fn distribute(&mut self, round: usize) -> Run {
        let name = format!("file{round}.bin");
        let source = self.dir.path().join(&name);
        random_file(&source, usize::try_from(BYTES).unwrap(), round as u64);
        self.seeder.ok(&format!("upload_file {} g", source.display()));
        let liar = self.crew.liar.then(|| self.liar(&name, &source, round));
        let pids: Vec<u32> = self.leechers.iter().chain([&self.seeder]).map(Client::pid).collect();
        let cpu = || pids.iter().map(|&pid| cpu_seconds(pid)).sum::<f64>();
        let (cpu_before, sent_before, began) = (cpu(), self.sent(), Instant::now());
        let copies: Vec<PathBuf> = (0..self.leechers.len()).map(|number| self.copy(number, &name)).collect();
        for (leecher, copy) in self.leechers.iter_mut().zip(&copies) {
            leecher.ok(&format!("download_file g {name} {}", copy.display()));
        }
        for leecher in &mut self.leechers {
            wait_until_idle(leecher).unwrap();
        }
        let seconds = began.elapsed().as_secs_f64();
        let copies_sent = (self.sent() - sent_before) / BYTES as f64;
        assert!(copies.iter().all(|copy| same_content(&source, copy)), "a copy is not right");
        let cpu_seconds = cpu() - cpu_before;
        let banned = liar.map(|liar| format!("{} of {}", self.banned_in(&name), liar.takers()));
        Run { seconds, copies: copies_sent, cpu_seconds, banned }
    }

    /// A member of the group who offers the file.
    fn liar(&mut self, file: &str, content: &Path, round: usize) -> Seeder {
        let mut liar = Member::connect(self.trackers.address(1));
        liar.enter(&format!("liar{round}"));
        liar.join("g");
        self.seeder.ok(&format!("accept_request g liar{round}"));
        Seeder::start(liar, ("g", file), content, Manners::Lies, usize::MAX)
    }

    /// How many leechers banned a source of that file.
    fn banned_in(&self, file: &str) -> usize {
        let banned = |leecher: &&Client| {
            leecher.events().iter().any(|event| event["event"] == "source_banned" && event["file"] == file)
        };
        self.leechers.iter().filter(banned).count()
    }

    fn copy(&self, number: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("{number}-{name}"))
    }

    /// Bytes that have left the seeder's machine.
    fn sent(&self) -> f64 {
        let output = self.network.on(SEEDER, "cat").arg(Path::new("/proc/self/net/dev")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
        line.split_whitespace().nth(8).unwrap().parse().unwrap()
    }
}

/// A link of that rate.
fn tbf<'a>(device: &'a str, rate: &'a str, burst: &'a str) -> [&'a str; 12] {
    ["qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst", burst, "latency", "50ms"]
}
