//! The queue of downloads, limits per download and by time of day, the command on completion, and moves of finished
//! downloads (P22, P23), with the real binaries.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod completion;
mod moving;
mod order;
mod pace;
