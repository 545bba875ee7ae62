//! A fixed piece of the selector's work, whose instructions `scripts/bench counts` counts: 200 sources of a file of 2,000
//! pieces come, piece by piece, and as many choices are made of complete sources and of ones that hold half.

use std::hint::black_box;

use fastrand::Rng;
use shoal_engine_core::selector::{ItemSet, Selector};

fn main() {
    const SOURCES: u32 = 200;
    const PIECES: u32 = 2_000;
    let mut rng = Rng::with_seed(1);
    let mut selector = Selector::new(PIECES);
    for _ in 0..SOURCES {
        let mut held = ItemSet::none(PIECES);
        (0..PIECES).filter(|_| rng.bool()).for_each(|piece| {
            held.insert(piece);
            selector.gain(piece);
        });
        for _ in 0..PIECES / 10 {
            black_box(selector.rarest(None, |_| true, &mut rng));
            black_box(selector.rarest(Some(&held), |_| true, &mut rng));
        }
        selector.lose(rng.u32(..PIECES));
    }
}
