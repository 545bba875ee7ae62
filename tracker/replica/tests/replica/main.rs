//! The replica on a store in memory: scenarios, properties, and a seeded simulation of whole clusters.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod history;
mod properties;
mod scenarios;
mod simulation;
mod world;
