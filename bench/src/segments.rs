//! `scripts/bench segments`: one file from several HTTP servers, by `fetch` and by what people use; and what one core of
//! our `server` serves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_tests::{random_file, same_content, sha1_of};

use crate::http::{Server, pinned};
use crate::links::{Links, own_loopback};
use crate::noise::Noise;
use crate::running::{Running, installed};
use crate::sample::{Sample, Table};
use crate::{Plan, absent, turns};

/// Servers that have the file.
const SERVERS: usize = 4;
/// How long a download may take.
const LIMIT: Duration = Duration::from_secs(90);
/// What the slow server sends, in MB/s a connection.
const SLOW: u32 = 1;
/// Rate of each server's link where one of four dies, in Mbit/s.
const PACED: u32 = 512;
/// Rate of each of four links, in Mbit/s.
const LINK: u32 = 100;
/// Clients at once where it is measured what a server bears.
const CLIENTS: usize = 2;
/// Size of the file that shows whether memory grows with it, under `--long`.
const HUGE: u64 = 16 << 30;

/// What downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Fetch,
    /// Given the SHA-1 that the file must have.
    FetchSha1,
    /// The other build's.
    OldFetch,
    /// The other build's, given the SHA-1.
    OldFetchSha1,
    Axel,
    Aria2,
    /// With splits of 1 MiB.
    Aria2Fine,
    /// From the first server only.
    Curl,
}

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::FetchSha1 => "fetch --sha1",
            Self::OldFetch => "old build: fetch",
            Self::OldFetchSha1 => "old build: fetch --sha1",
            Self::Axel => "axel -n 4",
            Self::Aria2 => "aria2 -x4 -s4",
            Self::Aria2Fine => "aria2 -x4 -s4 -k1M",
            Self::Curl => "curl, one server",
        }
    }

    fn installed(self, plan: &Plan) -> bool {
        match self {
            Self::Fetch | Self::FetchSha1 => true,
            Self::OldFetch | Self::OldFetchSha1 => plan.old.is_some(),
            Self::Axel => installed("axel"),
            Self::Aria2 | Self::Aria2Fine => installed("aria2c"),
            Self::Curl => installed("curl"),
        }
    }
}

/// Files, and four nginx that have them.
struct Lab<'a> {
    plan: &'a Plan,
    dir: PathBuf,
    file: PathBuf,
    sha1: String,
    clients: Vec<Client>,
    table: Table,
}

pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    let dir = plan.in_memory();
    if !installed("nginx") {
        return absent("segments", "nginx is not installed");
    }
    let file = dir.path().join("file.bin");
    random_file(&file, usize::try_from(plan.bytes).unwrap(), 1);
    let sha1 = sha1_of(&file);
    let own = [Client::Fetch, Client::FetchSha1, Client::OldFetch, Client::OldFetchSha1];
    let all = own.into_iter().chain([Client::Axel, Client::Aria2, Client::Aria2Fine, Client::Curl]);
    let (clients, missing): (Vec<_>, Vec<_>) = all.partition(|client| client.installed(plan));
    let missing = missing.iter().filter(|client| !own.contains(client));
    missing.for_each(|client| absent(client.name(), "it is not installed"));
    let title = format!(
        "{} MiB, on a tmpfs. CPU of client and servers, memory of the client; every file compared.",
        plan.mib()
    );
    let mut lab = Lab { plan, dir: dir.path().into(), file, sha1, clients, table: Table::new(title) };
    for round in 1..=plan.runs {
        eprintln!("round {round} of {}", plan.runs);
        noise.probe();
        lab.undisturbed(round);
        lab.one_slow(round == 1);
        lab.one_killed();
    }
    lab.table.print();
    noise.compare(&lab.table);
    lab.say_how_it_compares();
    if plan.wants("one core") {
        lab.one_core();
    }
    if !plan.wants("links") {
        return;
    }
    if own_loopback() {
        lab.links();
    } else {
        absent("servers with links of a given rate", "that needs root, unshare and tc");
    }
    if plan.long {
        lab.huge();
    }
}

impl Lab<'_> {
    fn nginx(&self) -> Result<Vec<Server>, String> {
        (0..SERVERS).map(|_| Server::nginx(&self.dir, &self.file, None, None)).collect()
    }

    /// Ours come one after the other: the first computes the digests, which the others find.
    fn ours(&self) -> Result<Vec<Server>, String> {
        (0..SERVERS).map(|_| Server::ours(&self.dir, &self.file, None)).collect()
    }

    fn has(&self, client: Client) -> bool {
        self.clients.contains(&client)
    }

    fn undisturbed(&mut self, round: usize) {
        let mut servers = self.nginx().unwrap();
        let in_turn: Vec<Client> =
            turns(round, self.clients.len()).map(|place| self.clients[place]).collect();
        for client in in_turn {
            let name = format!("4 nginx: {}", client.name());
            if !self.plan.wants(&name) {
                continue;
            }
            let run = self.download(client, &mut servers, None);
            self.table.add(&name, self.plan.bytes, run);
        }
        drop(servers);
        let mut servers = self.ours().unwrap();
        for client in [Client::FetchSha1, Client::OldFetchSha1, Client::Aria2Fine, Client::Curl] {
            let name = format!("4 of our server: {}", client.name());
            if self.has(client) && self.plan.wants(&name) {
                let run = self.download(client, &mut servers, None);
                self.table.add(&name, self.plan.bytes, run);
            }
        }
    }

    /// One of four at 1 MB/s. Those that wait for it do so once only.
    fn one_slow(&mut self, first_round: bool) {
        let mut servers = self.nginx().unwrap();
        servers[0] = Server::nginx(&self.dir, &self.file, Some(SLOW), None).unwrap();
        for client in [Client::Fetch, Client::OldFetch, Client::Aria2Fine, Client::Aria2, Client::Axel] {
            let waits = matches!(client, Client::Aria2 | Client::Axel);
            let name = format!("one of 4 nginx at {SLOW} MB/s: {}", client.name());
            if self.has(client) && (first_round || !waits) && self.plan.wants(&name) {
                let run = self.download(client, &mut servers, None);
                self.table.add(&name, self.plan.bytes, run);
            }
        }
    }

    /// One of four killed when half the time of the undisturbed download is over.
    fn one_killed(&mut self) {
        for client in [Client::Fetch, Client::Aria2Fine, Client::Axel] {
            let undisturbed = self.table.seconds(&format!("4 nginx: {}", client.name()));
            let Some(seconds) = undisturbed else { continue };
            let name = format!("one of 4 nginx killed midway: {}", client.name());
            if !self.plan.wants(&name) {
                continue;
            }
            let mut servers = self.nginx().unwrap();
            let run = self.download(client, &mut servers, Some(Duration::from_secs_f64(seconds / 2.0)));
            self.table.add(&name, self.plan.bytes, run);
        }
    }

    /// One download from these servers; the first is killed after that time.
    fn download(
        &self,
        client: Client,
        servers: &mut Vec<Server>,
        kill_after: Option<Duration>,
    ) -> Result<Sample, String> {
        let output = self.dir.join("got.bin");
        // A failed run may have left it, and what it needs to go on.
        remove_matching(&self.dir, "got.bin");
        self.plan.warm(self.file.metadata().unwrap().len());
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        servers.iter_mut().for_each(|server| server.running.mark());
        let mut command = self.command(client, &urls, &output);
        let mut running = Running::start(&mut command, &self.dir.join("client.log"))?;
        let mut of_servers = 0.0;
        if let Some(time) = kill_after {
            if running.ends_within(time) {
                return Err("it was done before the server was killed".into());
            }
            of_servers += servers.remove(0).running.cpu();
        }
        let mut sample = running.finish(LIMIT)?;
        of_servers += servers.iter().map(|server| server.running.cpu()).sum::<f64>();
        sample.cpu_seconds += of_servers;
        let right = same_content(&self.file, &output);
        remove_matching(&self.dir, "got.bin");
        if right { Ok(sample) } else { Err("it says that all is well, but the file is wrong".into()) }
    }

    fn command(&self, client: Client, urls: &[String], output: &Path) -> Command {
        let mut command;
        match client {
            Client::Fetch | Client::FetchSha1 | Client::OldFetch | Client::OldFetchSha1 => {
                let old = matches!(client, Client::OldFetch | Client::OldFetchSha1);
                let builds = self.plan.builds();
                command = Command::new(builds[usize::from(old)].program("fetch"));
                command.args(["-i", "0", "-o"]).arg(output);
                if matches!(client, Client::FetchSha1 | Client::OldFetchSha1) {
                    command.args(["--sha1", &self.sha1]);
                }
                command.args(urls);
            }
            Client::Axel => {
                command = Command::new("axel");
                command.args(["-q", "-n", "4", "-o"]).arg(output).args(urls);
            }
            Client::Aria2 | Client::Aria2Fine => {
                command = Command::new("aria2c");
                command.args(["--no-conf", "-x4", "-s4", "--file-allocation=none", "--disable-ipv6=true"]);
                command.args([
                    "--summary-interval=0",
                    "--show-console-readout=false",
                    "--console-log-level=warn",
                ]);
                command.arg("-d").arg(output.parent().unwrap()).arg("-o").arg(output.file_name().unwrap());
                if client == Client::Aria2Fine {
                    command.arg("-k1M");
                }
                command.args(urls);
            }
            Client::Curl => {
                command = Command::new("curl");
                command.args(["-sS", "-o"]).arg(output).arg(&urls[0]);
            }
        }
        command
    }

    fn say_how_it_compares(&self) {
        let against = |one: &str, other: &str| self.table.compare(one, other);
        for rival in [Client::Axel, Client::Aria2, Client::Aria2Fine, Client::Curl] {
            against("4 nginx: fetch", &format!("4 nginx: {}", rival.name()));
        }
        against("4 nginx: fetch", "4 nginx: old build: fetch");
        against("4 nginx: fetch --sha1", "4 nginx: old build: fetch --sha1");
        against("4 of our server: fetch --sha1", "4 nginx: fetch --sha1");
        against(&format!("one of 4 nginx at {SLOW} MB/s: fetch"), "4 nginx: fetch");
        against("one of 4 nginx killed midway: fetch", "4 nginx: fetch");
    }

    /// What a server bears that has one core, for clients on the others.
    fn one_core(&mut self) {
        if !(installed("taskset") && installed("curl")) {
            return absent("what one core serves", "that needs taskset and curl");
        }
        let bytes = self.plan.bytes * CLIENTS as u64;
        let mut table = Table::new(format!(
            "One server on one core, {CLIENTS} curls on another that throw away what they get. CPU of the server only."
        ));
        for _ in 0..self.plan.runs {
            let servers = [
                ("our server", Server::ours(&self.dir, &self.file, Some(0))),
                ("nginx, sendfile", Server::nginx(&self.dir, &self.file, None, Some(0))),
            ];
            for (name, server) in servers {
                table.add(name, bytes, server.and_then(|server| self.serve(server)));
            }
        }
        table.print();
    }

    fn serve(&self, mut server: Server) -> Result<Sample, String> {
        server.running.mark();
        let started = Instant::now();
        let curls: Result<Vec<Running>, String> = (0..CLIENTS)
            .map(|number| {
                let mut command = pinned("curl".into(), Some(1));
                command.args(["-sS", "-o", "/dev/null", &server.url()]);
                Running::start(&mut command, &self.dir.join(format!("curl-{number}.log")))
            })
            .collect();
        for mut curl in curls? {
            curl.finish(LIMIT)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(Sample { seconds, cpu_seconds: server.running.cpu(), peak_mib: server.running.sample().peak_mib })
    }

    /// Servers whose links have a given rate.
    fn links(&mut self) {
        self.paced_and_killed();
        let small = self.dir.join("small.bin");
        let bytes = self.plan.bytes / 4;
        random_file(&small, usize::try_from(bytes).unwrap(), 2);
        self.sha1 = sha1_of(&small);
        let large = std::mem::replace(&mut self.file, small);
        self.four_links(bytes);
        std::fs::remove_file(std::mem::replace(&mut self.file, large)).unwrap();
    }

    /// One of four killed midway; what the other links can still bring is the bound.
    fn paced_and_killed(&mut self) {
        // Half the time that all four links together need.
        let megabytes = self.plan.bytes as f64 / 1e6;
        let half = megabytes * 8.0 / f64::from(PACED) / SERVERS as f64 / 2.0;
        let mut table = Table::new(format!(
            "{} MiB, four nginx with {PACED} Mbit/s each, one killed after {half:.1} s.",
            self.plan.mib()
        ));
        for _ in 0..self.plan.runs {
            for client in [Client::Fetch, Client::Aria2Fine] {
                if !self.has(client) {
                    continue;
                }
                for kill in [None, Some(Duration::from_secs_f64(half))] {
                    let mut servers = self.nginx().unwrap();
                    let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
                    let links = Links::shape(&ports, PACED);
                    let name = if kill.is_some() { "one killed" } else { "undisturbed" };
                    let run = links.and_then(|_links| self.download(client, &mut servers, kill));
                    table.add(&format!("{name}: {}", client.name()), self.plan.bytes, run);
                }
            }
        }
        table.print();
        if let Some(rate) = table.rate("undisturbed: fetch") {
            let seconds = half + (megabytes - half * rate) / (rate * 0.75);
            let bound = megabytes / seconds;
            println!(
                "- what the rates allow after the kill: {bound:.0} MB/s, from the undisturbed rate of fetch"
            );
        }
    }

    /// Four links of 100 Mbit/s, against four curls that fetch a quarter each.
    fn four_links(&mut self, bytes: u64) {
        let mut table = Table::new(format!("{} MiB, four nginx with {LINK} Mbit/s each.", bytes >> 20));
        let curls = "four curls, a quarter each";
        for _ in 0..self.plan.runs {
            let mut servers = self.nginx().unwrap();
            let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
            let links = match Links::shape(&ports, LINK) {
                Ok(links) => links,
                Err(error) => return absent("four links", &error),
            };
            if self.has(Client::Curl) {
                table.add(curls, bytes, self.quarters(&mut servers, bytes));
            }
            for client in [Client::Fetch, Client::OldFetch, Client::Aria2Fine] {
                if self.has(client) {
                    let run = self.download(client, &mut servers, None);
                    table.add(client.name(), bytes, run);
                }
            }
            drop(links);
        }
        table.print();
        table.compare("fetch", curls);
    }

    fn quarters(&self, servers: &mut [Server], bytes: u64) -> Result<Sample, String> {
        let quarter = bytes / 4;
        servers.iter_mut().for_each(|server| server.running.mark());
        let started = Instant::now();
        let mut curls = Vec::new();
        for (number, server) in (0..).zip(servers.iter()) {
            let range = format!("{}-{}", number * quarter, (number + 1) * quarter - 1);
            let mut command = Command::new("curl");
            command.args(["-sS", "-o", "/dev/null", "-r", &range, &server.url()]);
            curls.push(Running::start(&mut command, &self.dir.join(format!("curl-{number}.log")))?);
        }
        let mut cpu_seconds = 0.0;
        for curl in &mut curls {
            cpu_seconds += curl.finish(LIMIT)?.cpu_seconds;
        }
        cpu_seconds += servers.iter().map(|server| server.running.cpu()).sum::<f64>();
        Ok(Sample { seconds: started.elapsed().as_secs_f64(), cpu_seconds, peak_mib: 0.0 })
    }

    /// Whether memory grows with the file.
    fn huge(&mut self) {
        std::fs::remove_file(&self.file).unwrap();
        random_file(&self.file, usize::try_from(HUGE).unwrap(), 3);
        let mut table = Table::new("16 GiB from four nginx.");
        let mut servers = self.nginx().unwrap();
        table.add("fetch", HUGE, self.download(Client::Fetch, &mut servers, None));
        if self.has(Client::Aria2Fine) {
            table.add("aria2 -k1M", HUGE, self.download(Client::Aria2Fine, &mut servers, None));
        }
        table.print();
    }
}

/// Removes the files of a folder whose names have that in them.
fn remove_matching(folder: &Path, name: &str) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains(name) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}
