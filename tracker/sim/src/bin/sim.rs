//! Runs the simulation from the command line: many seeds on all cores, or one. A seed that fails is shrunk
//! and its steps are printed.
#![expect(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use clap::Parser;
use shoal_replica::memory::Memory;
use shoal_sim::{Broken, Campaign, replay, run};

/// Simulates clusters of trackers with faults, and reports rules that they violate.
#[derive(Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 20_000, value_parser = number::<u64>)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, value_parser = number::<u64>)]
    from: u64,
    /// Replay only this seed. If it fails, shrink it and print its steps.
    #[arg(long, value_parser = number::<u64>)]
    seed: Option<u64>,
    /// Break a rule: end, writer-id, votes, abstention, full-sync, removal or writers.
    #[arg(long, default_value_t = Broken::Nothing)]
    broken: Broken,
    /// Threads. The default is the number of cores.
    #[arg(long, default_value_t = 0, value_parser = number::<usize>)]
    threads: usize,
}

fn number<T: FromStr>(typed: &str) -> Result<T, String> {
    typed.parse().map_err(|_| "write a whole number".to_owned())
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        return report(seed, options.broken);
    }
    let campaign = Campaign {
        from: options.from,
        seeds: options.seeds,
        broken: options.broken,
        threads: options.threads,
    };
    let started = Instant::now();
    let step = (options.seeds / 20).clamp(1_000, 50_000);
    let outcome = run::<Memory>(&campaign, |done| {
        if done % step < 64 {
            eprintln!("{done} of {} seeds, {:.0} a second", options.seeds, rate(done, started));
        }
    });
    println!(
        "{} seeds in {:.0} s, {:.0} a second: {}",
        outcome.done,
        started.elapsed().as_secs_f64(),
        rate(outcome.done, started),
        outcome.tally
    );
    match outcome.found {
        None => ExitCode::SUCCESS,
        Some(found) => report(found.seed, options.broken),
    }
}

/// Replays a seed; if it fails, shrinks it and prints its steps.
fn report(seed: u64, broken: Broken) -> ExitCode {
    let Err((found, trace)) = replay::<Memory>(seed, broken) else {
        println!("seed {seed}: nothing is wrong");
        return ExitCode::SUCCESS;
    };
    for line in trace {
        println!("{line}");
    }
    println!("seed {seed}: {}", found.problem);
    let rule = if broken == Broken::Nothing { String::new() } else { format!(" --broken {broken}") };
    println!("replay with: scripts/sim --seed {seed}{rule}");
    ExitCode::FAILURE
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(done: u64, started: Instant) -> f64 {
    done as f64 / started.elapsed().as_secs_f64().max(0.001)
}
