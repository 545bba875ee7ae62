//! `scripts/bench swarm`: downloads between real clients, the raw ceiling, and `BitTorrent` programs, interleaved; then
//! sharing a large file and many small ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sha1::Digest as _;
use shoal_tests::{Client, Trackers, random_file, same_content};

use crate::noise::Noise;
use crate::running::{Running, cpu_seconds, forget_peak, installed, peak_mib, wait_until_idle};
use crate::sample::{Sample, Table};
use crate::torrents::Torrents;
use crate::{Build, Plan, ceiling, distribution, turns};

/// Size of the file that is shared to see how fast that is.
const LARGE: u64 = 4 << 30;
/// Size of the file that shows whether memory grows with it, under `--long`.
const HUGE: u64 = 16 << 30;
/// How many small files, and how small.
const SMALL_FILES: usize = 2_000;
const SMALL_BYTES: usize = 64 * 1024;
/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(300);

const CEILING: &str = "raw ceiling: plain TCP, one SHA-1 a piece, write";
const ONE: &str = "1 seeder → 1";
const FOUR: &str = "4 seeders → 1";
const DISK: &str = "1 seeder → 1, onto the disk, fsync counted";

/// Everything of one run.
struct Swarm<'a> {
    plan: &'a Plan,
    build: Build,
    dir: PathBuf,
    source: PathBuf,
    /// Of the names of its users and groups.
    prefix: &'static str,
    seeders: Vec<Client>,
    leecher: Client,
}

pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    let (dir, disk) = (plan.in_memory(), plan.on_disk());
    let source = dir.path().join("source.bin");
    random_file(&source, usize::try_from(plan.bytes).unwrap(), 1);
    let trackers = Trackers::start(dir.path(), 1);
    let mut swarms: Vec<_> =
        plan.builds().into_iter().map(|build| Swarm::start(plan, build, &source, &trackers)).collect();
    let torrents = Torrents::find(plan, dir.path(), &source);
    let mut table = Table::new(format!(
        "{} MiB, on a tmpfs, where fsync costs nothing. CPU of all that send or receive; memory of the receiver.",
        plan.mib()
    ));
    for round in 1..=plan.runs {
        eprintln!("round {round} of {}", plan.runs);
        noise.probe();
        if plan.wants(CEILING) {
            plan.warm(plan.bytes);
            table.add(CEILING, plan.bytes, Ok(ceiling::receive(dir.path(), &source)));
        }
        for (job, group, seeders, to) in
            [(ONE, "one", 1, dir.path()), (FOUR, "four", 4, dir.path()), (DISK, "one", 1, disk.path())]
        {
            for place in turns(round, swarms.len()) {
                let swarm = &mut swarms[place];
                let name = format!("{}{job}", swarm.build.label);
                if !plan.wants(&name) {
                    continue;
                }
                table.add(&name, plan.bytes, swarm.download(group, seeders, to));
            }
        }
        for (client, seeders) in torrents.jobs() {
            let name = format!("{}, {seeders} → 1", client.name());
            if !plan.wants(&name) {
                continue;
            }
            plan.warm(plan.bytes);
            table.add(&name, plan.bytes, torrents.download(client, seeders));
        }
    }
    table.print();
    noise.compare(&table);
    table.compare(ONE, CEILING);
    table.compare(ONE, "libtorrent 2.1, 1 → 1");
    table.compare(FOUR, "libtorrent 2.1, 4 → 1");
    table.compare(FOUR, "rqbit, 4 → 1");
    table.compare(FOUR, ONE);
    for job in [ONE, FOUR, DISK] {
        table.compare(job, &format!("old build: {job}"));
    }
    drop(torrents);
    if !plan.only.is_empty() {
        return;
    }
    // The rest is this build's.
    swarms.truncate(1);
    let mut swarm = swarms.remove(0);
    let size = LARGE.min(plan.bytes * 4);
    let mut table = Table::new(format!("Sharing {} MiB: digests of pieces and file.", size >> 20));
    swarm.share_large(&mut table, size);
    table.print();
    swarm.many_small();
    distribution::run(plan, noise);
    if plan.long {
        let mut table = Table::new("A file of 16 GiB.".to_owned());
        swarm.huge(&mut table);
        table.print();
    }
}

impl<'a> Swarm<'a> {
    /// Four seeders and a leecher; one of them shares the file with the group `one`, all with `four`.
    fn start(plan: &'a Plan, build: Build, source: &Path, trackers: &Trackers) -> Self {
        let dir = source.parent().unwrap();
        let (program, prefix) = (build.program("client"), if build.is_other() { "old" } else { "new" });
        let enter = |name: &str| {
            let name = format!("{prefix}-{name}");
            Client::start_program(dir, &name, &trackers.info(), program.clone()).entered()
        };
        let mut seeders: Vec<Client> = (0..4).map(|number| enter(&format!("s{number}"))).collect();
        let mut leecher = enter("leecher");
        let (first, others) = seeders.split_first_mut().unwrap();
        for group in ["one", "four"].map(|group| format!("{prefix}-{group}")) {
            first.ok(&format!("create_group {group}"));
            first.let_in(&group, &mut [&mut leecher]);
        }
        first.let_in(&format!("{prefix}-four"), &mut others.iter_mut().collect::<Vec<_>>());
        first.ok(&format!("upload_file {} {prefix}-one", source.display()));
        for seeder in &mut seeders {
            seeder.ok(&format!("upload_file {} {prefix}-four", source.display()));
        }
        Self { plan, build, dir: dir.into(), source: source.into(), prefix, seeders, leecher }
    }

    /// One download by the real client into that folder.
    fn download(&mut self, group: &str, seeders: usize, to: &Path) -> Result<Sample, String> {
        let source = self.source.clone();
        self.plan.warm(self.plan.bytes);
        let group = &format!("{}-{group}", self.prefix);
        let sample = self.fetch(group, seeders, &source, to);
        self.leecher.ok(&format!("stop_share {group} source.bin"));
        self.leecher.ok(&format!("cancel_download {group} source.bin"));
        sample
    }

    fn fetch(&mut self, group: &str, seeders: usize, source: &Path, to: &Path) -> Result<Sample, String> {
        let name = source.file_name().unwrap().to_str().unwrap();
        let target = to.join(format!("got-{name}"));
        let mut pids: Vec<u32> = self.seeders[..seeders].iter().map(Client::pid).collect();
        pids.push(self.leecher.pid());
        let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
        forget_peak(self.leecher.pid());
        let (before, started) = (cpu(), Instant::now());
        self.leecher.ok(&format!("download_file {group} {name} {}", target.display()));
        let waited = wait_until_idle(&mut self.leecher);
        let seconds = started.elapsed().as_secs_f64();
        let peak_mib = peak_mib(self.leecher.pid());
        let sample = Sample { seconds, cpu_seconds: cpu() - before, peak_mib };
        let same = same_content(source, &target);
        // After a failure there may be none.
        let _ = std::fs::remove_file(&target);
        waited?;
        if same { Ok(sample) } else { Err("the file is not right".into()) }
    }

    /// `upload_file`, and what else hashes a file: one SHA-1 from beginning to end, and mktorrent.
    fn share_large(&mut self, table: &mut Table, size: u64) {
        let path = self.dir.join("large.bin");
        random_file(&path, usize::try_from(size).unwrap(), 2);
        for _ in 0..self.plan.runs {
            let own = std::process::id();
            let (before, started) = (cpu_seconds(own), Instant::now());
            serial_sha1(&path);
            let seconds = started.elapsed().as_secs_f64();
            let floor = Sample { seconds, cpu_seconds: cpu_seconds(own) - before, peak_mib: 0.0 };
            table.add("one SHA-1 from beginning to end (the floor)", size, Ok(floor));
            let pid = self.seeders[0].pid();
            forget_peak(pid);
            let (before, started) = (cpu_seconds(pid), Instant::now());
            self.seeders[0].ok(&format!("upload_file {} new-one", path.display()));
            let seconds = started.elapsed().as_secs_f64();
            let sample = Sample { seconds, cpu_seconds: cpu_seconds(pid) - before, peak_mib: peak_mib(pid) };
            table.add("upload_file: pieces, whole SHA-1 and BLAKE3", size, Ok(sample));
            self.seeders[0].ok("stop_share new-one large.bin");
            if installed("mktorrent") {
                let torrent = self.dir.join("large.torrent");
                let mut command = Command::new("mktorrent");
                command
                    .args(["-t", "2", "-l", "20", "-a", "http://127.0.0.1/", "-o"])
                    .arg(&torrent)
                    .arg(&path);
                let run = Running::start(&mut command, &self.dir.join("mktorrent.log"))
                    .and_then(|mut mktorrent| mktorrent.finish(LIMIT));
                table.add("mktorrent, 2 threads: pieces only", size, run);
                let _ = std::fs::remove_file(&torrent);
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    /// What one small file costs.
    fn many_small(&mut self) {
        let folder = self.dir.join("small");
        std::fs::create_dir(&folder).unwrap();
        for number in 0..SMALL_FILES {
            random_file(&folder.join(format!("f{number}")), SMALL_BYTES, number as u64 + 100);
        }
        let pids = [self.seeders[0].pid(), self.leecher.pid()];
        let cpu = || pids.map(cpu_seconds).iter().sum::<f64>() * 1e3 / SMALL_FILES as f64;
        let each = |started: Instant| started.elapsed().as_secs_f64() * 1e3 / SMALL_FILES as f64;
        let (before, started) = (cpu(), Instant::now());
        for number in 0..SMALL_FILES {
            self.seeders[0].ok(&format!("upload_file {}/f{number} new-one", folder.display()));
        }
        let (shared, shared_cpu) = (each(started), cpu() - before);
        let target = self.dir.join("small-got");
        std::fs::create_dir(&target).unwrap();
        let (before, started) = (cpu(), Instant::now());
        for number in 0..SMALL_FILES {
            self.leecher.ok(&format!("download_file new-one f{number} {}", target.display()));
        }
        let asked = each(started);
        let waited = wait_until_idle(&mut self.leecher);
        let (fetched, fetched_cpu) = (each(started), cpu() - before);
        let right = (0..SMALL_FILES)
            .filter(|number| {
                let name = format!("f{number}");
                same_content(&folder.join(&name), &target.join(&name))
            })
            .count();
        println!(
            "\n{SMALL_FILES} files of 64 KiB, one command each, one after the other; CPU of both clients.\n"
        );
        println!("| job | ms a file | CPU ms a file |\n|---|---|---|");
        println!("| `upload_file` | {shared:.2} | {shared_cpu:.2} |");
        println!("| `download_file`, until it is accepted | {asked:.2} | |");
        println!("| `download_file`, until all are there | {fetched:.2} | {fetched_cpu:.2} |");
        if right < SMALL_FILES || waited.is_err() {
            println!("\nONLY {right} of {SMALL_FILES} came right: {waited:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::remove_dir_all(&target).unwrap();
    }

    /// Whether memory grows with the file.
    fn huge(&mut self, table: &mut Table) {
        let path = self.dir.join("huge.bin");
        random_file(&path, usize::try_from(HUGE).unwrap(), 3);
        let (group, to) = ("new-one", self.dir.clone());
        // Hashing takes longer than an answer may.
        self.seeders[0].ok_within(&format!("upload_file {} {group}", path.display()), LIMIT);
        let run = self.fetch(group, 1, &path, &to);
        table.add("1 seeder → 1, 16 GiB", HUGE, run);
        std::fs::remove_file(&path).unwrap();
    }
}

fn serial_sha1(path: &Path) {
    let mut file = std::fs::File::open(path).unwrap();
    let (mut hasher, mut block) = (sha1::Sha1::new(), vec![0; 1 << 20]);
    loop {
        let count = std::io::Read::read(&mut file, &mut block).unwrap();
        if count == 0 {
            break;
        }
        hasher.update(&block[..count]);
    }
    std::hint::black_box(hasher.finalize());
}
