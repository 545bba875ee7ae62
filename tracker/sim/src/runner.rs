//! Runs seeds on all cores and shrinks one that fails.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::sim_run::{Failure, RunPlan, run_seed};
use crate::tally::Tally;

/// The most runs that shrinking may cost.
const SHRINK_RUNS: u32 = 600;

/// Which seeds to run, and with which rule broken.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Which rule is broken.
    pub broken: Broken,
    /// The number of threads; 0 for one per core.
    pub threads: usize,
}

/// A seed that failed.
#[derive(Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The rule that was violated, and how.
    pub problem: String,
}

/// The result of a campaign.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Seeds that were run.
    pub done: u64,
    /// What happened in them.
    pub tally: Tally,
    /// A seed that failed. The remaining seeds were not run.
    pub found: Option<Found>,
}

/// Runs seeds until one fails. `progress` is called at intervals with the number of seeds done.
///
/// # Panics
/// If the simulation itself fails on a thread.
pub fn run<D: Disk>(campaign: &Campaign, progress: impl Fn(u64) + Sync) -> Outcome {
    let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let threads = if campaign.threads == 0 { cores() } else { campaign.threads };
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Outcome::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= campaign.seeds {
                return;
            }
            let seed = campaign.from + number;
            let plan = RunPlan { seed, ..RunPlan::default() };
            let result = try_run::<D>(&plan, campaign.broken);
            let mut outcome = outcome.lock().unwrap();
            outcome.done += 1;
            match result {
                Ok(tally) => outcome.tally.add(&tally),
                Err(failure) => {
                    stop.store(true, Ordering::Relaxed);
                    let found = Found { seed, problem: failure.problem };
                    outcome.found = outcome.found.take().filter(|known| known.seed < seed).or(Some(found));
                }
            }
            if outcome.done.is_multiple_of(64) {
                progress(outcome.done);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    outcome.into_inner().unwrap()
}

/// Runs one seed. If it fails, leaves out the steps that the failure does not need and returns the rest as a
/// trace.
///
/// # Errors
/// What is wrong, and how it came about.
pub fn replay<D: Disk>(seed: u64, broken: Broken) -> Result<(), (Found, Vec<String>)> {
    let mut plan = RunPlan { seed, ..RunPlan::default() };
    let Err(first) = try_run::<D>(&plan, broken) else { return Ok(()) };
    // Failures of another class would mislead.
    let class = class_of(&first.problem);
    let mut kept: Vec<u32> = (1..=first.steps).collect();
    let (mut runs, mut size) = (0, kept.len().div_ceil(2));
    while size > 0 && runs < SHRINK_RUNS {
        let mut at = 0;
        while at < kept.len() && runs < SHRINK_RUNS {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            plan.without = (1..=first.steps).filter(|step| !fewer.contains(step)).collect();
            runs += 1;
            let failure = try_run::<D>(&plan, broken).err();
            if failure.is_some_and(|failure| class_of(&failure.problem) == class) {
                kept = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    plan.without = (1..=first.steps).filter(|step| !kept.contains(step)).collect();
    plan.trace = true;
    let failure = try_run::<D>(&plan, broken).err().unwrap_or(first);
    Err((Found { seed, problem: failure.problem }, failure.trace))
}

/// A panic is a failure too.
fn try_run<D: Disk>(plan: &RunPlan, broken: Broken) -> Result<Tally, Failure> {
    std::panic::catch_unwind(AssertUnwindSafe(|| run_seed::<D>(plan, broken))).unwrap_or_else(|_| {
        let problem = "panic: see above".to_owned();
        Err(Failure { problem, steps: u32::from(u16::MAX) / 16, trace: Vec::new() })
    })
}

fn class_of(problem: &str) -> String {
    problem.split(':').take(1).collect()
}

#[cfg(test)]
mod tests {
    use shoal_replica::memory::Memory;

    use super::*;

    /// A broken rule must be noticed within this many seeds.
    const SEEDS: u64 = 5_000;

    fn caught(broken: Broken, problems: &[&str]) {
        let campaign = Campaign { from: 0, seeds: SEEDS, broken, threads: 0 };
        let found = run::<Memory>(&campaign, |_| ()).found.expect("the broken rule is noticed");
        println!("seed {}: {}", found.seed, found.problem);
        assert!(problems.iter().any(|problem| found.problem.starts_with(problem)), "{}", found.problem);
    }

    #[test]
    fn a_vector_merged_before_the_end_is_caught() {
        caught(Broken::End, &["vector", "invariant 1", "invariants 2"]);
    }

    #[test]
    fn a_writer_id_used_twice_is_caught() {
        caught(Broken::WriterId, &["invariant 6", "invariant 1", "vector"]);
    }

    #[test]
    fn names_without_votes_are_caught() {
        caught(Broken::Votes, &["invariant 3"]);
    }

    #[test]
    fn a_vote_before_all_were_synced_is_caught() {
        caught(Broken::Abstention, &["invariant 3"]);
    }

    #[test]
    fn a_missing_full_sync_is_caught() {
        caught(Broken::FullSync, &["invariant 1", "invariants 2", "vector"]);
    }

    #[test]
    fn rows_that_a_liar_removes_are_noticed() {
        caught(Broken::Removal, &["liar, A3"]);
    }

    #[test]
    fn writers_that_a_liar_makes_up_are_noticed() {
        caught(Broken::Writers, &["liar, A6"]);
    }

    #[test]
    fn some_seeds_hold_and_a_seed_is_always_the_same_run() {
        let campaign = |threads| Campaign { from: 7_000, seeds: 200, broken: Broken::Nothing, threads };
        let (one, other) = (run::<Memory>(&campaign(1), |_| ()), run::<Memory>(&campaign(2), |_| ()));
        assert!(one.found.is_none(), "{:?}", one.found);
        assert_eq!(one.tally.to_string(), other.tally.to_string());
    }

    #[test]
    fn a_failing_seed_is_shrunk_to_what_it_takes() {
        let (found, trace) = replay::<Memory>(1, Broken::WriterId).expect_err("this rule is noticed at once");
        // The tracker learns of numbers that it does not know it used, or two rows appear under one number.
        let noticed = ["invariant 6", "invariant 1: FalseAttribution"];
        assert!(noticed.iter().any(|it| found.problem.starts_with(it)), "{}", found.problem);
        let lines = |word: &str| trace.iter().filter(|line| line.contains(word)).count();
        assert!(lines(": write ") + lines(": delete ") < 12, "{trace:#?}");
        assert!(replay::<Memory>(1, Broken::Nothing).is_ok());
    }
}
