//! How fast a bulk connection is: 1 GiB in data frames of 16 KiB from one process to another over loopback.
//!
//! `cargo run --release -p shoal-net --example bulk_bench [-- CONNECTIONS [raw]]`; `raw` sends the same
//! frames over bare TCP, which is the ceiling. Prints MB/s and the CPU seconds of both processes.

use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Instant;

use shoal_common::PeerId;
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkLimits, Listener};
use tokio::io::{AsyncBufRead, AsyncWrite, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOTAL: usize = 1 << 30;
const PIECE: usize = 1 << 20;
const BLOCK: usize = 16 * 1024;
const DATA: u8 = 1;
const HEAD: usize = 12;
/// In front of bare TCP; a bulk connection has its own.
const BUFFER: usize = 128 * 1024;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["receive", address, peer, count] => {
            let peer = if peer == "raw" { None } else { Some(peer.parse()?) };
            runtime.block_on(receive(address.parse()?, peer, count.parse()?))
        }
        [] => runtime.block_on(send(2, false)),
        [count] => runtime.block_on(send(count.parse()?, false)),
        [count, "raw"] => runtime.block_on(send(count.parse()?, true)),
        _ => Err("usage: bulk_bench [CONNECTIONS [raw]]".into()),
    }
}

/// Starts the other process and sends it everything.
async fn send(connections: usize, raw: bool) -> Outcome<()> {
    let identity = Identity::generate();
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut tasks = JoinSet::new();
    if raw {
        let listener = TcpListener::bind(anywhere).await?;
        let receiver = spawn_receiver(listener.local_addr()?, "raw", connections)?;
        for _ in 0..connections {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tasks.spawn(send_share(BufWriter::with_capacity(BUFFER, stream), TOTAL / connections));
        }
        finish(tasks, receiver).await
    } else {
        let mut listener = Listener::bind(anywhere, &identity, BulkLimits::default())?;
        let peer = identity.peer_id().to_string();
        let receiver = spawn_receiver(listener.local_addr(), &peer, connections)?;
        for _ in 0..connections {
            let (stream, _) = listener.accept().await?;
            tasks.spawn(send_share(stream, TOTAL / connections));
        }
        finish(tasks, receiver).await
    }
}

fn spawn_receiver(address: SocketAddr, peer: &str, connections: usize) -> Outcome<std::process::Child> {
    let arguments = ["receive", &address.to_string(), peer, &connections.to_string()].map(str::to_owned);
    Ok(Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::inherit()).spawn()?)
}

async fn finish(mut tasks: JoinSet<Outcome<()>>, mut receiver: std::process::Child) -> Outcome<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    receiver.wait()?;
    eprintln!("sender:   {:.2} CPU s", cpu_seconds()?);
    Ok(())
}

async fn send_share<S: AsyncWrite + Unpin>(stream: S, bytes: usize) -> Outcome<()> {
    let piece = vec![0x5a; PIECE];
    let mut writer = FrameWriter::new(stream);
    for _ in 0..bytes / PIECE {
        for block in piece.chunks(BLOCK) {
            writer.data(DATA, &[0; HEAD], block).await?;
        }
    }
    writer.close().await?;
    Ok(())
}

/// The other process: takes everything and says how fast it came.
async fn receive(address: SocketAddr, peer: Option<PeerId>, connections: usize) -> Outcome<()> {
    let identity = Identity::generate();
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for _ in 0..connections {
        if let Some(peer) = peer {
            tasks.spawn(receive_share(bulk::connect(address, peer, &identity).await?));
        } else {
            tasks.spawn(receive_share(BufReader::with_capacity(BUFFER, TcpStream::connect(address).await?)));
        }
    }
    let mut total = 0;
    while let Some(received) = tasks.join_next().await {
        total += received??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let megabytes = f64::from(u32::try_from(total / 1_000_000)?);
    eprintln!("{megabytes} MB in {seconds:.3} s: {:.0} MB/s", megabytes / seconds);
    eprintln!("receiver: {:.2} CPU s", cpu_seconds()?);
    Ok(())
}

async fn receive_share<S: AsyncBufRead + Unpin>(stream: S) -> Outcome<usize> {
    let mut reader = FrameReader::new(stream, 64 * 1024);
    let mut piece = vec![0; PIECE];
    let (mut head, mut filled, mut total) = ([0; HEAD], 0, 0);
    while let Some(header) = reader.next().await? {
        if header.kind != DATA {
            return Err("not a data frame".into());
        }
        reader.read_into(&mut head).await?;
        let length = reader.remaining();
        reader.read_into(&mut piece[filled..filled + length]).await?;
        filled = (filled + length) % PIECE;
        total += length;
    }
    Ok(total)
}

/// User and system time of this process: fields 14 and 15 of proc(5), in hundredths of a second.
fn cpu_seconds() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
