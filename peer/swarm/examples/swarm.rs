//! How fast a file passes between two processes: disk, policy, bulk lane, engine, all digests; page cache warm.
//! `cargo run --release -p shoal-swarm --example swarm [MIB [SEEDERS [RUNS [FOLDER]]]]`

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use ed25519_dalek::{Signer, SigningKey};
use shoal_common::tokens::{self, TICKET_LIFE_MS, Ticket};
use shoal_common::tracker_api::GroupTicket;
use shoal_common::{Fid, Gid, GroupName, Layout, PeerId, Uid, UserName};
use shoal_engine::hash::{FileIdentity, Hashed, hash_file};
use shoal_engine::{
    AnySource, Content, Engine, EngineConfig, Outcome, Overwrite, SourceChange, SourceId, Target,
};
use shoal_net::Identity;
use shoal_session::tickets::TicketBook;
use shoal_swarm::{Body, FileKey, Served, Swarm, SwarmConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: FileKey = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
const NOW: u64 = 1_800_000_000_000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.next() {
        Some(word) if word == "seed" => {
            let path = arguments.next().context("seed PATH")?;
            runtime.block_on(seed(Path::new(&path)))
        }
        mebibytes => {
            let mebibytes: usize = mebibytes.map_or(Ok(1024), |count| count.parse())?;
            let seeders: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
            let runs: u32 = arguments.next().map_or(Ok(5), |count| count.parse())?;
            let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "/dev/shm".into()));
            let folder = tempfile::tempdir_in(folder)?;
            runtime.block_on(measure(mebibytes << 20, seeders, runs, folder.path()))
        }
    }
}

/// A member whose ticket a key signs that everybody here knows.
async fn member() -> anyhow::Result<(Swarm, PeerId)> {
    let key = SigningKey::from_bytes(&[1; 32]);
    let signer = PeerId(key.verifying_key().to_bytes());
    let identity = Identity::generate();
    let peer = identity.peer_id();
    let name = UserName::create("bench")?;
    let ticket =
        Ticket { user: Uid([7; 16]), name, peer, group: KEY.group, expires_ms: NOW + TICKET_LIFE_MS };
    let ticket = tokens::seal(&ticket, signer, |message| key.sign(message).to_bytes());
    let book = TicketBook::new(peer);
    book.update(&[GroupTicket { group: KEY.group, name: GroupName::create("g")?, ticket }], &[signer], NOW);
    let config = SwarmConfig { identity, listen: "127.0.0.1:0".parse()?, upload_slots: 8 };
    Ok((Swarm::start(config, book).await?, peer))
}

/// Serves a file until its standard input ends.
#[expect(clippy::print_stdout, reason = "tells the parent where it listens")]
async fn seed(path: &Path) -> anyhow::Result<()> {
    let (swarm, peer) = member().await?;
    let identity = FileIdentity::of(path)?;
    let layout = Layout::for_size(identity.size)?;
    swarm.serve(KEY, Served { layout, body: Body::File { path: path.into(), identity } });
    println!("{} {peer}", swarm.local_addr());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    println!("{:.2}", cpu_seconds());
    swarm.shutdown().await;
    Ok(())
}

struct Seeder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
    peer: PeerId,
}

impl Seeder {
    fn start(path: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("seed").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let (address, peer) = line.trim().split_once(' ').context("a seeder did not start")?;
        let (address, peer) = (address.parse()?, peer.parse()?);
        Ok(Self { child, output, address, peer })
    }

    /// Ends it; gives the processor time that it took.
    fn finish(mut self) -> anyhow::Result<f64> {
        drop(self.child.stdin.take());
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        self.child.wait()?;
        Ok(line.trim().parse()?)
    }
}

#[expect(clippy::print_stdout, reason = "the figures are its purpose")]
async fn measure(size: usize, seeders: usize, runs: u32, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("file");
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    std::fs::write(&path, bytes)?;
    let Hashed { layout, pieces, digest, .. } = hash_file(&path, |_| {}, &CancellationToken::new())?;
    let content = Content::new(layout.clone(), pieces.into(), digest)?;
    let engine = Engine::new(EngineConfig::default());
    for run in 1..=runs {
        let seeds = (0..seeders).map(|_| Seeder::start(&path)).collect::<anyhow::Result<Vec<_>>>()?;
        let (swarm, _) = member().await?;
        let (changes, receiver) = mpsc::channel(64);
        let target = folder.join("download");
        let before = cpu_seconds();
        let started = Instant::now();
        let download = engine.start(content.clone(), Target::new(&target, Overwrite::Refuse), receiver);
        for (number, seed) in (0..).zip(&seeds) {
            let source = AnySource::new(swarm.source(KEY, seed.peer, &[seed.address], layout.clone()));
            changes.send(SourceChange::Add(SourceId(number), source)).await?;
        }
        let outcome = download.wait().await;
        let took = started.elapsed().as_secs_f64();
        let Outcome::Complete { .. } = outcome else { bail!("{outcome:?}") };
        let fetching = cpu_seconds() - before;
        let mut serving = 0.0;
        for seed in seeds {
            serving += seed.finish()?;
        }
        println!(
            "run {run}: {:.0} MB/s; CPU seconds: {fetching:.2} fetching, {serving:.2} serving",
            size as f64 / 1e6 / took
        );
        std::fs::remove_file(&target)?;
        swarm.shutdown().await;
    }
    Ok(())
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}
