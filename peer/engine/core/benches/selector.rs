//! What the selector costs with 1,000 sources, from 1,000 pieces to 100,000: a change and a choice of a complete source
//! must not grow with them, and a choice of another source at most with what it holds.
#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use shoal_engine_core::selector::{ItemSet, Selector};

/// Sources that hold some of the file.
const SOURCES: usize = 1_000;
/// Pieces of the file.
const PIECES: [u32; 3] = [1_000, 10_000, 100_000];

/// Sources of which each holds half of the pieces.
fn crowded(pieces: u32, rng: &mut Rng) -> Selector {
    let mut selector = Selector::new(pieces);
    for _ in 0..SOURCES {
        (0..pieces).filter(|_| rng.bool()).for_each(|piece| selector.gain(piece));
    }
    selector
}

/// A source that holds that part of the pieces, in thousandths.
fn source(pieces: u32, thousandths: u32, rng: &mut Rng) -> ItemSet {
    let mut held = ItemSet::none(pieces);
    (0..pieces).filter(|_| rng.u32(..1_000) < thousandths).for_each(|piece| held.insert(piece));
    held
}

fn selector(criterion: &mut Criterion) {
    let mut rng = Rng::with_seed(1);
    for pieces in PIECES {
        let mut selector = crowded(pieces, &mut rng);
        let mut group = criterion.benchmark_group("selector");
        group.bench_function(BenchmarkId::new("a source gains a piece and loses it", pieces), |bench| {
            bench.iter(|| {
                let piece = rng.u32(..pieces);
                selector.gain(piece);
                selector.lose(piece);
            });
        });
        group.bench_function(BenchmarkId::new("choice of a complete source", pieces), |bench| {
            bench.iter(|| black_box(selector.rarest(None, |_| true, &mut rng)));
        });
        for (name, thousandths) in [("half of it", 500), ("a twentieth", 50), ("a thousandth", 1)] {
            let held = source(pieces, thousandths, &mut rng);
            let name = format!("choice of one that holds {name}");
            group.bench_function(BenchmarkId::new(name, pieces), |bench| {
                bench.iter(|| black_box(selector.rarest(Some(&held), |_| true, &mut rng)));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = selector
}
criterion_main!(benches);
