//! The Ed25519 key that is a process's name on the wire, and the file that keeps it.
//!
//! Made once per data directory by whichever binary owns that directory; everything that proves
//! who we are (both transports, tokens, tickets) signs through here. The secret half never leaves
//! this module but into the certificates of this crate, and is never printed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use libp2p::identity::{Keypair, ed25519};
use libp2p::tls::certificate;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use shoal_common::PeerId;
use zeroize::Zeroizing;

/// What opens the one line of a key file; a later format gets another word.
const PREFIX: &str = "shoal-ed25519 ";
/// No key file is longer; anything that is was not written by us.
const MAX_FILE_BYTES: u64 = 256;
/// Tells the drafts of one process apart.
static DRAFTS: AtomicU32 = AtomicU32::new(0);
/// Readable by its owner only.
const MODE: u32 = 0o600;

/// An Ed25519 key pair. Cloning is cheap and shares the key.
#[derive(Clone)]
pub struct Identity {
    keys: Arc<Keys>,
}

struct Keys {
    signing: ed25519::Keypair,
    peer_id: PeerId,
    /// Made when a bulk connection first needs it.
    certified: OnceLock<Result<CertifiedKey, String>>,
}

/// Why a key file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("cannot {action} the key file {path}: {source}", path = path.display())]
    Io {
        /// What was tried: read, create.
        action: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could read the key, so it proves nothing.
    #[error(
        "the key file {path} can be read by others (mode {mode:03o}); run: chmod 600 {path}",
        path = path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than a key.
    #[error(
        "{path} is not a key file of Shoal; move it away and a new key will be made (under a new peer id)",
        path = path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
}

impl Identity {
    /// The key in `path`, made and saved there first if there is no such file. Blocks on the disk.
    /// Two processes that create the same file at once end up with the same key, and a crash leaves
    /// either no key file or a whole one.
    ///
    /// # Errors
    /// When the file cannot be read or created, can be read by others, or holds no key.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let fresh = Self::generate();
        let io_error = |source| IdentityError::Io { action: "create", path: path.to_owned(), source };
        match fresh.save(path) {
            Ok(()) => Ok(fresh),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)?.ok_or_else(|| io_error(error))
            }
            Err(error) => Err(io_error(error)),
        }
    }

    /// A new key that is kept nowhere.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_keypair(ed25519::Keypair::generate())
    }

    /// The public half, as others know it.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.keys.peer_id
    }

    /// The Ed25519 signature (RFC 8032) of `message`. Callers separate domains by a prefix of their own:
    /// this very key also signs the certificates of both transports, behind `libp2p-tls-handshake:`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.keys.signing.sign(message);
        signature.try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The key in libp2p's wrapping.
    pub(crate) fn keypair(&self) -> Keypair {
        Keypair::from(self.keys.signing.clone())
    }

    /// The certificate for bulk connections with its key: one per process, like the key it vouches for.
    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, String> {
        self.keys.certified.get_or_init(|| certify(&self.keypair())).clone()
    }

    fn from_keypair(signing: ed25519::Keypair) -> Self {
        let peer_id = PeerId(signing.public().to_bytes());
        Self { keys: Arc::new(Keys { signing, peer_id, certified: OnceLock::new() }) }
    }

    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let io_error = |source| IdentityError::Io { action: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
        };
        let found = file.metadata().map_err(io_error)?;
        if shoal_disk::is_exposed(path, &found) {
            let mode = found.mode() & 0o777;
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(io_error)?;
        let signing = parse(&text).ok_or_else(|| IdentityError::Malformed { path: path.to_owned() })?;
        Ok(Some(Self::from_keypair(signing)))
    }

    /// Writes a temporary file beside `path` and renames it, which fails if `path` exists.
    fn save(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}-{}.new", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
        let draft = PathBuf::from(draft);
        let written = self.write(&draft).and_then(|()| shoal_disk::rename_new(&draft, path));
        let removed = fs::remove_file(&draft);
        written?;
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        shoal_disk::sync_folder(folder)
    }

    fn write(&self, draft: &Path) -> io::Result<()> {
        let secret = Zeroizing::new(self.keys.signing.to_bytes());
        let mut line = Zeroizing::new(String::with_capacity(256));
        line.push_str(PREFIX);
        for byte in &secret[..32] {
            line.push(hex_digit(byte >> 4));
            line.push(hex_digit(byte & 15));
        }
        line.push('\n');
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(draft)?;
        file.write_all(line.as_bytes())?;
        shoal_disk::sync_file(&file)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.keys.peer_id).finish()
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble)])
}

fn parse(text: &[u8]) -> Option<ed25519::Keypair> {
    let line = text.strip_prefix(PREFIX.as_bytes())?;
    let digits = line.strip_suffix(b"\n").unwrap_or(line);
    if digits.len() != 64 {
        return None;
    }
    let mut secret = Zeroizing::new([0_u8; 32]);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    let secret = ed25519::SecretKey::try_from_bytes(&mut secret[..]).ok()?;
    Some(ed25519::Keypair::from(secret))
}

/// A certificate of libp2p's kind for a key, and the certificate's private key.
fn certify(key: &Keypair) -> Result<CertifiedKey, String> {
    let (certificate, key) = certificate::generate(key).map_err(|error| error.to_string())?;
    let key = ring::sign::any_ecdsa_type(&key).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate], key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let first = Identity::load_or_create(&path).unwrap();
        let again = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        assert_eq!(first.sign(b"x"), again.sign(b"x"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn all_who_create_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let ids: Vec<PeerId> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&path).unwrap().peer_id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn an_exposed_key_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { mode: 0o644, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn other_contents_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let digits = "0".repeat(64);
        let contents = [
            String::new(),
            "shoal-ed25519 ".to_owned(),
            format!("other {digits}\n"),
            format!("shoal-ed25519 {}\n", "g".repeat(64)),
            format!("shoal-ed25519 {digits}00\n"),
            "x".repeat(10_000),
        ];
        for content in contents {
            fs::write(&path, &content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Malformed { .. }), "{content}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Identity::load_or_create(Path::new("/nonexistent/folder/key")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/folder/key"), "{error}");
    }

    #[test]
    fn signatures_verify_under_the_peer_id() {
        let identity = Identity::generate();
        let key = ed25519::PublicKey::try_from_bytes(&identity.peer_id().0).unwrap();
        assert!(key.verify(b"message", &identity.sign(b"message")));
        assert!(!key.verify(b"other", &identity.sign(b"message")));
    }

    #[test]
    fn the_peer_id_is_libp2ps() {
        let identity = Identity::generate();
        assert_eq!(identity.peer_id().to_string(), identity.keypair().public().to_peer_id().to_string());
    }

    #[test]
    fn debug_shows_the_peer_id_and_no_secret() {
        let identity = Identity::generate();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.peer_id()));
    }
}
