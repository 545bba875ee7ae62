//! Derives an account's secrets from its password, on the client and nowhere else.
//!
//! Argon2id over password and salt gives a root; HKDF splits it into the seed of the *login key*, whose public half the
//! trackers keep, and the *wrapping key*, which seals the account key. The account's name plays no part, so that an account
//! that was renamed keeps its password.

use std::convert::Infallible;
use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use minicbor::{Decode, Encode};
use sha2::Sha256;
use shoal_wipe::without_traces;
use zeroize::Zeroizing;

use crate::digest::Blake3;
use crate::ids::{AccountDigest, Uid};
use crate::limits::MAX_PASSWORD_BYTES;
use crate::peer_id::PeerId;
use crate::tokens::verify;

/// Memory that Argon2id takes, in KiB: with two passes and one lane OWASP's first recommendation (Password Storage
/// Cheat Sheet, 2024).
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
const ARGON2_LANES: u32 = 1;

/// Bytes of an account's salt (RFC 9106, section 3.1 recommends 16).
pub const SALT_BYTES: usize = 16;
/// Bytes of a login challenge.
pub const CHALLENGE_BYTES: usize = 32;
/// Bytes of a sealed account key: nonce, account key and tag.
pub const SEALED_BYTES: usize = 24 + 32 + 16;

/// What the trackers keep of an account's secrets. It does not suffice to log in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Account {
    /// Random, public.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; SALT_BYTES],
    /// Public half of the login key.
    #[n(1)]
    pub login_key: PeerId,
    /// The account key, sealed under the wrapping key: 24 bytes of nonce, then XChaCha20-Poly1305.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed_account_key: [u8; SEALED_BYTES],
}

/// The signature of a login key on the account that takes its place; see [`Secrets::sign_change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ChangeSignature(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 64]);

impl Account {
    /// The part of an account that ids and signatures are bound to: all of it, in a fixed length.
    #[must_use]
    pub fn digest(&self) -> AccountDigest {
        let secrets = [&self.salt[..], &self.sealed_account_key].concat();
        AccountDigest { login_key: self.login_key, secrets: Blake3::of(&secrets) }
    }
}

/// The random key under which an account keeps its own secrets. A change of password keeps it. Clones share one allocation, which is
/// wiped with the last of them.
#[derive(Clone)]
pub struct AccountKey(Arc<Zeroizing<[u8; 32]>>);

/// What the client keeps while it is logged in, to log in again without asking for the password. Clones share one allocation, which
/// is wiped with the last of them.
#[derive(Clone)]
pub struct Secrets {
    /// The login key's seed, then the wrapping key.
    keys: Arc<Zeroizing<[u8; SEED_BYTES + WRAPPING_BYTES]>>,
    login_key: PeerId,
}

/// Bytes of [`Secrets`], as they are kept.
pub const SECRET_BYTES: usize = SEED_BYTES + WRAPPING_BYTES;
/// Bytes of the login key's seed.
const SEED_BYTES: usize = 32;
/// Bytes of the wrapping key.
const WRAPPING_BYTES: usize = 32;

/// An allocation for a secret, filled where it stays: what is moved leaves a copy behind.
fn filled<const N: usize, E>(
    fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>,
) -> Result<Arc<Zeroizing<[u8; N]>>, E> {
    let mut secret = Arc::new(Zeroizing::new([0; N]));
    fill(Arc::get_mut(&mut secret).expect("nothing else has it yet"))?;
    Ok(secret)
}

/// Why secrets could not be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Empty or too long.
    #[error("a password has from 1 to {MAX_PASSWORD_BYTES} bytes")]
    PasswordLength,
    /// Argon2 could not get its memory.
    #[error("not enough memory to hash the password (19 MiB are needed)")]
    Memory,
    /// The account key does not open under this password.
    #[error("the account's key does not open with this password")]
    Sealed,
}

impl AccountKey {
    /// An independent key for one purpose, by HKDF-SHA256.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Arc<Zeroizing<[u8; 32]>> {
        let Ok(key) = without_traces(|| {
            let hkdf = Hkdf::<Sha256>::new(None, &**self.0);
            filled(|key: &mut [u8; 32]| {
                hkdf.expand(purpose, key).expect("32 bytes are less than HKDF's limit");
                Ok::<_, Infallible>(())
            })
        });
        key
    }

    /// A random one that belongs to no account yet.
    #[must_use]
    pub fn random() -> Self {
        let Ok(key) = filled(|key: &mut [u8; 32]| {
            fill(key);
            Ok::<_, Infallible>(())
        });
        Self(key)
    }
}

impl Secrets {
    /// Derives an account's secrets. Takes some 20 ms and 19 MiB.
    ///
    /// # Errors
    /// [`CredentialError::PasswordLength`] or [`CredentialError::Memory`].
    pub fn derive(password: &str, salt: &[u8; SALT_BYTES]) -> Result<Self, CredentialError> {
        if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
            return Err(CredentialError::PasswordLength);
        }
        without_traces(|| {
            let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, Some(32))
                .map_err(|_| CredentialError::Memory)?;
            let mut root = Zeroizing::new([0; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.as_bytes(), salt, root.as_mut())
                .map_err(|_| CredentialError::Memory)?;
            let hkdf = Hkdf::<Sha256>::new(None, root.as_ref());
            let keys = filled(|keys: &mut [u8; SEED_BYTES + WRAPPING_BYTES]| {
                let (seed, wrapping) = keys.split_at_mut(SEED_BYTES);
                for (info, key) in [(&b"shoal login key 1"[..], seed), (b"shoal wrapping key 1", wrapping)] {
                    hkdf.expand(info, key).expect("32 bytes are less than HKDF's limit");
                }
                Ok(())
            })?;
            Ok(Self::of(keys))
        })
    }

    /// A new account under a fresh salt: its secrets, its account key, and what the trackers get.
    ///
    /// # Errors
    /// As [`Secrets::derive`].
    pub fn create(password: &str) -> Result<(Self, AccountKey, Account), CredentialError> {
        let key = AccountKey::random();
        let (secrets, account) = Self::rewrap(password, &key)?;
        Ok((secrets, key, account))
    }

    /// The same account key under a new password.
    ///
    /// # Errors
    /// As [`Secrets::derive`].
    pub fn rewrap(password: &str, key: &AccountKey) -> Result<(Self, Account), CredentialError> {
        let mut salt = [0; SALT_BYTES];
        fill(&mut salt);
        let secrets = Self::derive(password, &salt)?;
        let account =
            Account { salt, login_key: secrets.login_key(), sealed_account_key: secrets.seal(key, &salt) };
        Ok((secrets, account))
    }

    /// The secrets themselves, to be kept where only their owner reads them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.keys
    }

    /// Secrets that were kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SECRET_BYTES]) -> Self {
        without_traces(|| {
            let Ok(keys) = filled(|keys: &mut [u8; SECRET_BYTES]| {
                keys.copy_from_slice(bytes);
                Ok::<_, Infallible>(())
            });
            Self::of(keys)
        })
    }

    /// With the public half of the login key.
    fn of(keys: Arc<Zeroizing<[u8; SECRET_BYTES]>>) -> Self {
        let mut secrets = Self { keys, login_key: PeerId([0; 32]) };
        secrets.login_key = PeerId(secrets.signing_key().verifying_key().to_bytes());
        secrets
    }

    /// The public half of the login key.
    #[must_use]
    pub fn login_key(&self) -> PeerId {
        self.login_key
    }

    /// Answers a tracker's challenge. The signature is valid for this client at this tracker only.
    #[must_use]
    pub fn answer(&self, challenge: &[u8; CHALLENGE_BYTES], client: PeerId, tracker: PeerId) -> [u8; 64] {
        self.sign(&challenge_message(challenge, client, tracker))
    }

    /// Signs that `new` takes the place of this login key's account. Trackers keep the signature with the account, and take no
    /// other key material for that user without one.
    #[must_use]
    pub fn sign_change(&self, user: Uid, new: &AccountDigest) -> ChangeSignature {
        ChangeSignature(self.sign(&change_message(user, self.login_key, new)))
    }

    /// Opens the account key.
    ///
    /// # Errors
    /// [`CredentialError::Sealed`] when it was sealed under another password.
    pub fn open(&self, account: &Account) -> Result<AccountKey, CredentialError> {
        let (nonce, sealed) = account.sealed_account_key.split_at(24);
        let nonce = XNonce::try_from(nonce).map_err(|_| CredentialError::Sealed)?;
        without_traces(|| {
            let opened = Zeroizing::new(
                self.cipher()
                    .decrypt(&nonce, Payload { msg: sealed, aad: &account.salt })
                    .map_err(|_| CredentialError::Sealed)?,
            );
            filled(|key: &mut [u8; 32]| {
                if opened.len() != key.len() {
                    return Err(CredentialError::Sealed);
                }
                key.copy_from_slice(&opened);
                Ok(())
            })
            .map(AccountKey)
        })
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        without_traces(|| self.signing_key().sign(message).to_bytes())
    }

    /// The login key. It leaves copies on the stack.
    fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(self.keys.first_chunk().expect("the seed comes first"))
    }

    fn seal(&self, key: &AccountKey, salt: &[u8; SALT_BYTES]) -> [u8; SEALED_BYTES] {
        let mut sealed = [0; SEALED_BYTES];
        fill(&mut sealed[..24]);
        let nonce = XNonce::try_from(&sealed[..24]).expect("24 bytes");
        let body = without_traces(|| {
            let payload = Payload { msg: &**key.0, aad: salt };
            self.cipher().encrypt(&nonce, payload).expect("32 bytes are less than the cipher's limit")
        });
        sealed[24..].copy_from_slice(&body);
        sealed
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let wrapping: &[u8; WRAPPING_BYTES] = self.keys.last_chunk().expect("the wrapping key comes last");
        XChaCha20Poly1305::new(&Key::from(*wrapping))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Whether `signature` answers the challenge; see [`Secrets::answer`].
#[must_use]
pub fn check_answer(
    login_key: PeerId,
    challenge: &[u8; CHALLENGE_BYTES],
    client: PeerId,
    tracker: PeerId,
    signature: &[u8; 64],
) -> bool {
    verify(login_key, &challenge_message(challenge, client, tracker), signature)
}

/// Whether `signature` is that of the login key `old` on the change of the user's account to `new`; see
/// [`Secrets::sign_change`].
#[must_use]
pub fn check_change(user: Uid, old: PeerId, new: &AccountDigest, signature: &ChangeSignature) -> bool {
    verify(old, &change_message(user, old, new), &signature.0)
}

fn challenge_message(challenge: &[u8; CHALLENGE_BYTES], client: PeerId, tracker: PeerId) -> Vec<u8> {
    [b"shoal login 1\0".as_slice(), challenge, &client.0, &tracker.0].concat()
}

/// What [`Secrets::sign_change`] signs. It names the old key, so that no signature fits at another place in a history.
#[must_use]
pub fn change_message(user: Uid, old: PeerId, new: &AccountDigest) -> Vec<u8> {
    [b"shoal account change 1\0".as_slice(), &user.0, &old.0, &new.login_key.0, &new.secrets.0].concat()
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system provides randomness");
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: PeerId = PeerId([1; 32]);
    const TRACKER: PeerId = PeerId([2; 32]);

    #[test]
    fn the_right_password_answers_and_opens() {
        let (_, key, account) = Secrets::create("correct horse").unwrap();
        let again = Secrets::derive("correct horse", &account.salt).unwrap();
        let answer = again.answer(&[5; 32], CLIENT, TRACKER);
        assert!(check_answer(account.login_key, &[5; 32], CLIENT, TRACKER, &answer));
        assert!(!check_answer(account.login_key, &[6; 32], CLIENT, TRACKER, &answer));
        assert!(!check_answer(account.login_key, &[5; 32], TRACKER, TRACKER, &answer));
        assert!(!check_answer(account.login_key, &[5; 32], CLIENT, CLIENT, &answer));
        assert_eq!(again.open(&account).unwrap().0, key.0);
        let kept = Secrets::from_bytes(again.as_bytes());
        assert_eq!((kept.login_key(), kept.open(&account).unwrap().0), (again.login_key(), key.0));
    }

    #[test]
    fn a_wrong_password_does_neither() {
        let (_, _, account) = Secrets::create("right").unwrap();
        let wrong = Secrets::derive("wrong", &account.salt).unwrap();
        assert_ne!(wrong.login_key(), account.login_key);
        assert_eq!(wrong.open(&account).map(|_| ()), Err(CredentialError::Sealed));
        assert_eq!(Secrets::derive("", &account.salt).map(|_| ()), Err(CredentialError::PasswordLength));
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        assert_eq!(Secrets::derive(&long, &account.salt).map(|_| ()), Err(CredentialError::PasswordLength));
    }

    #[test]
    fn a_new_password_keeps_the_account_key() {
        let (_, key, old) = Secrets::create("old").unwrap();
        let (_, new) = Secrets::rewrap("new", &key).unwrap();
        assert_ne!(new.salt, old.salt);
        assert_eq!(Secrets::derive("new", &new.salt).unwrap().open(&new).unwrap().0, key.0);
    }

    #[test]
    fn a_change_is_signed_by_the_key_before_for_one_user_and_one_account() {
        let (old, key, _) = Secrets::create("old").unwrap();
        let (other, _, _) = Secrets::create("other").unwrap();
        let (_, account) = Secrets::rewrap("new", &key).unwrap();
        let (ann, new) = (Uid([1; 16]), account.digest());
        let signature = old.sign_change(ann, &new);
        assert!(check_change(ann, old.login_key(), &new, &signature));
        assert!(!check_change(Uid([2; 16]), old.login_key(), &new, &signature));
        assert!(!check_change(ann, other.login_key(), &new, &signature));
        assert!(!check_change(ann, old.login_key(), &new, &other.sign_change(ann, &new)));
        let mut changed = account.clone();
        changed.salt[0] ^= 1;
        assert!(!check_change(ann, old.login_key(), &changed.digest(), &signature));
        changed = account;
        changed.sealed_account_key[0] ^= 1;
        assert!(!check_change(ann, old.login_key(), &changed.digest(), &signature));
    }

    #[test]
    fn derivation_is_stable() {
        let secrets = Secrets::derive("password", &[0; SALT_BYTES]).unwrap();
        // The result of 2026-11-21: with another one no user could log in.
        assert_eq!(secrets.login_key().to_string(), "12D3KooWMxv8VdLH5VdzGYdYMRdiFyvtfQssqWsFg7aUxoiKmJcB");
    }
}
