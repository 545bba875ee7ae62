//! Whole swarms in simulated time: the real [`DownloadCore`](shoal_engine_core::DownloadCore) with its selector decides what each leecher
//! asks for, the real [`Policy`](shoal_policy::Policy) what each peer serves. Only time, bandwidth and distance are
//! simulated: an uplink sends the 16 KiB blocks of its pieces in turn, and a message takes [`LATENCY`].
//! Everything follows from the seed.
//!
//! The result is the time until all peers have the file over the least possible time, how often the seeder sent the file, and
//! how many bytes were received in vain.
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod event;
mod peer;
mod plain;
mod world;

use std::time::Duration;

pub use world::run;

/// How long a message takes.
pub const LATENCY: Duration = Duration::from_millis(10);

/// A swarm.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Decides everything that is random.
    pub seed: u64,
    /// Length of the file in bytes.
    pub size: u64,
    /// Length of a piece in bytes, a power of two.
    pub piece_length: u32,
    /// The seeder's uplink, in bytes per second.
    pub seeder: u64,
    /// The leechers, in no order.
    pub leechers: Vec<Leecher>,
    /// How many others a leecher connects to, beside the seeder.
    pub neighbours: usize,
    /// Every peer serves first come, first served, without rules: the baseline.
    pub naive: bool,
}

/// One who downloads.
#[derive(Debug, Clone, Copy)]
pub struct Leecher {
    /// Its uplink, in bytes per second.
    pub uplink: u64,
    /// How it behaves.
    pub manners: Manners,
    /// When it joins, counted from the start.
    pub joins: Duration,
    /// When it disappears without a message, finished or not.
    pub vanishes: Option<Duration>,
    /// The account that it shares with others; one of its own if none.
    pub account: Option<u32>,
}

/// How a leecher behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    Honest,
    /// Sends wrong bytes.
    Lies,
    /// Takes pieces and never announces or sends any.
    Silent,
}

/// What became of a swarm.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Time until every honest leecher that stayed had the file; `None` if one never got it.
    pub took: Option<Duration>,
    /// The least time in which that is possible: everything must leave the seeder once, and all uplinks together must
    /// carry as many copies as there are leechers.
    pub bound: Duration,
    /// Bytes that the seeder sent, over the file's length.
    pub seeder_copies: f64,
    /// Bytes that honest leechers received twice or wrong, over all that they needed.
    pub wasted: f64,
    /// Honest leechers that ended without the file.
    pub incomplete: usize,
}

impl Outcome {
    /// Time over the bound; infinite if an honest leecher never got the file.
    #[must_use]
    pub fn over_bound(&self) -> f64 {
        self.took.map_or(f64::INFINITY, |took| took.as_secs_f64() / self.bound.as_secs_f64())
    }
}

impl Leecher {
    /// An honest one that is there from the start and stays.
    #[must_use]
    pub fn honest(uplink: u64) -> Self {
        Self { uplink, manners: Manners::Honest, joins: Duration::ZERO, vanishes: None, account: None }
    }
}

impl Scenario {
    /// One seeder and `count` honest leechers, all behind uplinks of 40 Mbit/s, and a file of 32 MiB.
    #[must_use]
    pub fn equal(seed: u64, count: usize) -> Self {
        const UPLINK: u64 = 5_000_000;
        Self {
            seed,
            size: 32 << 20,
            piece_length: 64 * 1024,
            seeder: UPLINK,
            leechers: vec![Leecher::honest(UPLINK); count],
            neighbours: 50,
            naive: false,
        }
    }

    /// The least time in which all that are honest and stay can have the file.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let served =
            self.leechers.iter().filter(|one| one.manners == Manners::Honest && one.vanishes.is_none());
        let (mut uplinks, mut copies) = (self.seeder as f64, 0.0);
        for leecher in served {
            uplinks += leecher.uplink as f64;
            copies += 1.0;
        }
        let size = self.size as f64;
        Duration::from_secs_f64((size / self.seeder as f64).max(copies * size / uplinks))
    }
}
