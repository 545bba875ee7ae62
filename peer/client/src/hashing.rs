//! Hashing a file in the background of a command, with progress and a way to stop it.

use std::path::PathBuf;
use std::sync::Arc;

use shoal_disk::Held;
use shoal_engine::folder::{self, FolderIdentity, HashedFolder};
use shoal_engine::hash::{HashError, Hashed, hash_file};
use shoal_engine::regular::NotRegular;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::folders::KnownFolder;

/// A file that is being hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashing {
    /// The file.
    pub path: PathBuf,
    /// Bytes done.
    pub done: u64,
    /// Its size in bytes.
    pub total: u64,
}

/// Hashes on a blocking thread; dropping the future stops it.
pub(crate) async fn hash(
    path: PathBuf,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<Hashed, HashError> {
    hash_at(path.clone(), path, progress).await
}

/// Hashes what is held, which is at `path` for people.
pub(crate) async fn hash_held(
    held: &Held,
    path: PathBuf,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<Hashed, HashError> {
    let hashed = hash_at(held.path(), path.clone(), progress).await;
    hashed.map_err(|error| match error {
        HashError::NotAFile(found) => HashError::NotAFile(NotRegular { path, ..found }),
        HashError::MadeUp { size, .. } => HashError::MadeUp { path, size },
        HashError::Unreadable { error, .. } => HashError::Unreadable { path, error },
        HashError::Changed(_) => HashError::Changed(path),
        HashError::Name { problem, .. } => HashError::Name { path, problem },
        HashError::Listing { error, .. } => HashError::Listing { path, error },
        error @ (HashError::Layout(_) | HashError::Cancelled) => error,
    })
}

async fn hash_at(
    path: PathBuf,
    shown: PathBuf,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<Hashed, HashError> {
    tracing::debug!(path = %path.display(), "hashing");
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let _clear = Clear(progress);
    let sender = progress.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let total = std::fs::metadata(&path).map_or(0, |found| found.len());
        let report = |done| {
            sender.send_replace(Some(Hashing { path: shown.clone(), done, total }));
        };
        hash_file(&path, report, &cancel)
    });
    hashed.await.unwrap_or(Err(HashError::Cancelled))
}

/// As [`hash`], for a folder.
pub(crate) async fn hash_folder(
    root: PathBuf,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<HashedFolder, HashError> {
    of_folder(root, progress, |root, report, cancel| folder::hash_folder(&root, report, cancel)).await
}

/// Reads the listed files of a folder; gives whether they are what the listing says. As [`hash`] otherwise.
pub(crate) async fn compare_folder(
    root: PathBuf,
    known: Arc<KnownFolder>,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<(bool, FolderIdentity), HashError> {
    let compare = move |root: PathBuf, report: &Report, cancel: &CancellationToken| {
        folder::compare(&root, &known.listing, report, cancel)
    };
    of_folder(root, progress, compare).await
}

/// Takes the bytes done and the bytes in all.
type Report = dyn Fn(u64, u64) + Sync;

async fn of_folder<T: Send + 'static>(
    root: PathBuf,
    progress: &watch::Sender<Option<Hashing>>,
    work: impl FnOnce(PathBuf, &Report, &CancellationToken) -> Result<T, HashError> + Send + 'static,
) -> Result<T, HashError> {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let _clear = Clear(progress);
    let sender = progress.clone();
    let done = tokio::task::spawn_blocking(move || {
        let path = root.clone();
        let report = move |done, total| {
            sender.send_replace(Some(Hashing { path: path.clone(), done, total }));
        };
        work(root, &report, &cancel)
    });
    done.await.unwrap_or(Err(HashError::Cancelled))
}

/// Nothing is being hashed any more.
struct Clear<'a>(&'a watch::Sender<Option<Hashing>>);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}
