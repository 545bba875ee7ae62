//! Fetching pieces from other peers: [`PeerSource`] is the engine's view of one file at one peer, [`link`] the
//! connections behind it.

mod connection;
mod keeper;
mod link;
mod requests;
mod silence;
mod source;

pub(super) use self::link::Links;
pub use self::source::{Liveness, PeerSource};
pub(super) use self::source::{Origin, Start};
