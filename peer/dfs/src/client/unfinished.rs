//! What an interrupted PUT needs to go on: the file's secret, kept on this machine, sealed under the account key.
//!
//! A secret is used again only for the very same content: path, size, time of change, SHA-1 and BLAKE3. Sealing it again
//! then gives the same chunks, so that those that servers hold already need not be sent, and no nonce meets two
//! plaintexts.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use shoal_common::{Blake3, FileDigest, Sha1};
use zeroize::Zeroize;

use crate::keyring::Keyring;
use crate::seal::{FILE_ID_BYTES, FileSecret, KEY_BYTES};

/// The folder of unfinished PUTs.
const FOLDER: &str = "unfinished-puts";
/// Longest such file, in bytes.
const MAX_BYTES: u64 = 4 * 1024;
const PURPOSE: &[u8] = b"unfinished put 1";

/// Identifies a file's content without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
}

impl Fingerprint {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    size: u64,
    #[n(1)]
    modified: (i64, i64),
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

/// The note of one PUT. It stays if the PUT does not come to its end.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    pub(super) secret: FileSecret,
    /// Whether an earlier PUT of the same content is gone on with.
    pub(super) resumed: bool,
}

impl Unfinished {
    /// Finds the note of an earlier PUT of the same content, or makes one for a fresh secret. Blocking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn begin(
        folder: &Path,
        keyring: &Keyring,
        file: &Path,
        fingerprint: &Fingerprint,
        digest: &FileDigest,
    ) -> std::io::Result<Self> {
        let folder = folder.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let absolute = fs::canonicalize(file)?;
        // The account is in the name, by way of its keys, so that two accounts do not find each other's notes.
        let name = crate::name::StoredName::new("unfinished").map_err(std::io::Error::other)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&keyring.pointer(&name).0);
        hasher.update(absolute.as_os_str().as_encoded_bytes());
        let path = folder.join(&hasher.finalize().to_hex()[..32]);
        if let Some(secret) = read(&path, keyring, fingerprint, digest) {
            return Ok(Self { path, secret, resumed: true });
        }
        let secret = FileSecret::random();
        let body = Body {
            size: fingerprint.size,
            modified: fingerprint.modified,
            sha1: digest.sha1,
            blake3: digest.blake3,
            key: secret.key,
            id: secret.id,
        };
        let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(256));
        minicbor::encode(&body, &mut *plain).expect("a vector takes every write");
        shoal_disk::replace(&path, &keyring.seal_local(&plain, PURPOSE))?;
        Ok(Self { path, secret, resumed: false })
    }

    /// The PUT is over: its secret must not be used again.
    pub(super) fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the note of a put");
        }
    }
}

fn read(
    path: &Path,
    keyring: &Keyring,
    fingerprint: &Fingerprint,
    digest: &FileDigest,
) -> Option<FileSecret> {
    let found = fs::metadata(path).ok().filter(|found| found.len() <= MAX_BYTES);
    let sealed = found.and_then(|_| fs::read(path).ok())?;
    let plain = keyring.open_local(&sealed, PURPOSE).ok()?;
    let body: Body = minicbor::decode(&plain).ok()?;
    let same = body.size == fingerprint.size
        && body.modified == fingerprint.modified
        && (body.sha1, body.blake3) == (digest.sha1, digest.blake3);
    same.then(|| FileSecret { key: body.key, id: body.id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::credentials::AccountKey;

    #[test]
    fn a_secret_is_used_again_for_the_same_content_and_account_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, b"content").unwrap();
        let keyring = Keyring::new(&AccountKey::random());
        let digest = |byte| FileDigest { sha1: Sha1([byte; 20]), blake3: Blake3([byte; 32]) };
        let found = Fingerprint::of(&fs::metadata(&file).unwrap());
        let begin = |keyring: &Keyring, found: &Fingerprint, digest: &FileDigest| {
            Unfinished::begin(folder.path(), keyring, &file, found, digest).unwrap()
        };
        let first = begin(&keyring, &found, &digest(1));
        assert!(!first.resumed);
        let again = begin(&keyring, &found, &digest(1));
        assert!(again.resumed && again.secret == first.secret);
        let other = begin(&Keyring::new(&AccountKey::random()), &found, &digest(1));
        assert!(!other.resumed && other.secret != first.secret);
        let changed = begin(&keyring, &found, &digest(2));
        assert!(!changed.resumed && changed.secret != first.secret);
        let touched = Fingerprint { modified: (0, 0), ..found.clone() };
        assert!(!begin(&keyring, &touched, &digest(2)).resumed);
        begin(&keyring, &touched, &digest(2)).forget();
        assert!(!begin(&keyring, &touched, &digest(2)).resumed);
        for note in fs::read_dir(folder.path().join(FOLDER)).unwrap() {
            let bytes = fs::read(note.unwrap().path()).unwrap();
            assert!(!bytes.windows(8).any(|window| window == &first.secret.key[..8]));
        }
    }
}
