//! Measures downloads by the real binaries, and the raw ceiling beside them, in one interleaved run; `scripts/bench`
//! builds and starts it.
//!
//! The ceiling is plain TCP between two processes, one SHA-1 a piece of 1 MiB, and the write: no encryption, no second
//! digest, no protocol. The clock of a download runs from the command to the moment when the file, verified, has its
//! name. CPU is the seconds, user and system, of all processes that send or receive. All files lie on a tmpfs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring program: it stops at trouble"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use shoal_common::Sha1;
use shoal_tests::{Client, Trackers, random_file, same_content};

/// What one run of one job took.
#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

/// Samples of one job.
struct Job {
    name: &'static str,
    samples: Vec<Sample>,
}

const PIECE: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["send", address, path] => send(address, Path::new(path)),
        ["swarm"] => run(5, 1024),
        ["swarm", "--runs", runs] => run(runs.parse().unwrap(), 1024),
        ["swarm", "--runs", runs, "--mib", mib] => run(runs.parse().unwrap(), mib.parse().unwrap()),
        _ => {
            eprintln!("usage: scripts/bench swarm [--runs N [--mib SIZE]]");
            std::process::exit(2);
        }
    }
}

fn run(runs: usize, mib: usize) {
    let dir = tempfile::Builder::new().prefix("shoal-bench.").tempdir_in("/dev/shm").unwrap();
    let source = dir.path().join("source.bin");
    random_file(&source, mib << 20, 1);
    let trackers = Trackers::start(dir.path(), 1);
    let mut seeders: Vec<Client> =
        (0..4).map(|n| Client::enter(dir.path(), &format!("s{n}"), &trackers.info())).collect();
    seeders[0].ok("create_group one");
    seeders[0].ok("create_group four");
    for n in 1..4 {
        seeders[n].ok("join_group four");
        seeders[0].ok(&format!("accept_request four s{n}"));
    }
    let hashing = Instant::now();
    seeders[0].ok(&format!("upload_file {} one", source.display()));
    let hashed = hashing.elapsed().as_secs_f64();
    for seeder in &mut seeders {
        seeder.ok(&format!("upload_file {} four", source.display()));
    }
    let mut leecher = Client::enter(dir.path(), "leecher", &trackers.info());
    for group in ["one", "four"] {
        leecher.ok(&format!("join_group {group}"));
        seeders[0].ok(&format!("accept_request {group} leecher"));
    }
    let mut jobs = ["raw ceiling (plain TCP)", "1 seeder -> 1", "4 seeders -> 1"]
        .map(|name| Job { name, samples: Vec::new() });
    for round in 1..=runs {
        eprintln!("round {round} of {runs}");
        jobs[0].samples.push(ceiling(dir.path(), &source));
        jobs[1].samples.push(download(&mut leecher, &seeders[..1], "one", dir.path(), &source));
        jobs[2].samples.push(download(&mut leecher, &seeders, "four", dir.path(), &source));
    }
    let bytes = (mib << 20) as f64;
    println!("\n{mib} MiB, {runs} runs, medians (lowest–highest)\n");
    println!("| job | MB/s | CPU s/GiB, both ends | receiver's peak MiB |\n|---|---|---|---|");
    for job in &jobs {
        let rates = spread(&job.samples, |sample| bytes / 1e6 / sample.seconds);
        let cpu = spread(&job.samples, |sample| sample.cpu_seconds / (bytes / (1u64 << 30) as f64));
        let memory = spread(&job.samples, |sample| sample.peak_mib);
        println!("| {} | {} | {} | {} |", job.name, show(rates, 0), show(cpu, 2), show(memory, 0));
    }
    println!("| upload_file (piece SHA-1, whole SHA-1, BLAKE3) | {:.0} | | |", bytes / 1e6 / hashed);
}

/// One download by the real client, from the command to the verified file.
fn download(leecher: &mut Client, seeders: &[Client], group: &str, dir: &Path, source: &Path) -> Sample {
    let target = dir.join("target.bin");
    let pids: Vec<u32> = seeders.iter().map(Client::pid).chain([leecher.pid()]).collect();
    let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let (before, started) = (cpu(), Instant::now());
    leecher.ok(&format!("download_file {group} source.bin {}", target.display()));
    leecher.ok("wait 300");
    let seconds = started.elapsed().as_secs_f64();
    let sample = Sample { seconds, cpu_seconds: cpu() - before, peak_mib: peak_mib(leecher.pid()) };
    assert!(same_content(source, &target), "the file is not right");
    leecher.ok(&format!("stop_share {group} source.bin"));
    leecher.ok(&format!("cancel_download {group} source.bin"));
    std::fs::remove_file(&target).unwrap();
    sample
}

/// Receives from another process over plain TCP, hashes and writes.
fn ceiling(dir: &Path, source: &Path) -> Sample {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = std::process::id();
    let target = dir.join("ceiling.bin");
    let (before, started) = (cpu_seconds(own), Instant::now());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["send", &address])
        .arg(source)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let (full, received) = sync_channel::<(u64, Vec<u8>)>(8);
    let (empty, free) = sync_channel::<Vec<u8>>(16);
    let file = std::fs::File::create(&target).unwrap();
    let writer = std::thread::spawn(move || {
        let mut digests = Vec::new();
        for (offset, piece) in received {
            digests.push(Sha1::of(&piece));
            file.write_all_at(&piece, offset).unwrap();
            // The reader may be done.
            let _ = empty.send(piece);
        }
        digests.len()
    });
    let size = source.metadata().unwrap().len();
    let mut offset = 0;
    while offset < size {
        let mut piece = free.try_recv().unwrap_or_default();
        piece.resize(PIECE.min(usize::try_from(size - offset).unwrap()), 0);
        socket.read_exact(&mut piece).unwrap();
        let length = piece.len() as u64;
        full.send((offset, piece)).unwrap();
        offset += length;
    }
    drop(full);
    drop(free);
    writer.join().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let mut sent = String::new();
    child.stdout.take().unwrap().read_to_string(&mut sent).unwrap();
    child.wait().unwrap();
    let sender: f64 = sent.trim().parse().unwrap();
    let sample = Sample { seconds, cpu_seconds: cpu_seconds(own) - before + sender, peak_mib: peak_mib(own) };
    assert!(same_content(source, &target));
    std::fs::remove_file(&target).unwrap();
    sample
}

/// The sending process of the ceiling; prints its CPU seconds.
fn send(address: &str, path: &Path) {
    let mut socket = TcpStream::connect(address).unwrap();
    let mut file = std::fs::File::open(path).unwrap();
    let mut block = vec![0; PIECE];
    loop {
        let count = file.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        socket.write_all(&block[..count]).unwrap();
    }
    println!("{}", cpu_seconds(std::process::id()));
}

/// User and system seconds of a process so far (proc(5): fields 14 and 15 of `stat`, in ticks of 10 ms).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// Highest resident memory of a process so far.
fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn spread(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn show((low, middle, high): (f64, f64, f64), digits: usize) -> String {
    format!("{middle:.digits$} ({low:.digits$}–{high:.digits$})")
}
