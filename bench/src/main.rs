//! Measures the real binaries, and the programs that people use for the same jobs beside them, in interleaved runs;
//! `scripts/bench` builds and starts it. What it prints first is the command, the date and the machine; then tables.
//!
//! All processes are on this machine and speak over its loopback; files lie on a tmpfs unless a job says otherwise. A clock
//! runs from the command to the moment when the result, verified, has its name. A rival that is not installed is named
//! and left out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring program: it stops at trouble"
)]

mod ceiling;
mod dfs;
mod distribution;
mod folders;
mod http;
mod links;
mod noise;
mod page;
mod running;
mod sample;
mod segments;
mod stores;
mod swarm;
mod torrents;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::noise::Noise;

/// What a job takes of memory beside the bytes that it moves, at most.
const REST: u64 = 512 << 20;

const USAGE: &str = "usage: scripts/bench swarm|distribution|segments|dfs|folders|page|check [--runs N] [--mib SIZE] [--rivals DIR] [--long]
  --runs N      rounds; medians are printed [default: 3]
  --old FOLDER  another build's programs, measured beside this one's (swarm, segments, dfs)
  --mib SIZE    size of the file [default: 1024]
  --only WORDS  only jobs with one of these words in their names, comma-separated (swarm, segments, dfs)
  --rivals DIR  where libtorrent, rqbit, Garage and Tahoe are installed [default: $RIVALS_DIR, else ~/.cache/rivals]
  --long        downloads of 16 GiB too, for the memory that they take; needs a tmpfs of 36 GiB";

/// What was asked for.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Rounds of each job.
    pub(crate) runs: usize,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Where another build's programs are, to be measured too.
    pub(crate) old: Option<PathBuf>,
    /// Which jobs are wanted: those with one of these words in their names; none: all.
    pub(crate) only: Vec<String>,
    /// Where rivals are that are not in PATH.
    pub(crate) rivals: PathBuf,
    /// Whether to take long.
    pub(crate) long: bool,
    /// A scratch folder on a tmpfs.
    pub(crate) memory: PathBuf,
    /// A scratch folder on the disk.
    pub(crate) disk: PathBuf,
}

impl Plan {
    fn read(arguments: &[String]) -> Option<Self> {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        let folder = |variable: &str, otherwise: &dyn Fn() -> PathBuf| {
            std::env::var_os(variable).map_or_else(otherwise, PathBuf::from)
        };
        let mut plan = Self {
            runs: 3,
            bytes: 1 << 30,
            old: None,
            only: Vec::new(),
            rivals: folder("RIVALS_DIR", &|| home.join(".cache/rivals")),
            long: false,
            memory: folder("SHOAL_BENCH_MEMORY", &|| "/dev/shm".into()),
            disk: folder("SHOAL_BENCH_DISK", &std::env::temp_dir),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--long" => plan.long = true,
                "--runs" => plan.runs = words.next()?.parse().ok().filter(|&runs| runs > 0)?,
                "--mib" => plan.bytes = words.next()?.parse::<u64>().ok().filter(|&mib| mib > 0)? << 20,
                "--only" => plan.only.extend(words.next()?.split(',').map(str::to_owned)),
                "--old" => plan.old = Some(std::path::absolute(words.next()?).ok()?),
                "--rivals" => plan.rivals = words.next()?.into(),
                _ => return None,
            }
        }
        Some(plan)
    }

    /// The builds that are measured: this one, and the other one if there is one.
    pub(crate) fn builds(&self) -> Vec<Build> {
        let old =
            self.old.as_ref().map(|folder| Build { label: noise::OLD_BUILD, folder: Some(folder.clone()) });
        [Some(Build { label: "", folder: None }), old].into_iter().flatten().collect()
    }

    /// Whether the job of that name is wanted.
    pub(crate) fn wants(&self, job: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| job.contains(word.as_str()))
    }

    /// Size of the file in MiB, for titles.
    pub(crate) fn mib(&self) -> u64 {
        self.bytes >> 20
    }

    /// Takes that much memory and the usual rest once, and frees it: in a virtual machine the first use of a page is several
    /// times slower than every other, and which job meets it is chance. To be called before each job.
    pub(crate) fn warm(&self, bytes: u64) {
        let mut file = tempfile::tempfile_in(&self.memory).unwrap();
        let block = vec![0; 8 << 20];
        for _ in 0..(bytes + REST) / block.len() as u64 {
            file.write_all(&block).unwrap();
        }
    }

    /// A fresh folder on the tmpfs, removed with the value.
    pub(crate) fn in_memory(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix("shoal-bench.").tempdir_in(&self.memory).unwrap()
    }

    /// A fresh folder on the disk, removed with the value.
    pub(crate) fn on_disk(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix("shoal-bench.").tempdir_in(&self.disk).unwrap()
    }
}

/// Programs of one build.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    /// What stands before the names of its jobs.
    pub(crate) label: &'static str,
    /// Where they are; none: those of this build.
    folder: Option<PathBuf>,
}

impl Build {
    /// Whether it is not this one.
    pub(crate) fn is_other(&self) -> bool {
        self.folder.is_some()
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.as_ref().map_or_else(|| shoal_tests::binary(name), |folder| folder.join(name))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, address, path] = &arguments[..]
        && word == "send"
    {
        ceiling::send(address, Path::new(path));
        return ExitCode::SUCCESS;
    }
    let bench = match arguments.first().map(String::as_str) {
        Some("swarm") => swarm::run,
        Some("distribution") => distribution::run,
        Some("segments") => segments::run,
        Some("dfs") => dfs::run,
        Some("folders") => folders::run,
        Some("page") => page::run,
        Some("check") => check,
        _ => usage(),
    };
    let plan = Plan::read(&arguments[1..]).unwrap_or_else(|| usage());
    println!("{}", running::heading(&arguments));
    let mut noise = Noise::listen();
    bench(&plan, &mut noise);
    let (good, as_before) = (noise.judge(), arguments[0] != "check" || noise.none_is_worse());
    if good && as_before { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The short form of all that can be compared with another build.
fn check(plan: &Plan, noise: &mut Noise) {
    if plan.old.is_none() {
        usage();
    }
    let jobs = [
        "seeder → 1",
        "seeders → 1",
        "4 nginx: fetch",
        "build: fetch",
        "4 of our server: fetch",
        "PUT, 2 copies, no",
        "GET",
    ];
    let plan = Plan { only: jobs.map(str::to_owned).into(), ..plan.clone() };
    swarm::run(&plan, noise);
    segments::run(&plan, noise);
    dfs::run(&plan, noise);
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}

/// The places of several that do one job, in the order of this round: each is first in turn, because what went before may help or
/// hinder the first.
pub(crate) fn turns(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

/// Says that something is left out, in the output too: a table without it must not look complete.
pub(crate) fn absent(what: &str, reason: &str) {
    println!("\n{what}: left out, {reason}");
}
