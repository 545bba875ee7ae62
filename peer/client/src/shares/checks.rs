//! Reads touched files, the smallest first and one at a time, because reading slows others down. Owned by the monitor.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::health::{Absence, Checked};
use super::look::{check, check_folder};
use crate::folders::Folders;
use crate::hashing::Hashing;
use crate::store::ShareRecord;
use shoal_swarm::FileKey;

/// Reads from drives that do not answer and that nothing waits for any more; each holds a thread. At this many no file is
/// read until one returns.
const MAX_STUCK: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Checks {
    current: Option<Check>,
    /// Files that are to be read, by size.
    waiting: BTreeSet<(u64, FileKey)>,
    /// Reads that were given up and have not returned.
    stuck: Vec<watch::Receiver<Option<Hashing>>>,
}

/// A file that is being read.
struct Check {
    key: FileKey,
    begun: Instant,
    progress: watch::Receiver<Option<Hashing>>,
    task: JoinHandle<Checked>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    /// A file of that size is to be read.
    pub(super) fn want(&mut self, size: u64, key: FileKey) {
        self.waiting.insert((size, key));
    }

    /// Begins the next check, if none runs. `wanted` gives the records of the files that are still to be read. A check of
    /// any other file is stopped.
    pub(super) fn begin<'a>(
        &mut self,
        folders: &Folders,
        wanted: impl Fn(FileKey) -> Option<&'a ShareRecord>,
    ) {
        self.current.take_if(|check| wanted(check.key).is_none());
        self.stuck.retain(|progress| progress.has_changed().is_ok());
        if self.current.is_some() || self.stuck.len() >= MAX_STUCK {
            return;
        }
        let next = std::iter::from_fn(|| self.waiting.pop_first());
        let Some(record) = next.map(|(_, key)| wanted(key)).find_map(|record| record) else { return };
        let (sender, progress) = watch::channel(None);
        let (path, digest, folders) = (record.path.clone(), record.manifest.digest(), folders.clone());
        let manifest = record.manifest.folder.as_ref().map(|_| record.manifest.clone());
        tracing::info!(path = %path.display(), "a shared file was touched: checking it");
        let task = tokio::spawn(async move {
            let Some(manifest) = manifest else { return check(path, digest, &sender).await };
            // In memory: it was looked at just now.
            match folders.read(&manifest) {
                Ok(known) => check_folder(path, known, &folders, &sender).await,
                Err(error) => Checked::Absent(Absence::Unreadable(error.to_string())),
            }
        });
        self.current = Some(Check { key: record.key, begun: Instant::now(), progress, task });
    }

    /// Stops the check of a file.
    pub(super) fn stop(&mut self, key: FileKey) {
        self.current.take_if(|check| check.key == key);
    }

    /// The result of the check that runs, and how long it took; never completes while none runs. Cancel-safe.
    pub(super) async fn ended(&mut self) -> (FileKey, Checked, Duration) {
        let Some(check) = &mut self.current else { return std::future::pending().await };
        let checked = (&mut check.task).await.unwrap_or(Checked::Written);
        let (key, took) = (check.key, check.begun.elapsed());
        if checked == Checked::Absent(Absence::Silent) {
            self.stuck.push(check.progress.clone());
        }
        self.current = None;
        (key, checked, took)
    }

    /// Files that wait to be read, but for this one.
    pub(super) fn waiting(&self, key: FileKey) -> usize {
        self.waiting.iter().filter(|(_, other)| *other != key).count()
    }

    /// How much of a file was read, in percent; `None` unless it is being read.
    pub(super) fn percent(&self, key: FileKey) -> Option<u8> {
        let progress = self.current.as_ref().filter(|check| check.key == key)?.progress.borrow();
        let Hashing { done, total, .. } = progress.as_ref()?;
        u8::try_from(done.saturating_mul(100) / (*total).max(1)).ok()
    }
}
