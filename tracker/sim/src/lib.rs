//! The seeded simulator of the tracker cluster: the real replica on simulated disks, networks and clocks, two
//! to seven trackers, and all kinds of faults, drawn from a seed.
//!
//! `sim_run` executes a run. `history` and `sim_run::check` say what must hold. [`Broken`] breaks a rule to
//! prove that the simulation notices. [`run`] executes seeds on all cores, and [`replay`] shrinks one that
//! fails. Used by `scripts/sim`, by the tests here, and on SQLite by the tracker's tests. It must never
//! depend on time, addresses or the order of threads: a seed always gives the same run.
#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

mod broken;
mod disk;
mod history;
mod network;
mod runner;
mod sim_run;
mod tally;
mod world;

#[cfg(test)]
mod admission;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod look_alikes;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod scenarios;

pub use broken::Broken;
pub use disk::{Disk, look};
pub use runner::{Campaign, Found, Outcome, replay, run};
pub use tally::Tally;
