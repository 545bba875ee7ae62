//! What every part of Shoal must agree on: names, layout, digests, manifests, messages and their
//! limits. Called by everyone; does no I/O, knows no clock and no network.

pub mod peer_id;

pub use peer_id::PeerId;
