//! `scripts/bench dfs`: the encrypted store on one machine, four nodes with their chunks on the disk; what the disk itself
//! bears; and Garage and Tahoe-LAFS beside it.
//!
//! What is fetched goes to a tmpfs: the nodes' reading, the lane and the opening are measured, not this disk's writing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_tests::{Store, binary, files_below, random_file, same_content};

use crate::noise::Noise;
use crate::running::{Running, cpu_seconds};
use crate::sample::{Sample, Table};
use crate::stores::{self, Rival};
use crate::{Build, Plan, absent, turns};

const NODES: usize = 4;
/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(180);
/// How often it is looked what repair has copied.
const LOOK: Duration = Duration::from_millis(50);

const DISK: &str = "the disk alone: one file, written and fsynced";
const GET: &str = "GET";

pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    if plan.wants("sealing") {
        sealing();
    }
    let (memory, disk) = (plan.in_memory(), plan.on_disk());
    let file = memory.path().join("file.bin");
    random_file(&file, usize::try_from(plan.bytes).unwrap(), 1);
    let bench = Bench { plan, file, memory: memory.path().into(), disk: disk.path().into() };
    let mut table = Table::new(format!(
        "{} MiB, {NODES} nodes on one disk. CPU of client and nodes, memory of the client.",
        plan.mib()
    ));
    bench.rounds(&mut table, noise);
    table.print();
    noise.compare(&table);
    for copies in [2, 3] {
        if let (Some(disk), Some(put)) = (table.rate(DISK), table.rate(&put_name(copies, true))) {
            println!(
                "- PUT, {copies} copies, fsync: {:.0} % of the disk's own rate divided by {copies}",
                100.0 * put / (disk / f64::from(copies))
            );
        }
    }
    table.compare("GET, one of 4 nodes killed midway", GET);
    for rival in ["Garage", "Tahoe-LAFS"] {
        table.compare(&put_name(3, false), &format!("{rival}: PUT"));
        table.compare(GET, &format!("{rival}: GET"));
    }
    if plan.wants("repair") {
        bench.repair();
    }
}

/// What the bench of sealing prints, which runs alone.
fn sealing() {
    println!("\nSealing alone: chunks of 4 MiB in memory.\n\n| job | threads | GB/s |\n|---|---|---|");
    match Command::new(binary("examples/seal")).output() {
        Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => println!("{error}"),
    }
}

fn put_name(copies: u32, fsync: bool) -> String {
    format!("PUT, {copies} copies{}", if fsync { ", fsync" } else { ", no fsync" })
}

/// The file, and the folders for what comes of it.
struct Bench<'a> {
    plan: &'a Plan,
    file: PathBuf,
    memory: PathBuf,
    disk: PathBuf,
}

impl Bench<'_> {
    fn rounds(&self, table: &mut Table, noise: &mut Noise) {
        let builds = self.plan.builds();
        let mut durable: Vec<Store> =
            builds.iter().map(|build| self.store("durable", build, &[], &[])).collect();
        let quick: Vec<Store> =
            builds.iter().map(|build| self.store("quick", build, &[], &["--no-fsync"])).collect();
        let mut rivals: Vec<Box<dyn Rival>> = Vec::new();
        for rival in [stores::garage(self.plan, &self.disk), stores::tahoe(self.plan, &self.disk)] {
            match rival {
                Ok(rival) => rivals.push(rival),
                Err((name, reason)) => absent(name, &reason),
            }
        }
        for round in 1..=self.plan.runs {
            eprintln!("round {round} of {}", self.plan.runs);
            noise.probe();
            if self.plan.wants(DISK) {
                self.plan.warm(self.plan.bytes);
                table.add(DISK, self.plan.bytes, Ok(self.write()));
            }
            for (fsync, copies, stores) in
                [(false, 2, &quick), (false, 3, &quick), (true, 3, &durable), (true, 2, &durable)]
            {
                for place in turns(round, builds.len()) {
                    let (store, build) = (&stores[place], &builds[place]);
                    let name = format!("{}{}", build.label, put_name(copies, fsync));
                    if self.plan.wants(&name) {
                        table.add(&name, self.plan.bytes, self.put(store, copies));
                        store.ok(&["rm", "file.bin"]);
                    }
                }
            }
            for place in turns(round, builds.len()) {
                self.gets(table, &mut durable[place], &builds[place], 1 + round % NODES);
            }
            for rival in rivals.iter_mut().filter(|rival| self.plan.wants(rival.name())) {
                self.rival(table, &mut **rival, round);
            }
        }
    }

    /// Fetches what is stored for that, undisturbed and with a node that is killed.
    fn gets(&self, table: &mut Table, store: &mut Store, build: &Build, node: usize) {
        let name = format!("{}{GET}", build.label);
        let killed = format!("{}GET, one of 4 nodes killed midway", build.label);
        if !(self.plan.wants(&name) || self.plan.wants(&killed)) {
            return;
        }
        if let Err(failure) = self.put(store, 2) {
            return table.add(&name, self.plan.bytes, Err(failure));
        }
        self.plan.warm(self.plan.bytes);
        let undisturbed = self.get(store);
        let half = undisturbed.as_ref().map_or(1.0, |sample| sample.seconds / 2.0);
        table.add(&name, self.plan.bytes, undisturbed);
        let run = self.get_and_kill(store, node, Duration::from_secs_f64(half));
        table.add(&killed, self.plan.bytes, run);
        store.ok(&["rm", "file.bin"]);
    }

    fn rival(&self, table: &mut Table, rival: &mut dyn Rival, round: usize) {
        let content = self.disk.join(format!("new-{round}.bin"));
        // New bytes each time: some store equal blocks once.
        let bytes = rival.bytes(self.plan.bytes);
        random_file(&content, usize::try_from(bytes).unwrap(), round as u64 + 10);
        self.plan.warm(bytes * 3);
        let put = self.timed(rival.put(&content), &rival.pids());
        table.add(&format!("{}: PUT", rival.name()), bytes, put);
        let got = self.memory.join("rival.bin");
        self.plan.warm(bytes);
        let get = self.timed(rival.get(&got), &rival.pids());
        let get = get.and_then(|sample| right(&content, &got, sample));
        table.add(&format!("{}: GET", rival.name()), bytes, get);
        std::fs::remove_file(&content).unwrap();
    }

    /// A tracker of this build's, and that build's nodes and client, below a folder of that name on the disk.
    fn store(&self, name: &str, build: &Build, for_trackers: &[&str], for_nodes: &[&str]) -> Store {
        let dir = self.disk.join(format!("{}{name}", if build.is_other() { "old-" } else { "" }));
        std::fs::create_dir(&dir).unwrap();
        let mut store = Store::start_with(&dir, (1, NODES), for_trackers, for_nodes, &[]);
        if build.is_other() {
            store.set_client(build.program("dfs"));
            for node in 1..=NODES {
                store.kill(node);
                store.set_program(node, build.program("dfs-server"));
                store.restart(node);
            }
            store.until_up(NODES);
        }
        store
    }

    /// The same bytes into one file, as fast as the disk takes them durably.
    fn write(&self) -> Sample {
        let path = self.disk.join("raw.bin");
        let bytes = std::fs::read(&self.file).unwrap();
        let (own, started) = (std::process::id(), Instant::now());
        let before = cpu_seconds(own);
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let seconds = started.elapsed().as_secs_f64();
        std::fs::remove_file(&path).unwrap();
        Sample { seconds, cpu_seconds: cpu_seconds(own) - before, peak_mib: 0.0 }
    }

    /// A command to its end; CPU of these processes too.
    fn timed(&self, mut command: Command, pids: &[u32]) -> Result<Sample, String> {
        let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
        let before = cpu();
        let mut sample = Running::start(&mut command, &self.memory.join("command.log"))?.finish(LIMIT)?;
        sample.cpu_seconds += cpu() - before;
        Ok(sample)
    }

    fn put(&self, store: &Store, copies: u32) -> Result<Sample, String> {
        let path = self.file.to_str().unwrap();
        self.plan.warm(self.plan.bytes * u64::from(copies));
        self.timed(store.dfs("ann", &["put", path, "--copies", &copies.to_string()]), &pids(store))
    }

    fn get(&self, store: &Store) -> Result<Sample, String> {
        let folder = tempfile::tempdir_in(&self.memory).unwrap();
        let sample = self.timed(get_command(store, folder.path()), &pids(store))?;
        right(&self.file, &folder.path().join("file.bin"), sample)
    }

    fn get_and_kill(&self, store: &mut Store, node: usize, after: Duration) -> Result<Sample, String> {
        self.plan.warm(self.plan.bytes);
        let folder = tempfile::tempdir_in(&self.memory).unwrap();
        let all = pids(store);
        let before: f64 = all.iter().map(|pid| cpu_seconds(*pid)).sum();
        let log = self.memory.join("command.log");
        let mut running = Running::start(&mut get_command(store, folder.path()), &log)?;
        let early = running.ends_within(after);
        let of_killed = all.get(node - 1).map_or(0.0, |pid| cpu_seconds(*pid));
        store.kill(node);
        let sample = running.finish(LIMIT);
        let alive: f64 = pids(store).iter().map(|pid| cpu_seconds(*pid)).sum();
        store.restart(node);
        store.until_up(NODES);
        let mut sample = sample?;
        sample.cpu_seconds += alive + of_killed - before;
        if early {
            return Err("it was done before the node was killed".into());
        }
        right(&self.file, &folder.path().join("file.bin"), sample)
    }

    /// A node loses its disk: how fast its chunks come back, and what a reader notices of it.
    fn repair(&self) {
        let mut table =
            Table::new("A node wiped, two copies, fsync. CPU of all nodes, or of client and nodes.");
        let mut store = self.store("repaired", &self.plan.builds()[0], &["--repair-after", "2s"], &[]);
        let put = "PUT, 2 copies, fsync";
        table.add(put, self.plan.bytes, self.put(&store, 2));
        let alone = "GET undisturbed";
        for _ in 0..self.plan.runs.min(2) {
            self.plan.warm(self.plan.bytes);
            table.add(alone, self.plan.bytes, self.get(&store));
            let (wiped, run, _) = self.wipe(&mut store, false);
            table.add("repair of a wiped node", wiped, run);
            let (wiped, run, get) = self.wipe(&mut store, true);
            table.add("repair during a GET", wiped, run);
            if let Some(get) = get {
                table.add("GET during that repair", self.plan.bytes, get);
            }
        }
        table.print();
        table.compare("repair of a wiped node", put);
        table.compare("GET during that repair", alone);
    }

    /// Wipes a node; times from its first copied chunk to the last, and one GET meanwhile.
    fn wipe(
        &self,
        store: &mut Store,
        read: bool,
    ) -> (u64, Result<Sample, String>, Option<Result<Sample, String>>) {
        self.plan.warm(self.plan.bytes);
        let whole: u64 = (1..=NODES).map(|node| held(store, node)).sum();
        store.kill(1);
        let chunks = store.data(1).join("chunks");
        let wiped = bytes_below(&chunks);
        std::fs::remove_dir_all(&chunks).unwrap();
        store.restart(1);
        let all = || (1..=NODES).map(|node| held(store, node)).sum::<u64>();
        let lost = whole - wiped;
        let deadline = Instant::now() + LIMIT;
        while all() <= lost {
            if Instant::now() > deadline {
                return (wiped, Err("nothing was copied".into()), None);
            }
            std::thread::sleep(LOOK);
        }
        let cpu = || pids(store).iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
        let (started, before) = (Instant::now(), cpu());
        std::thread::scope(|scope| {
            let get = read.then(|| scope.spawn(|| self.get(store)));
            let mut run = Err(format!("not all was copied within {} s", LIMIT.as_secs()));
            while Instant::now() < deadline {
                if all() >= whole {
                    let seconds = started.elapsed().as_secs_f64();
                    run = Ok(Sample { seconds, cpu_seconds: cpu() - before, peak_mib: 0.0 });
                    break;
                }
                std::thread::sleep(LOOK);
            }
            (wiped, run, get.map(|get| get.join().unwrap()))
        })
    }
}

fn get_command(store: &Store, to: &Path) -> Command {
    store.dfs("ann", &["get", "file.bin", "-o", to.to_str().unwrap()])
}

fn pids(store: &Store) -> Vec<u32> {
    (1..=NODES).filter_map(|node| store.pid(node)).collect()
}

fn held(store: &Store, node: usize) -> u64 {
    bytes_below(&store.data(node).join("chunks"))
}

fn bytes_below(folder: &Path) -> u64 {
    // A temporary name may be gone by now.
    files_below(folder).iter().filter_map(|path| path.metadata().ok()).map(|data| data.len()).sum()
}

/// The sample, if the file is right; it is removed.
fn right(original: &Path, got: &Path, sample: Sample) -> Result<Sample, String> {
    let same = same_content(original, got);
    // There may be none.
    let _ = std::fs::remove_file(got);
    if same { Ok(sample) } else { Err("the file is not right".into()) }
}
