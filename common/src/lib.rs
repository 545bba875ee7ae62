//! What all parts of Shoal must agree on: names, layout, digests, manifests, messages and their limits. It does no I/O and
//! knows neither a clock nor a network.

pub mod bitfield;
pub mod bucket;
pub mod budget;
pub mod credentials;
pub mod digest;
pub mod folder;
pub mod ids;
pub mod join;
pub mod layout;
pub mod limits;
pub mod manifest;
pub mod mirrors;
pub mod names;
pub mod passphrase;
mod password;
pub mod peer_id;
pub mod peer_wire;
mod site;
mod size;
pub mod storage;
pub mod tokens;
pub mod tracker_api;
pub mod tracker_info;
pub mod vouching;

pub use bitfield::Bitfield;
pub use digest::{
    Blake3, Blake3Hasher, Digests, DigestsHasher, FileDigest, FileHasher, Md5, OtherDigestsHasher, Sha1,
    Sha224, Sha256, Sha384, Sha512,
};
pub use folder::{FolderRecord, ListedFile, Listing, ListingError};
pub use ids::{AccountDigest, Fid, Gid, Nonce, RequestId, Uid};
pub use layout::{Layout, PieceIndex, Stretch};
pub use manifest::Manifest;
pub use names::{FileName, GroupName, NameError, NodeName, UserName, normal_form};
pub use password::Password;
pub use peer_id::PeerId;
pub use site::site;
pub use size::{duration_text, size_text};
pub use tracker_info::TrackerInfo;
