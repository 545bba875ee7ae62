//! The swarm over real loopback sockets: members that serve and fetch, strangers, and servers that misbehave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

mod conformance;
mod hostile;
mod servers;
mod support;
mod tickets;
mod transfer;
#[path = "../../../session/tests/support/waiting.rs"]
mod waiting;
