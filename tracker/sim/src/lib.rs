//! The seeded simulator of the tracker cluster: the real replica on simulated disks, networks and clocks, two to seven
//! trackers, and everything that may go wrong, drawn from a seed.
//!
//! `life` plays it, `history` and `check` say what must hold, [`Broken`] breaks a rule to prove that it is missed,
//! [`runner`](run) runs seeds on all cores and shrinks one that fails. Called by `scripts/sim`, by the tests here, and on SQLite by
//! the tracker's tests. It must never depend on time, addresses or the order of threads: a seed is a life.
#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

mod broken;
mod check;
mod disk;
mod history;
mod liar;
mod life;
mod network;
mod operator;
mod runner;
mod tally;
mod trace;
mod world;

#[cfg(test)]
mod admission;
#[cfg(test)]
mod histories;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod scenarios;

pub use broken::Broken;
pub use disk::Disk;
pub use runner::{Campaign, Found, Outcome, replay, run};
pub use tally::Tally;
