//! The secret by which a cluster's storage nodes are admitted, and a node's proof that it has it.
//!
//! The proof is a code over both ends' peer ids and a nonce. The connection proves both ids, so a code is valid only for this
//! node at this tracker.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Encode};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::peer_id::PeerId;

/// Shortest and longest secret in bytes: 16 random ones are enough, and a file of 4,096 is no key.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=4_096;

/// Keeps these codes from being taken for others.
const DOMAIN: &[u8] = b"shoal storage node joins 1\0";

/// What only the trackers and storage nodes of a cluster know.
pub struct NodeSecret(Zeroizing<Vec<u8>>);

/// A storage node's proof that it knows the secret, for one tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JoinProof {
    /// Random.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// HMAC-SHA256 under the secret over the node's and the tracker's peer id and the nonce.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub code: [u8; 32],
}

/// The secret is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be of 16 to 4,096 bytes; make one with: openssl rand -hex 32")]
pub struct SecretLength;

impl NodeSecret {
    /// The secret of these bytes, space at their ends apart.
    ///
    /// # Errors
    /// [`SecretLength`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretLength> {
        let bytes = bytes.trim_ascii();
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(SecretLength)
        }
    }

    /// The proof of `node` for `tracker`.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn prove(&self, node: PeerId, tracker: PeerId) -> JoinProof {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).expect("the system provides randomness");
        let code = self.mac(node, tracker, &nonce).finalize().into_bytes().into();
        JoinProof { nonce, code }
    }

    /// Whether that is a proof of `node` for `tracker`; in constant time.
    #[must_use]
    pub fn proves(&self, proof: &JoinProof, node: PeerId, tracker: PeerId) -> bool {
        self.mac(node, tracker, &proof.nonce).verify_slice(&proof.code).is_ok()
    }

    fn mac(&self, node: PeerId, tracker: PeerId, nonce: &[u8; 32]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [DOMAIN, &node.0, &tracker.0, nonce] {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_node_at_one_tracker_under_one_secret() {
        // No byte that is white space: a file's last line break is not part of the secret.
        let secret = |byte| NodeSecret::new(&[byte; 32]).unwrap();
        let (node, tracker) = (PeerId([1; 32]), PeerId([2; 32]));
        let proof = secret(7).prove(node, tracker);
        assert!(secret(7).proves(&proof, node, tracker));
        assert!(!secret(8).proves(&proof, node, tracker));
        assert!(!secret(7).proves(&proof, PeerId([3; 32]), tracker));
        assert!(!secret(7).proves(&proof, node, PeerId([3; 32])));
        assert!(!secret(7).proves(&JoinProof { nonce: [0; 32], ..proof }, node, tracker));
        assert_eq!(NodeSecret::new(b" 0123456789abcde  \n").unwrap_err(), SecretLength);
        assert!(NodeSecret::new(b"0123456789abcdef\n").is_ok());
        assert_eq!(format!("{:?}", secret(7)), "NodeSecret");
    }
}
