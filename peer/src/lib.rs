//! The peer: shares files with its groups and downloads them from many peers at once.
//!
//! `prompt` → `app` → {tracker session, shares, transfers} → `swarm` → the bulk lane. Arrows run downward only.

pub mod swarm;
pub mod tickets;
