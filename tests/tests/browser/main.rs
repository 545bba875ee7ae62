//! The page in a real browser, used as a person uses it (B10).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod access;
mod complaints;
mod crowd;
mod desk;
mod doings;
mod first_visit;
mod journey;
mod parts;
mod pictures;
mod strangers;
