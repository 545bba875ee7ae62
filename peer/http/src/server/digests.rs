//! Digests of the files served: computed once, in the background and one file at a time, and kept in the user's cache
//! folder under the file's path, for as long as its size, modification time and inode stay the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcetera::BaseStrategy;
use sha2::Digest as _;
use shoal_common::{Blake3, Digests, Layout, Sha1, Sha256};
use shoal_engine::hash::{HashError, hash_file};
use shoal_engine::regular::NotRegular;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metalink::{Pieces, hex};
use crate::server::opened::{Opened, Version};

/// Files up to this size, in bytes, are digested while the requester waits: that takes less than a tenth of a second.
const AT_ONCE: u64 = 16 * 1024 * 1024;
/// Most files whose digests are held in memory. Beyond that they are read from the cache folder again.
const MAX_HELD: usize = 10_000;
/// Files whose digests are computed or wait for it; each is open.
const MAX_WAITING: usize = 64;
/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;
/// Begins every file in the cache folder; the number is the format's version.
const MAGIC: &str = "shoal-digests 1";

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileDigests {
    pub(super) digests: Digests,
    pub(super) pieces: Pieces,
}

/// Whether a file's digests are there.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Ready(Arc<FileDigests>),
    /// Not yet; so many bytes are done.
    Computing {
        done: u64,
    },
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DigestStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Option<PathBuf>,
    held: Mutex<HashMap<PathBuf, (Version, Held)>>,
    /// Held while a large file is read: one at a time.
    large_files: tokio::sync::Mutex<()>,
    /// Held while a small file is read, so that it does not wait for a large one.
    small_files: Mutex<()>,
    stop: CancellationToken,
    _stop_at_end: DropGuard,
}

#[derive(Debug, Clone)]
enum Held {
    Ready(Arc<FileDigests>),
    Computing(Arc<AtomicU64>),
    Failed(Arc<HashError>),
}

impl DigestStore {
    /// A store that keeps what it computes in the user's cache folder, if there is one.
    pub(super) fn new() -> Self {
        let folder = etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("shoal/digests"));
        Self::in_folder(folder)
    }

    fn in_folder(folder: Option<PathBuf>) -> Self {
        let stop = CancellationToken::new();
        let inner = Inner {
            folder,
            held: Mutex::default(),
            large_files: tokio::sync::Mutex::default(),
            small_files: Mutex::default(),
            _stop_at_end: stop.clone().drop_guard(),
            stop,
        };
        Self(Arc::new(inner))
    }

    /// The digests of this version of a file; starts to compute them if they are not known. Blocking while those of a
    /// small file are computed.
    pub(super) fn of(&self, opened: &Opened) -> Result<Known, Arc<HashError>> {
        if let Some(ready) = self.at_once(opened) {
            return Ok(Known::Ready(ready));
        }
        let done = {
            let mut held = self.held();
            match held.get(opened.key()).filter(|(version, _)| *version == opened.version()) {
                Some((_, Held::Ready(ready))) => return Ok(Known::Ready(ready.clone())),
                Some((_, Held::Computing(done))) => {
                    return Ok(Known::Computing { done: done.load(Ordering::Relaxed) });
                }
                Some((_, Held::Failed(error))) => return Err(error.clone()),
                None => {}
            }
            let waiting = held.values().filter(|(_, held)| matches!(held, Held::Computing(_))).count();
            if waiting >= MAX_WAITING {
                return Ok(Known::Computing { done: 0 });
            }
            let done = Arc::new(AtomicU64::new(0));
            make_room(&mut held);
            held.insert(opened.key().to_owned(), (opened.version(), Held::Computing(done.clone())));
            done
        };
        // A file of its own, so that the caller's may be closed.
        match std::fs::File::open(opened.fd_path())
            .map(|file| Opened::new(file, opened.name().clone(), opened.key().to_owned()))
        {
            Ok(Ok(Some(file))) => {
                let store = self.clone();
                tokio::spawn(async move {
                    // Those that wait take no thread.
                    let _one_at_a_time = store.0.large_files.lock().await;
                    let computing = store.clone();
                    // It says itself how it ended.
                    let _ = tokio::task::spawn_blocking(move || computing.compute(&file, &done)).await;
                });
            }
            Ok(Err(error)) | Err(error) => {
                let error = HashError::Unreadable { path: opened.key().to_owned(), error };
                self.remember(opened, Held::Failed(Arc::new(error)));
            }
            // It is the file that is open already.
            Ok(Ok(None)) => {
                self.remember(opened, Held::Failed(Arc::new(HashError::Changed(opened.key().to_owned()))));
            }
        }
        Ok(Known::Computing { done: 0 })
    }

    /// The digests of this version of a file, if they are already computed. Blocking the first time.
    pub(super) fn known(&self, opened: &Opened) -> Option<Arc<FileDigests>> {
        match self.held().get(opened.key()).filter(|(version, _)| *version == opened.version()) {
            Some((_, Held::Ready(ready))) => return Some(ready.clone()),
            Some(_) => return None,
            None => {}
        }
        let saved = std::fs::read_to_string(self.path(opened)?).ok()?;
        let ready = Arc::new(read(&saved, opened.version())?);
        self.remember(opened, Held::Ready(ready.clone()));
        Some(ready)
    }

    /// The digests of this version of a file, if they are computed already or quickly. Blocking.
    pub(super) fn at_once(&self, opened: &Opened) -> Option<Arc<FileDigests>> {
        if let Some(ready) = self.known(opened) {
            return Some(ready);
        }
        if opened.version().size > AT_ONCE {
            return None;
        }
        let _one_at_a_time = self.0.small_files.lock().unwrap_or_else(PoisonError::into_inner);
        // Another request may have computed them meanwhile.
        if let Some(ready) = self.known(opened) {
            return Some(ready);
        }
        let digests = compute(opened, &AtomicU64::new(0), &self.0.stop).ok()?;
        self.save(opened, &digests);
        let ready = Arc::new(digests);
        self.remember(opened, Held::Ready(ready.clone()));
        Some(ready)
    }

    fn compute(&self, file: &Opened, done: &AtomicU64) {
        let computed = compute(file, done, &self.0.stop);
        match computed {
            Ok(digests) => {
                self.save(file, &digests);
                self.remember(file, Held::Ready(Arc::new(digests)));
            }
            // It is another version now; the next request is for that one.
            Err(HashError::Changed(_) | HashError::Cancelled) => {
                self.held().remove(file.key());
            }
            Err(error) => self.remember(file, Held::Failed(Arc::new(error))),
        }
    }

    fn remember(&self, opened: &Opened, held: Held) {
        let mut all = self.held();
        make_room(&mut all);
        all.insert(opened.key().to_owned(), (opened.version(), held));
    }

    /// Saves digests for the next start. A failure costs only time.
    fn save(&self, file: &Opened, digests: &FileDigests) {
        let Some(path) = self.path(file) else { return };
        let Some(folder) = path.parent() else { return };
        let unfinished = path.with_extension(format!("new-{}", std::process::id()));
        let saved = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&unfinished, write(digests, file.version())))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        if let Err(error) = saved {
            tracing::debug!(path = %path.display(), %error, "cannot keep digests; they are computed again next time");
        }
    }

    fn path(&self, opened: &Opened) -> Option<PathBuf> {
        let name = Blake3::of(opened.key().as_os_str().as_encoded_bytes()).to_string();
        Some(self.0.folder.as_ref()?.join(name))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, (Version, Held)>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(held: &mut HashMap<PathBuf, (Version, Held)>) {
    if held.len() >= MAX_HELD {
        held.retain(|_, (_, held)| matches!(held, Held::Computing(_)));
    }
}

/// Reads the file twice at once: pieces and SHA-1 by the engine, SHA-256 here. The second reader finds what the first has
/// brought into the cache.
fn compute(file: &Opened, done: &AtomicU64, stop: &CancellationToken) -> Result<FileDigests, HashError> {
    let (hashed, sha256) = std::thread::scope(|scope| {
        let sha256 = scope.spawn(|| sha256(file, stop));
        let hashed = hash_file(&file.fd_path(), |bytes| done.store(bytes, Ordering::Relaxed), stop);
        (hashed, sha256.join())
    });
    let hashed = hashed.map_err(|error| named(error, file))?;
    let sha256 = match sha256 {
        Ok(sha256) => sha256?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let digests = Digests { sha1: Some(hashed.digest.sha1), sha256: Some(sha256), ..Digests::default() };
    let length = u64::from(hashed.layout.piece_length());
    Ok(FileDigests { digests, pieces: Pieces { length, digests: hashed.pieces.into() } })
}

/// The error under the file's own name instead of its descriptor's.
fn named(error: HashError, file: &Opened) -> HashError {
    let path = file.key().to_owned();
    match error {
        HashError::NotAFile(found) => HashError::NotAFile(NotRegular { path, ..found }),
        HashError::MadeUp { size, .. } => HashError::MadeUp { path, size },
        HashError::Unreadable { error, .. } => HashError::Unreadable { path, error },
        HashError::Changed(_) => HashError::Changed(path),
        other => other,
    }
}

fn sha256(file: &Opened, stop: &CancellationToken) -> Result<Sha256, HashError> {
    let mut hasher = sha2::Sha256::default();
    let mut offset = 0;
    while offset < file.version().size {
        if stop.is_cancelled() {
            return Err(HashError::Cancelled);
        }
        let bytes = file.read(offset, BLOCK).map_err(|_| HashError::Changed(file.key().to_owned()))?;
        hasher.update(&bytes);
        offset += bytes.len() as u64;
    }
    Ok(Sha256(hasher.finalize().into()))
}

/// What is kept: lines of text, the last one a checksum of those before it.
fn write(known: &FileDigests, version: Version) -> String {
    let mut text = format!("{MAGIC}\n{} {} {}\n", version.size, version.modified, version.inode);
    let digest = |digest: Option<String>| digest.unwrap_or_else(|| "-".into());
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "{} {} {}",
        digest(known.digests.sha1.map(|sha1| sha1.to_string())),
        digest(known.digests.sha256.map(|sha256| sha256.to_string())),
        known.pieces.length
    );
    for piece in known.pieces.digests.iter() {
        let _ = writeln!(text, "{piece}");
    }
    let checksum = Blake3::of(text.as_bytes());
    let _ = writeln!(text, "{checksum}");
    text
}

/// Reads what was kept; `None` if it is damaged or of another version of the file.
fn read(text: &str, version: Version) -> Option<FileDigests> {
    let body = text.strip_suffix('\n')?;
    let (body, checksum) = body.rsplit_once('\n')?;
    let covered = &text[..=body.len()];
    if checksum != Blake3::of(covered.as_bytes()).to_string() {
        return None;
    }
    let mut lines = body.lines();
    let known = lines.next()? == MAGIC
        && lines.next()? == format!("{} {} {}", version.size, version.modified, version.inode);
    let mut fields = lines.next()?.split(' ');
    let (sha1, sha256, length) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    let pieces: Option<Vec<Sha1>> = lines.map(|line| hex(line).ok().map(Sha1)).collect();
    let pieces = pieces.filter(|_| known)?;
    let layout = Layout::new(version.size, u32::try_from(length).ok()?).ok()?;
    let digests = Digests {
        sha1: Some(Sha1(hex(sha1).ok()?)),
        sha256: Some(Sha256(hex(sha256).ok()?)),
        ..Digests::default()
    };
    (pieces.len() == layout.pieces() as usize)
        .then(|| FileDigests { digests, pieces: Pieces { length, digests: pieces.into() } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::FileName;

    fn open(path: &std::path::Path) -> Opened {
        let name = FileName::create("a").unwrap();
        Opened::new(std::fs::File::open(path).unwrap(), name, path.to_owned()).unwrap().unwrap()
    }

    async fn wait(store: &DigestStore, opened: &Opened) -> Arc<FileDigests> {
        loop {
            match store.of(opened).unwrap() {
                Known::Ready(ready) => return ready,
                Known::Computing { .. } => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            }
        }
    }

    #[tokio::test]
    async fn digests_are_computed_once_and_kept_for_the_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let cache = folder.path().join("cache");
        let store = DigestStore::in_folder(Some(cache.clone()));
        let ready = wait(&store, &open(&path)).await;
        assert_eq!(ready.digests.sha1, Some(Sha1::of(b"abc")));
        assert_eq!(ready.pieces.digests.len(), 1);
        let again = DigestStore::in_folder(Some(cache.clone()));
        assert_eq!(again.known(&open(&path)).as_deref(), Some(&*ready));
        std::fs::write(&path, b"abcd").unwrap();
        assert!(again.known(&open(&path)).is_none());
        assert_eq!(wait(&again, &open(&path)).await.digests.sha1, Some(Sha1::of(b"abcd")));
        let kept = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        let damaged = std::fs::read_to_string(&kept).unwrap().replacen('8', "9", 1);
        std::fs::write(&kept, damaged).unwrap();
        assert!(DigestStore::in_folder(Some(cache)).known(&open(&path)).is_none());
    }
}
