//! An earlier version beside this one: programs of both together, and data folders that the earlier one wrote.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod folders;
mod kept;
mod mixed;
