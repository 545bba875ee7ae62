//! The keys of pages. A page keeps its key and never sends it. Who answers at this port first proves to know the key; then the page sends a
//! *pass*, which is good as long as this daemon runs. So another user of the machine who takes the port while the client is down learns
//! nothing that opens the client later, and is not taken for the client.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keys::{from_hex, hex, secret};

/// The file in the data folder: per line a key's id, the port that it is for, and the key.
const FILE: &str = "web_keys";
/// Keys, one per browser; further ones take the place of the oldest.
const MAX_KEYS: usize = 64;
/// Characters of a line, with its end, at most.
const MAX_LINE: u64 = 32 + 1 + 5 + 1 + 64 + 1;
/// Bytes of a key, in hexadecimal characters.
const KEY_CHARS: usize = 64;
/// Characters of a nonce: 16 bytes. No text to be signed of another kind looks like one.
const NONCE_CHARS: usize = 32;

/// The keys of the pages of a daemon.
pub(crate) struct Pages {
    path: PathBuf,
    /// The port where this daemon is asked. A key is good at the port where it was given alone: what another user relays from there is worth
    /// nothing.
    port: u16,
    /// Names this run of the daemon. Passes are good for it alone.
    run: String,
    keys: Mutex<VecDeque<Key>>,
}

/// A page's key.
struct Key {
    id: String,
    port: u16,
    secret: Zeroizing<Vec<u8>>,
}

/// What a page is given once.
pub(crate) struct Given {
    pub(crate) id: String,
    pub(crate) secret: Zeroizing<String>,
}

impl Pages {
    /// Those of the client with that data folder, asked at that port. Lines that are no keys are left out.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn open(data: &Path, port: u16) -> io::Result<Self> {
        let path = data.join(FILE);
        let mut text = Zeroizing::new(String::new());
        // Without the file no page has a key.
        let most = MAX_KEYS as u64 * MAX_LINE;
        let _ = std::fs::File::open(&path).and_then(|file| file.take(most).read_to_string(&mut text));
        let keys = text.lines().filter_map(Key::read).collect();
        Ok(Self { path, port, run: secret()?.to_string(), keys: Mutex::new(keys) })
    }

    /// A new key. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(crate) fn give(&self) -> io::Result<Given> {
        let (id, halves) = (secret()?.to_string(), [secret()?, secret()?]);
        let secret = Zeroizing::new(format!("{}{}", halves[0].as_str(), halves[1].as_str()));
        let bytes = from_hex(&secret).map(Zeroizing::new).unwrap_or_default();
        let mut keys = lock(&self.keys);
        if keys.len() == MAX_KEYS {
            keys.pop_front();
        }
        keys.push_back(Key { id: id.clone(), port: self.port, secret: bytes });
        let lines: Zeroizing<String> = Zeroizing::new(keys.iter().map(Key::line).collect());
        shoal_disk::replace(&self.path, lines.as_bytes())?;
        Ok(Given { id, secret })
    }

    /// Proves to a page that this is the daemon which gave it its key, and says which run of it: the run's name and the proof. Nothing if
    /// there is no such key for this port, or the nonce is none.
    pub(crate) fn prove(&self, id: &str, nonce: &str) -> Option<(&str, String)> {
        let is_nonce = nonce.len() == NONCE_CHARS && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        let keys = lock(&self.keys);
        let key = self.key(&keys, id).filter(|_| is_nonce)?;
        let proof = key.sign(&format!("client\n{nonce}\n{}", self.run))?.finalize();
        Some((&self.run, hex(&proof.into_bytes())))
    }

    /// The id of the key that a pass for this run of the daemon was made with, if it is one.
    pub(crate) fn id_of<'a>(&self, pass: &'a str) -> Option<&'a str> {
        let (id, signed) = pass.split_once('.')?;
        let signed = from_hex(signed)?;
        let keys = lock(&self.keys);
        let expected = self.key(&keys, id)?.sign(&format!("page\n{}", self.run))?;
        expected.verify_slice(&signed).ok().map(|()| id)
    }

    fn key<'a>(&self, keys: &'a VecDeque<Key>, id: &str) -> Option<&'a Key> {
        keys.iter().find(|key| key.id == id && key.port == self.port)
    }
}

impl Key {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, port, key) = (words.next()?, words.next()?, words.next()?);
        let secret = from_hex(key).filter(|_| key.len() == KEY_CHARS)?;
        Some(Self { id: id.to_owned(), port: port.parse().ok()?, secret: Zeroizing::new(secret) })
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.id, self.port, hex(&self.secret))
    }

    fn sign(&self, text: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const NONCE: &str = "00112233445566778899aabbccddeeff";

    fn sign(secret: &str, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&from_hex(secret).unwrap()).unwrap();
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    #[test]
    fn a_daemon_proves_itself_and_a_pass_is_good_for_its_run_and_its_port_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pages = Pages::open(dir.path(), 8384).unwrap();
        let Given { id, secret } = pages.give().unwrap();
        let (run, proof) = pages.prove(&id, NONCE).unwrap();
        assert_eq!(proof, sign(&secret, &format!("client\n{NONCE}\n{run}")));
        let pass = format!("{id}.{}", sign(&secret, &format!("page\n{run}")));
        assert_eq!(pages.id_of(&pass), Some(id.as_str()));
        for wrong in
            ["", ".", &id, &format!("{id}."), &format!("{id}.{proof}"), &pass[1..], &format!("{pass}00")]
        {
            assert_eq!(pages.id_of(wrong), None, "{wrong}");
        }
        for nonce in ["", "x", &NONCE[1..], "0011\n33445566778899aabbccddeeff0"] {
            assert!(pages.prove(&id, nonce).is_none(), "{nonce}");
        }
        assert!(pages.prove("other", NONCE).is_none());
        // The next run knows the key and not the pass; at another port the key is not known.
        let next = Pages::open(dir.path(), 8384).unwrap();
        let (later, _) = next.prove(&id, NONCE).unwrap();
        assert!(later != run && next.id_of(&pass).is_none());
        assert!(Pages::open(dir.path(), 8385).unwrap().prove(&id, NONCE).is_none());
    }

    #[test]
    fn keys_are_the_owners_alone_bounded_and_gone_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let pages = Pages::open(dir.path(), 1).unwrap();
        let first = pages.give().unwrap();
        for _ in 0..MAX_KEYS {
            pages.give().unwrap();
        }
        assert!(pages.prove(&first.id, NONCE).is_none());
        let file = dir.path().join(FILE);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        let last = pages.give().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), MAX_KEYS);
        assert!(Pages::open(dir.path(), 1).unwrap().prove(&last.id, NONCE).is_some());
        std::fs::write(&file, "nonsense\na b c\nid 1 00\n").unwrap();
        assert!(lock(&Pages::open(dir.path(), 1).unwrap().keys).is_empty());
        std::fs::remove_file(&file).unwrap();
        assert!(Pages::open(dir.path(), 1).unwrap().prove(&last.id, NONCE).is_none());
    }
}
