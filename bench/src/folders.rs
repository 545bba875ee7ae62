//! `scripts/bench folders`: a folder of many small files, and one of large files beside the same bytes as one file; libtorrent
//! and rsync do the same jobs beside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_tests::{Client, Trackers, random_file};

use crate::noise::Noise;
use crate::running::{Running, cpu_seconds, forget_peak, installed, peak_mib, same_tree, wait_until_idle};
use crate::sample::{Sample, Table};
use crate::torrents::{self, Torrents};
use crate::{Plan, absent};

/// The folder of small files: how many, in how many folders, and how long each is.
const SMALL_FILES: usize = 10_000;
const SMALL_FOLDERS: usize = 100;
const SMALL_BYTES: usize = 4 * 1024;
/// How many files the bytes of the large one are in.
const LARGE_FILES: usize = 100;
/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(300);

const SHARE: &str = "share 10,000 files of 4 KiB";
const FETCH: &str = "fetch 10,000 files of 4 KiB onto the disk";
const ONE: &str = "fetch one file";
const HUNDRED: &str = "fetch the same bytes in 100 files";

/// A sharer and a taker in one group.
struct Pair {
    sharer: Client,
    taker: Client,
}

pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    let (dir, disk) = (plan.in_memory(), plan.on_disk());
    let trackers = Trackers::start(dir.path(), 1);
    let mut pair = Pair::start(dir.path(), &trackers);
    let (small, large) = (small_files(disk.path()), large_files(dir.path(), plan.bytes));
    let small_bytes = (SMALL_FILES * SMALL_BYTES) as u64;
    let of_small = Torrents::find(plan, disk.path(), &small);
    let of_large = Torrents::find(plan, dir.path(), &large.folder);
    pair.share(&large.file).unwrap();
    pair.share(&large.folder).unwrap();
    let mut many = Table::new("10,000 files of 4 KiB, on the disk. CPU of all that send or receive.");
    let mut few = Table::new(format!("{} MiB in one file and in 100, on a tmpfs.", plan.mib()));
    for round in 1..=plan.runs {
        eprintln!("round {round} of {}", plan.runs);
        noise.probe();
        many.add(SHARE, small_bytes, pair.share(&small));
        many.add(FETCH, small_bytes, pair.fetch(&small, disk.path()));
        pair.sharer.ok("stop_share g small");
        if of_small.has(torrents::Client::Libtorrent) {
            let fetched = of_small.download(torrents::Client::Libtorrent, 1);
            many.add("libtorrent 2.1, one torrent", small_bytes, fetched);
        }
        for (name, fsync) in [("rsync", false), ("rsync --fsync", true)] {
            many.add(name, small_bytes, rsync(&small, disk.path(), fsync));
        }
        let jobs = [(ONE, &large.file), (HUNDRED, &large.folder)];
        for place in crate::turns(round, jobs.len()) {
            let (name, path) = jobs[place];
            plan.warm(plan.bytes);
            few.add(name, plan.bytes, pair.fetch(path, dir.path()));
        }
        if of_large.has(torrents::Client::Libtorrent) {
            plan.warm(plan.bytes);
            let fetched = of_large.download(torrents::Client::Libtorrent, 1);
            few.add("libtorrent 2.1, 100 files", plan.bytes, fetched);
        }
    }
    many.print();
    for name in many.names() {
        println!("- {name}: {:.2} s", many.seconds(name).unwrap_or(f64::NAN));
    }
    few.print();
    few.compare(HUNDRED, ONE);
    few.compare(HUNDRED, "libtorrent 2.1, 100 files");
}

impl Pair {
    fn start(dir: &Path, trackers: &Trackers) -> Self {
        let enter = |name: &str| Client::enter(dir, name, &trackers.info());
        let (mut sharer, mut taker) = (enter("sharer"), enter("taker"));
        sharer.ok("create_group g");
        sharer.let_in("g", &mut [&mut taker]);
        Self { sharer, taker }
    }

    fn share(&mut self, path: &Path) -> Result<Sample, String> {
        let pid = self.sharer.pid();
        forget_peak(pid);
        let (before, started) = (cpu_seconds(pid), Instant::now());
        self.sharer.ok(&format!("upload_file {} g", path.display()));
        let seconds = started.elapsed().as_secs_f64();
        Ok(Sample { seconds, cpu_seconds: cpu_seconds(pid) - before, peak_mib: peak_mib(pid) })
    }

    /// Fetches what was shared from `source`, checks it, and removes it.
    fn fetch(&mut self, source: &Path, to: &Path) -> Result<Sample, String> {
        let name = source.file_name().unwrap().to_str().unwrap();
        let target = to.join(format!("got-{name}"));
        let pids = [self.sharer.pid(), self.taker.pid()];
        let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
        forget_peak(pids[1]);
        let (before, started) = (cpu(), Instant::now());
        self.taker.ok(&format!("download_file g {name} {}", target.display()));
        let waited = wait_until_idle(&mut self.taker);
        let seconds = started.elapsed().as_secs_f64();
        let sample = Sample { seconds, cpu_seconds: cpu() - before, peak_mib: peak_mib(pids[1]) };
        let same = same_tree(source, &target);
        self.taker.ok(&format!("stop_share g {name}"));
        self.taker.ok(&format!("cancel_download g {name}"));
        // After a failure there may be none.
        let _ = std::fs::remove_dir_all(&target).or_else(|_| std::fs::remove_file(&target));
        waited?;
        if same { Ok(sample) } else { Err("it is not what was shared".into()) }
    }
}

fn rsync(source: &Path, to: &Path, fsync: bool) -> Result<Sample, String> {
    if !installed("rsync") {
        absent("rsync", "it is not installed");
        return Err("it is not installed".into());
    }
    let target = to.join("rsynced");
    let mut command = Command::new("rsync");
    command.args(["-a", "--whole-file"]).args(fsync.then_some("--fsync")).arg(source).arg(&target);
    let run = Running::start(&mut command, &to.join("rsync.log"));
    let sample = run.and_then(|mut running| running.finish(LIMIT));
    let _ = std::fs::remove_dir_all(&target);
    sample
}

/// Makes the folder of small files.
fn small_files(dir: &Path) -> PathBuf {
    let folder = dir.join("small");
    for number in 0..SMALL_FILES {
        let within = folder.join(format!("{:02}", number % SMALL_FOLDERS));
        std::fs::create_dir_all(&within).unwrap();
        random_file(&within.join(format!("{number}.bin")), SMALL_BYTES, number as u64);
    }
    folder
}

/// The same bytes as one file and as many.
struct Large {
    file: PathBuf,
    folder: PathBuf,
}

fn large_files(dir: &Path, bytes: u64) -> Large {
    let large = Large { file: dir.join("large.bin"), folder: dir.join("large") };
    random_file(&large.file, usize::try_from(bytes).unwrap(), 1);
    std::fs::create_dir(&large.folder).unwrap();
    let content = std::fs::read(&large.file).unwrap();
    for (number, part) in content.chunks(content.len().div_ceil(LARGE_FILES)).enumerate() {
        std::fs::write(large.folder.join(format!("{number:03}.bin")), part).unwrap();
    }
    large
}
