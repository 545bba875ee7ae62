//! The peer: shares files with its groups and downloads them from many peers at once.
//!
//! `prompt` → `app` → {tracker session, shares, transfers} → `swarm` → the bulk lane. Arrows run downward only.

pub mod app;
pub mod budget;
pub mod client;
pub mod command;
pub mod data_dir;
pub mod events;
pub mod hashing;
pub mod holdings;
pub mod json;
pub mod options;
pub mod prompt;
pub mod render;
pub mod runner;
pub mod screen;
pub mod script;
pub mod session;
pub mod shares;
pub mod store;
pub mod swarm;
pub mod text;
pub mod tickets;
pub mod transfers;
pub mod wake;
pub mod watch;
