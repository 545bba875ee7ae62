//! What only the user can read of a stored file: its name, size, digests and secret, sealed under keys that come of the
//! account key, and the key under which the trackers keep it. Pure, but for nonces.
//!
//! The sealed part is a 24-byte random nonce and XChaCha20-Poly1305 of CBOR; bound to it are the pointer key and the
//! version (BLAKE3 of the public part), so that a tracker cannot combine one file's sealed part with another's chunks. It
//! can give an old version for the present one: nothing here can tell.

use std::sync::Arc;

use aws_lc_rs::hmac;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use minicbor::{Decode, Encode};
use shoal_common::credentials::AccountKey;
use shoal_common::storage::{MAX_SEALED_PART, PointerKey};
use shoal_common::{Blake3, FileDigest, Sha1};
use shoal_wipe::without_traces;
use zeroize::{Zeroize, Zeroizing};

use crate::name::StoredName;
use crate::seal::{FILE_ID_BYTES, FileSecret, KEY_BYTES};

const NONCE_BYTES: usize = 24;

/// What is known of a stored file to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: StoredName,
    /// Its size in bytes.
    pub size: u64,
    /// What the whole file is checked by.
    pub digest: FileDigest,
    /// What opens its chunks.
    pub secret: FileSecret,
}

/// The sealed part as it is encoded.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    name: String,
    #[n(1)]
    size: u64,
    #[n(2)]
    sha1: Sha1,
    #[n(3)]
    blake3: Blake3,
    #[cbor(n(4), with = "minicbor::bytes")]
    key: [u8; KEY_BYTES],
    #[cbor(n(5), with = "minicbor::bytes")]
    id: [u8; FILE_ID_BYTES],
}

impl Drop for Body {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Why a sealed part cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Not sealed by this account for this file and version.
    #[error("a stored file's description does not open with this account's key")]
    NotAuthentic,
    /// Sealed by this account, but of another version of the program.
    #[error("a stored file's description is of another version of dfs")]
    Malformed,
}

/// The keys of one account's stored files.
pub struct Keyring {
    sealing: Arc<Zeroizing<[u8; 32]>>,
    local: Arc<Zeroizing<[u8; 32]>>,
    pointers: hmac::Key,
}

impl Keyring {
    /// Derives them.
    #[must_use]
    pub fn new(account: &AccountKey) -> Self {
        let pointers = account.derive(b"shoal dfs pointers 1");
        let pointers = without_traces(|| hmac::Key::new(hmac::HMAC_SHA256, &pointers[..]));
        Self {
            sealing: account.derive(b"shoal dfs descriptions 1"),
            local: account.derive(b"shoal dfs unfinished puts 1"),
            pointers,
        }
    }

    /// Under what the trackers keep the file of that name.
    ///
    /// # Panics
    /// Never: HMAC-SHA256 has 32 bytes.
    #[must_use]
    pub fn pointer(&self, name: &StoredName) -> PointerKey {
        let tag = hmac::sign(&self.pointers, name.as_str().as_bytes());
        PointerKey(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Seals a description for the version of that name.
    ///
    /// # Panics
    /// Never: names are bounded, and with them the sealed part.
    #[must_use]
    pub fn seal(&self, description: &Description, version: &Blake3) -> Vec<u8> {
        let body = Body {
            name: description.name.as_str().to_owned(),
            size: description.size,
            sha1: description.digest.sha1,
            blake3: description.digest.blake3,
            key: description.secret.key,
            id: description.secret.id,
        };
        // Reserved at once: growing would leave copies of the key in memory.
        let mut plain = Zeroizing::new(Vec::with_capacity(MAX_SEALED_PART));
        minicbor::encode(&body, &mut *plain).expect("a vector takes every write");
        let aad = associated(&self.pointer(&description.name), version);
        encrypt(&self.sealing, &plain, &aad)
    }

    /// Opens the sealed part that a tracker gave for that key and version.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open(
        &self,
        key: &PointerKey,
        version: &Blake3,
        sealed: &[u8],
    ) -> Result<Description, KeyringError> {
        let plain = decrypt(&self.sealing, sealed, &associated(key, version))?;
        let body: Body = minicbor::decode(&plain).map_err(|_| KeyringError::Malformed)?;
        let name = StoredName::new(&body.name).map_err(|_| KeyringError::Malformed)?;
        if self.pointer(&name) != *key {
            return Err(KeyringError::NotAuthentic);
        }
        Ok(Description {
            name,
            size: body.size,
            digest: FileDigest { sha1: body.sha1, blake3: body.blake3 },
            secret: FileSecret { key: body.key, id: body.id },
        })
    }

    /// Seals something to be kept on this machine, such as the state of an unfinished PUT.
    #[must_use]
    pub fn seal_local(&self, plain: &[u8], purpose: &[u8]) -> Vec<u8> {
        encrypt(&self.local, plain, purpose)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is not of this account and purpose.
    pub fn open_local(&self, sealed: &[u8], purpose: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        decrypt(&self.local, sealed, purpose)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

fn associated(key: &PointerKey, version: &Blake3) -> Vec<u8> {
    [&key.0[..], &version.0].concat()
}

fn encrypt(key: &[u8; 32], plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; NONCE_BYTES];
    getrandom::fill(&mut sealed).expect("the system provides randomness");
    let nonce = XNonce::try_from(&sealed[..]).expect("24 bytes");
    let body = without_traces(|| {
        let cipher = XChaCha20Poly1305::new(&Key::from(*key));
        cipher.encrypt(&nonce, Payload { msg: plain, aad }).expect("far below the cipher's limit")
    });
    sealed.extend_from_slice(&body);
    sealed
}

fn decrypt(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(KeyringError::NotAuthentic)?;
    let nonce = XNonce::try_from(nonce).map_err(|_| KeyringError::NotAuthentic)?;
    let plain = without_traces(|| {
        let cipher = XChaCha20Poly1305::new(&Key::from(*key));
        cipher.decrypt(&nonce, Payload { msg: body, aad }).map(Zeroizing::new)
    });
    plain.map_err(|_| KeyringError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(name: &str) -> Description {
        Description {
            name: StoredName::new(name).unwrap(),
            size: 5,
            digest: FileDigest { sha1: Sha1([1; 20]), blake3: Blake3([2; 32]) },
            secret: FileSecret { key: [3; KEY_BYTES], id: [4; FILE_ID_BYTES] },
        }
    }

    #[test]
    fn opens_for_its_own_file_and_version_only() {
        let keyring = Keyring::new(&AccountKey::random());
        let version = Blake3([5; 32]);
        let file = description("a");
        let sealed = keyring.seal(&file, &version);
        let key = keyring.pointer(&file.name);
        assert_eq!(keyring.open(&key, &version, &sealed), Ok(file));
        assert!(keyring.open(&key, &Blake3([6; 32]), &sealed).is_err(), "another version");
        assert!(keyring.open(&keyring.pointer(&description("b").name), &version, &sealed).is_err());
        let other = Keyring::new(&AccountKey::random());
        assert!(other.open(&key, &version, &sealed).is_err(), "another account");
        assert_ne!(other.pointer(&description("a").name), key, "names do not meet across accounts");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(keyring.open(&key, &version, &flipped).is_err());
            assert!(keyring.open(&key, &version, &sealed[..at]).is_err());
        }
    }

    #[test]
    fn the_longest_name_fits_and_nothing_shows() {
        let name = "n".repeat(shoal_common::limits::MAX_FILE_NAME_BYTES);
        let keyring = Keyring::new(&AccountKey::random());
        let sealed = keyring.seal(&description(&name), &Blake3([0; 32]));
        assert!(sealed.len() <= MAX_SEALED_PART, "{}", sealed.len());
        assert!(!sealed.windows(8).any(|window| window == [b'n'; 8]));
        assert_eq!(format!("{keyring:?}"), "Keyring");
    }
}
