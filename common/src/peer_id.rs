//! The name of a process on the wire: the Ed25519 public key that it proves in every handshake.
//!
//! Written and printed as libp2p does it (`12D3KooW…`): base58 of the identity multihash of the
//! protobuf-encoded key. Shoal's own processes have Ed25519 keys only, so 32 bytes say it all.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// What precedes an Ed25519 key in a libp2p peer id: identity multihash of 36 bytes, then the
/// protobuf fields `key type = Ed25519` and `key = 32 bytes`.
const LIBP2P_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// An Ed25519 public key as the name of a process. Not proven to be a point on the curve: a
/// signature check against a key that is none simply fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PeerId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// Why a text is not a peer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a peer id (expected one that starts with 12D3KooW)")]
pub struct PeerIdError;

impl PeerId {
    /// The id in libp2p's binary form, 38 bytes.
    #[must_use]
    pub fn to_libp2p_bytes(self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&LIBP2P_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// Reads libp2p's binary form.
    ///
    /// # Errors
    /// When the bytes name anything but an Ed25519 key.
    pub fn from_libp2p_bytes(bytes: &[u8]) -> Result<Self, PeerIdError> {
        let key = bytes.strip_prefix(&LIBP2P_PREFIX).ok_or(PeerIdError)?;
        key.try_into().map(Self).map_err(|_| PeerIdError)
    }
}

impl serde::Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_libp2p_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let mut bytes = [0; 38];
        match bs58::decode(text).onto(&mut bytes) {
            Ok(38) => Self::from_libp2p_bytes(&bytes),
            _ => Err(PeerIdError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_libp2ps_and_reads_back() {
        let id = PeerId([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "12D3KooW", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "0OIl", &"1".repeat(500)]
        {
            assert_eq!(text.parse::<PeerId>(), Err(PeerIdError), "{text}");
        }
    }
}
