//! How quiet the machine was while something was measured: a figure of a busy machine is none.
//!
//! A fixed piece of work, which needs nothing but the processors, is done once a round. How much its times differ is what a
//! difference between two jobs must exceed to mean anything.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use shoal_common::Sha1;

use crate::sample::Table;

/// Bytes that each processor hashes in one probe.
const WORK: usize = 128 << 20;
/// What the name of another build's job has and that of this build's has not.
pub(crate) const OLD_BUILD: &str = "old build: ";
/// A job is worse than the other build's if it has less than this part of its rate, or needs that many times its CPU seconds,
/// beyond the noise.
const WORSE: f64 = 0.9;
/// The highest over the lowest time of a probe, in a good run.
const MOST_SPREAD: f64 = 1.15;
/// How long it is looked what else runs, before anything is started. The system's load averages would count the building.
const LOOK: Duration = Duration::from_secs(3);
/// The part of the processors' time that others used then, in a good run.
const MOST_BUSY: f64 = 0.05;
/// The part of the time that the machine's host gave to others, in a good run.
const MOST_STOLEN: f64 = 0.02;

/// See the module.
pub(crate) struct Noise {
    busy: f64,
    before: Ticks,
    probes: Vec<f64>,
    /// Jobs of both builds, with this one's rate and CPU seconds over the other's.
    compared: Vec<(String, f64, f64)>,
}

/// Time of all processors so far, in the system's ticks.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Noise {
    /// Begins to listen. To be called before anything is started.
    pub(crate) fn listen() -> Self {
        let first = ticks();
        std::thread::sleep(LOOK);
        let before = ticks();
        let all = (before.all - first.all).max(1) as f64;
        let busy = 1.0 - (before.idle - first.idle) as f64 / all;
        Self { busy, before, probes: Vec::new(), compared: Vec::new() }
    }

    /// Takes a table's jobs in that were done by both builds.
    pub(crate) fn compare(&mut self, table: &Table) {
        for old in table.names().filter(|name| name.contains(OLD_BUILD)) {
            let new = old.replacen(OLD_BUILD, "", 1);
            if let Some((rate, cpu)) = table.ratio(&new, old) {
                self.compared.push((new, rate, cpu));
            }
        }
    }

    /// Prints the jobs that are worse than the other build's beyond the noise; whether there are none.
    pub(crate) fn none_is_worse(&self) -> bool {
        let bound = WORSE / self.spread();
        let worse = self.compared.iter().filter(|(_, rate, cpu)| *rate < bound || 1.0 / cpu < bound);
        let lines: Vec<String> = worse
            .map(|(job, rate, cpu)| {
                format!("- WORSE than the other build: {job}: {rate:.2} × its rate, {cpu:.2} × its CPU")
            })
            .collect();
        println!(
            "\n{} jobs compared with the other build; a difference counts beyond {bound:.2}.",
            self.compared.len()
        );
        lines.iter().for_each(|line| println!("{line}"));
        lines.is_empty() && !self.compared.is_empty()
    }

    /// The highest over the lowest time of a probe.
    fn spread(&self) -> f64 {
        let lowest = self.probes.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.probes.iter().copied().fold(0.0, f64::max);
        if self.probes.is_empty() { 1.0 } else { highest / lowest }
    }

    /// Does the fixed work. To be called once a round, while nothing else runs.
    pub(crate) fn probe(&mut self) {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
                scope.spawn(|| std::hint::black_box(Sha1::of(&vec![7; WORK])));
            }
        });
        self.probes.push(started.elapsed().as_secs_f64());
    }

    /// Prints how quiet it was; whether the run is good.
    pub(crate) fn judge(&self) -> bool {
        let now = ticks();
        let all = (now.all - self.before.all).max(1) as f64;
        let stolen = (now.stolen - self.before.stolen) as f64 / all;
        let lowest = self.probes.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = self.probes.iter().copied().fold(0.0, f64::max);
        let spread = self.spread();
        let good = spread <= MOST_SPREAD && self.busy <= MOST_BUSY && stolen <= MOST_STOLEN;
        let mut text = format!(
            "\nNoise: fixed work took {lowest:.3}–{highest:.3} s ({:.0} % apart), {:.1} % of the time was stolen, {:.0} % was used before anything was started.",
            (spread - 1.0) * 100.0,
            stolen * 100.0,
            self.busy * 100.0
        );
        if !good {
            let _ = write!(
                text,
                " THE MACHINE WAS BUSY: this is no good run, keep no figure of it (bounds: {:.0} %, {:.0} %, {:.0} %).",
                (MOST_SPREAD - 1.0) * 100.0,
                MOST_STOLEN * 100.0,
                MOST_BUSY * 100.0
            );
        }
        println!("{text}");
        good
    }
}

/// From the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, ….
fn ticks() -> Ticks {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let values: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|value| value.parse().ok()).collect();
    let value = |place: usize| values.get(place).copied().unwrap_or_default();
    Ticks { all: values.iter().sum(), idle: value(3) + value(4), stolen: value(7) }
}
