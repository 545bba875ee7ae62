//! How fast SHA-1 is with one to four messages abreast: `cargo run --release -p shoal-sha1 --example lanes`.
#![allow(clippy::print_stdout, reason = "a measuring program")]

use std::hint::black_box;
use std::time::Instant;

use sha1::Digest;
use shoal_sha1::{Hasher, LANES, update_all};

fn main() {
    let piece = vec![0x5a; 1 << 20];
    let mut best = f64::MAX;
    for _ in 0..9 {
        let started = Instant::now();
        for _ in 0..64 {
            black_box(sha1::Sha1::digest(&piece));
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    println!("the sha1 crate: {:.2} GB/s", 64.0 * 1.048_576 / 1_000.0 / best);
    for lanes in 1..=LANES {
        let mut best = f64::MAX;
        for _ in 0..9 {
            let started = Instant::now();
            for _ in 0..64 {
                let mut hashers = vec![Hasher::default(); lanes];
                let mut messages: Vec<_> = hashers.iter_mut().map(|hasher| (hasher, &piece[..])).collect();
                update_all(&mut messages);
                black_box(&hashers);
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        let megabytes = u32::try_from((64 * lanes * piece.len()) >> 20).map_or(0.0, f64::from) * 1.048_576;
        println!("{lanes} abreast: {:.2} GB/s", megabytes / 1_000.0 / best);
    }
}
