//! How fast chunks are sealed, on one core and on all: rows of a table, for `scripts/bench dfs`.
//!
//! Sealing alone, and with the digest that becomes the chunk's id, as a PUT needs both.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measuring program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use shoal_common::storage::ChunkId;
use shoal_dfs::seal::{FileSecret, OVERHEAD, Sealer};

/// Bytes of a chunk.
const CHUNK: usize = 4 << 20;
/// How long each job runs.
const TIME: Duration = Duration::from_secs(2);

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (job, with_id) in [("sealing", false), ("sealing, and the chunk's id", true)] {
        for threads in [1, cores] {
            println!("| {job} | {threads} | {:.2} |", rate(threads, with_id));
        }
    }
}

/// GB/s of all threads together.
fn rate(threads: usize, with_id: bool) -> f64 {
    let sealer = Sealer::new(&FileSecret::random(), u32::MAX);
    let started = Instant::now();
    let chunks: u32 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| seal_for(&sealer, with_id))).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    f64::from(chunks) * CHUNK as f64 / 1e9 / started.elapsed().as_secs_f64()
}

/// How many chunks one thread sealed in the time.
fn seal_for(sealer: &Sealer, with_id: bool) -> u32 {
    let mut chunk = Vec::with_capacity(CHUNK + OVERHEAD as usize);
    chunk.resize(CHUNK, 7);
    let (started, mut sealed) = (Instant::now(), 0);
    while started.elapsed() < TIME {
        sealer.seal(sealed, &mut chunk);
        if with_id {
            black_box(ChunkId::of(&chunk));
        }
        chunk.truncate(CHUNK);
        sealed += 1;
    }
    sealed
}
