//! Bulk connections: TLS 1.3 between two proven peers, over TCP or any other [`Way`], for pieces and what goes with them.
//!
//! Measured against libp2p's multiplexed streams it carries half as much again for less CPU (see
//! ARCHITECTURE.md), so pieces, requests and tickets between peers go here. Both ends present libp2p's own
//! certificates and prove the same peer ids as on the control plane; what is sent is up to the callers,
//! in the frames of [`frame`].

mod connect;
pub mod frame;
mod handshake;
mod listener;
mod record;
mod record_budget;
mod stream;
pub(crate) mod tls;
mod way;

pub use connect::{BulkError, connect, connect_reversed, meet};
pub use listener::{BulkLimits, Listener};
pub use stream::{BulkReader, BulkStream, BulkWriter};
pub(crate) use way::RELAY_GREETING;
pub use way::{Relayed, Way};
