//! Bytes sealed under a passphrase, for a file that leaves this machine.
//!
//! Argon2id over passphrase and salt gives a key and a check value. The check tells a wrong passphrase from a damaged file. The cost is
//! fixed by the format, so that no file makes its reader take more memory than that.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use shoal_wipe::without_traces;
use zeroize::Zeroizing;

use crate::Password;
use crate::limits::MAX_PASSWORD_BYTES;

/// Memory that Argon2id takes, in KiB, with three passes and one lane: RFC 9106's second recommendation (section 4), which is for
/// machines with little memory. Such a file may be stolen, and is opened once, so it may cost more than a login.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;

const SALT_BYTES: usize = 16;
const CHECK_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const LENGTH_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// What stands before the sealed bytes, behind the caller's mark.
const HEADER: usize = SALT_BYTES + CHECK_BYTES + NONCE_BYTES + LENGTH_BYTES;

/// Why nothing could be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Empty or too long.
    #[error("a passphrase has from 1 to {MAX_PASSWORD_BYTES} bytes")]
    Length,
    /// Argon2 could not get its memory.
    #[error("not enough memory to use the passphrase (64 MiB are needed)")]
    Memory,
    /// Another passphrase was used.
    #[error("that is not its passphrase")]
    Wrong,
    /// Some of it is missing, or something follows it.
    #[error("it is not whole: it has {found} bytes of {expected}")]
    Cut {
        /// Bytes that are there.
        found: u64,
        /// Bytes that it must have.
        expected: u64,
    },
    /// The passphrase is right, and the bytes are not those that were sealed.
    #[error("it is damaged")]
    Damaged,
}

/// Seals `plain` behind `mark`, which names the format and is authenticated with it. Takes some 200 ms and 64 MiB.
///
/// # Errors
/// [`PassphraseError::Length`] or [`PassphraseError::Memory`].
pub fn seal(mark: &[u8], passphrase: &Password, plain: &[u8]) -> Result<Vec<u8>, PassphraseError> {
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    for random in [&mut salt[..], &mut nonce] {
        getrandom::fill(random).map_err(|_| PassphraseError::Memory)?;
    }
    let derived = derive(passphrase, &salt)?;
    let mut whole = Vec::with_capacity(mark.len() + HEADER + plain.len() + TAG_BYTES);
    whole.extend_from_slice(mark);
    whole.extend_from_slice(&salt);
    whole.extend_from_slice(derived.check());
    whole.extend_from_slice(&nonce);
    whole.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    let payload = Payload { msg: plain, aad: &whole };
    // It only fails for lengths beyond 256 GiB.
    let sealed =
        derived.cipher().encrypt(&XNonce::from(nonce), payload).map_err(|_| PassphraseError::Memory)?;
    whole.extend_from_slice(&sealed);
    Ok(whole)
}

/// Opens what [`seal`] gave, `mark` included, which the caller has looked at.
///
/// # Errors
/// See [`PassphraseError`].
pub fn open(mark: &[u8], passphrase: &Password, whole: &[u8]) -> Result<Zeroizing<Vec<u8>>, PassphraseError> {
    let (found, at_least) = (whole.len() as u64, (mark.len() + HEADER + TAG_BYTES) as u64);
    let cut = |expected| PassphraseError::Cut { found, expected };
    if found < at_least {
        return Err(cut(at_least));
    }
    let (authenticated, sealed) = whole.split_at(mark.len() + HEADER);
    let (salt, header) = first::<SALT_BYTES>(&authenticated[mark.len()..]);
    let (check, header) = first::<CHECK_BYTES>(header);
    let (nonce, header) = first::<NONCE_BYTES>(header);
    let expected = at_least.saturating_add(u64::from_le_bytes(first(header).0));
    if found != expected {
        return Err(cut(expected));
    }
    let derived = derive(passphrase, &salt)?;
    if derived.check() != check {
        return Err(PassphraseError::Wrong);
    }
    let payload = Payload { msg: sealed, aad: authenticated };
    let plain = derived.cipher().decrypt(&XNonce::from(nonce), payload);
    plain.map(Zeroizing::new).map_err(|_| PassphraseError::Damaged)
}

/// The first bytes of a header, and the rest; zeros where there are too few, which the caller has ruled out.
fn first<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk().map_or(([0; N], &[]), |(first, rest)| (*first, rest))
}

/// The key, and behind it the check value.
struct Derived(Zeroizing<[u8; KEY_BYTES + CHECK_BYTES]>);

impl Derived {
    fn cipher(&self) -> XChaCha20Poly1305 {
        let key = Zeroizing::new(first::<KEY_BYTES>(&self.0[..]).0);
        XChaCha20Poly1305::new(&Key::from(*key))
    }

    fn check(&self) -> &[u8] {
        &self.0[KEY_BYTES..]
    }
}

fn derive(passphrase: &Password, salt: &[u8; SALT_BYTES]) -> Result<Derived, PassphraseError> {
    let typed = passphrase.expose().as_bytes();
    if typed.is_empty() || typed.len() > MAX_PASSWORD_BYTES {
        return Err(PassphraseError::Length);
    }
    let mut derived = Zeroizing::new([0; KEY_BYTES + CHECK_BYTES]);
    without_traces(|| {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(KEY_BYTES + CHECK_BYTES))
            .map_err(|_| PassphraseError::Memory)?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(typed, salt, derived.as_mut())
            .map_err(|_| PassphraseError::Memory)
    })?;
    Ok(Derived(derived))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8] = b"a mark\n";

    fn typed(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn what_was_sealed_opens_with_its_passphrase_alone() {
        let whole = seal(MARK, &typed("right"), b"some secret").unwrap();
        assert!(whole.starts_with(MARK) && !whole.windows(6).any(|window| window == b"secret"));
        assert_eq!(&**open(MARK, &typed("right"), &whole).unwrap(), b"some secret");
        assert_eq!(open(MARK, &typed("wrong"), &whole).unwrap_err(), PassphraseError::Wrong);
        assert_eq!(open(MARK, &typed(""), &whole).unwrap_err(), PassphraseError::Length);
        assert_ne!(seal(MARK, &typed("right"), b"some secret").unwrap(), whole, "another salt and nonce");
    }

    #[test]
    fn what_is_cut_lengthened_or_changed_does_not_open() {
        let whole = seal(MARK, &typed("right"), b"some secret").unwrap();
        for length in [0, MARK.len(), MARK.len() + HEADER, whole.len() - 1] {
            let error = open(MARK, &typed("right"), &whole[..length]).unwrap_err();
            assert!(matches!(error, PassphraseError::Cut { .. }), "{length}: {error}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(open(MARK, &typed("right"), &longer), Err(PassphraseError::Cut { .. })));
        let nonce = MARK.len() + SALT_BYTES + CHECK_BYTES;
        for (at, error) in [
            (MARK.len(), PassphraseError::Wrong),
            (nonce - 1, PassphraseError::Wrong),
            (nonce, PassphraseError::Damaged),
            (whole.len() - 1, PassphraseError::Damaged),
        ] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(open(MARK, &typed("right"), &changed).unwrap_err(), error, "{at}");
        }
    }
}
