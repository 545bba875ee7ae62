//! What every part of Shoal must agree on: names, layout, digests, manifests, messages and their
//! limits. Called by everyone; does no I/O, knows no clock and no network.

pub mod bitfield;
pub mod digest;
pub mod layout;
pub mod limits;
pub mod peer_id;

pub use bitfield::Bitfield;
pub use digest::{Blake3, FileDigest, FileHasher, Sha1};
pub use layout::{Layout, PieceIndex};
pub use peer_id::PeerId;
