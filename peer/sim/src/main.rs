//! Prints what becomes of swarms: `cargo run --release -p shoal-swarm-sim -- --leechers 100`.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use shoal_swarm_sim::{Leecher, Manners, Scenario, run};

/// Simulates swarms over the real download core and upload policy.
#[derive(Debug, Parser)]
#[command(name = "swarm-sim", version)]
struct Arguments {
    /// Leechers; of the first ones some can be made to misbehave.
    #[arg(long, default_value_t = 100, value_parser = number::<usize>)]
    leechers: usize,
    /// How many of them have a tenth of the others' uplink.
    #[arg(long, default_value_t = 0, value_parser = number::<usize>)]
    slow: usize,
    /// How many of them send wrong bytes.
    #[arg(long, default_value_t = 0, value_parser = number::<usize>)]
    lying: usize,
    /// How many of them take pieces and never announce any.
    #[arg(long, default_value_t = 0, value_parser = number::<usize>)]
    silent: usize,
    /// How many of them vanish in the middle.
    #[arg(long, default_value_t = 0, value_parser = number::<usize>)]
    vanishing: usize,
    /// Length of the file in MiB.
    #[arg(long, default_value_t = 32, value_parser = number::<u64>)]
    mib: u64,
    /// Decides everything that is random; also the first of several.
    #[arg(long, default_value_t = 1, value_parser = number::<u64>)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1, value_parser = number::<u64>)]
    seeds: u64,
    /// Also without the upload policy: plain rarest first, and first come, first served.
    #[arg(long)]
    naive: bool,
}

fn number<T: FromStr>(typed: &str) -> Result<T, String> {
    typed.parse().map_err(|_| "write a whole number".to_owned())
}

fn main() {
    let arguments = Arguments::parse();
    println!("time over the bound; file lengths that the seeder sent; share of bytes received in vain");
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        for naive in [false, true] {
            if naive && !arguments.naive {
                continue;
            }
            let started = Instant::now();
            let outcome = run(&scenario(&arguments, seed, naive));
            println!(
                "seed {seed}{}: {:.3}; {:.2}; {:.2} %; {} without the file ({:.1} s of computing)",
                if naive { ", naive" } else { "" },
                outcome.over_bound(),
                outcome.seeder_copies,
                outcome.wasted * 100.0,
                outcome.incomplete,
                started.elapsed().as_secs_f64(),
            );
        }
    }
}

fn scenario(arguments: &Arguments, seed: u64, naive: bool) -> Scenario {
    let mut scenario = Scenario::equal(seed, arguments.leechers);
    scenario.size = arguments.mib << 20;
    scenario.naive = naive;
    let bound = scenario.bound();
    let mut leechers = scenario.leechers.iter_mut();
    let mut some =
        |count: usize, change: &dyn Fn(&mut Leecher)| leechers.by_ref().take(count).for_each(change);
    some(arguments.slow, &|leecher| leecher.uplink /= 10);
    some(arguments.lying, &|leecher| leecher.manners = Manners::Lies);
    some(arguments.silent, &|leecher| leecher.manners = Manners::Silent);
    some(arguments.vanishing, &|leecher| {
        leecher.vanishes = Some(Duration::from_secs_f64(bound.as_secs_f64() / 2.0));
    });
    scenario
}
