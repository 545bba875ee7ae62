//! Hashing a file in the background of a command, with progress and a way to stop it.

use std::path::PathBuf;

use shoal_engine::hash::{HashError, Hashed, hash_file};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
    tracing::debug!(path = %path.display(), "hashing");
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let _clear = Clear(progress);
    let sender = progress.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        let total = std::fs::metadata(&path).map_or(0, |found| found.len());
        let shown = path.clone();
        let report = |done| {
            sender.send_replace(Some(Hashing { path: shown.clone(), done, total }));
        };
        hash_file(&path, report, &cancel)
    });
    hashed.await.unwrap_or(Err(HashError::Cancelled))
}

/// Nothing is being hashed any more.
struct Clear<'a>(&'a watch::Sender<Option<Hashing>>);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}
