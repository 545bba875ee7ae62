//! What becomes of a download at its end: it is recorded, reported, and shared when it is complete. What the store cannot
//! take now is recorded later.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::{GroupName, Manifest};
use shoal_engine::Pauses;
use shoal_engine::hash::FileIdentity;

use super::Downloads;
use super::end::End;
use super::list::size;
use crate::shares::ShareError;
use crate::store::{Completed, DownloadRecord, DownloadState, ShareRecord, StoreError};
use shoal_session::events::Event;
use tracing::Instrument;

/// How long a complete download counts as running until the trackers know that it is shared. The file is there in any case.
const SHARE_WITHIN: Duration = Duration::from_secs(2);

/// A run that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedRun {
    /// Of the run, in the list.
    pub(super) number: u64,
    /// Whether the engine worked on it. Else what is there was there already.
    pub(super) worked: bool,
}

impl Downloads {
    /// Records how a download ended, reports it (a failure only if `report`), and shares the file or stops offering its parts.
    /// `run` is the run that ended, if one did: one that is not listed any more reports nothing.
    pub(super) async fn ended(
        self: &Arc<Self>,
        record: &DownloadRecord,
        run: Option<EndedRun>,
        end: End,
        report: bool,
    ) {
        let (key, parts) = (record.key, &self.parts);
        let downloaded = run.is_some_and(|run| run.worked);
        let run = run.map(|run| run.number);
        if !self.list().is_current(key, run) {
            return self.ended_late(record, end, downloaded).await;
        }
        let (group, file) = self.name_of(record);
        let verified = self.list().verified(key);
        let share = self.list().is_shared(key);
        // Of a part of a folder what is there is served on, until the session ends.
        let now = self.list().find(key);
        let part = now.as_ref().is_some_and(|now| now.take.part.is_some());
        let whole = now.as_ref().map_or(record.manifest.size, size);
        let took = if run.is_some() { self.list().took(key) } else { None };
        if !(share && end == End::Complete) {
            self.release(key).await;
        }
        let state = match &end {
            End::Complete => DownloadState::Complete,
            End::Failed(error) => DownloadState::Failed(error.clone()),
            End::Paused => DownloadState::Paused,
            End::Suspended => DownloadState::Running,
            // It is about to be forgotten.
            End::Cancelled => return self.list().ended(key, run, DownloadState::Paused),
        };
        if state == DownloadState::Complete && downloaded {
            // First, so that a crash between the two loses no command.
            parts.on_complete.completed(completed(record, &group)).await;
        }
        let recorded = parts.store.set_download_state(record.user, key, state.clone(), verified).await;
        self.list().ended(key, run, state.clone());
        if let Err(error) = recorded {
            tracing::error!(%error, "the end of a download cannot be recorded");
            if error.lack().is_some() {
                self.record_later(DownloadRecord { state, verified, ..record.clone() });
            }
        }
        match end {
            End::Failed(error) if report => parts.events.emit(Event::Failed { group, file, error }),
            End::Complete => {
                let (path, size) = (record.path.clone(), whole);
                let took =
                    took.map(|(took, bytes)| (u64::try_from(took.as_millis()).unwrap_or(u64::MAX), bytes));
                let took_ms = took.map(|(ms, _)| ms);
                let average = took.map(|(ms, bytes)| bytes.saturating_mul(1_000) / ms.max(1));
                parts.events.emit(Event::Complete { group, file, path, size, took_ms, average });
                if share && !part {
                    let (downloads, record) = (self.clone(), record.clone());
                    let sharing =
                        self.tasks.spawn(async move { downloads.share(&record).await }.in_current_span());
                    let _ = tokio::time::timeout(SHARE_WITHIN, sharing).await;
                }
            }
            _ => {}
        }
    }

    /// A run ended after its session: the next login finds the result.
    async fn ended_late(&self, record: &DownloadRecord, end: End, downloaded: bool) {
        let (state, verified) = match end {
            End::Complete => (DownloadState::Complete, size(record)),
            End::Failed(error) => (DownloadState::Failed(error), record.verified),
            // What was recorded before holds.
            End::Paused | End::Suspended | End::Cancelled => return,
        };
        let is_complete = state == DownloadState::Complete;
        if is_complete && downloaded {
            let (group, _) = self.name_of(record);
            self.parts.on_complete.completed(completed(record, &group)).await;
        }
        if let Err(error) =
            self.parts.store.set_download_state(record.user, record.key, state, verified).await
        {
            tracing::error!(%error, "the end of a download cannot be recorded");
        } else if is_complete && record.share && record.take.part.is_none() {
            self.share(record).await;
        }
    }

    /// Records the state that a download is in.
    pub(super) async fn record_state(
        &self,
        record: &DownloadRecord,
        state: DownloadState,
    ) -> Result<(), StoreError> {
        let verified = self.list().verified(record.key);
        self.parts.store.set_download_state(record.user, record.key, state.clone(), verified).await?;
        self.list().set_state(record.key, state);
        Ok(())
    }

    /// Keeps trying to record the state of a download, for as long as the store lacks something.
    fn record_later(self: &Arc<Self>, record: DownloadRecord) {
        let downloads = self.clone();
        let later = async move {
            let mut pauses = Pauses::default();
            loop {
                let pause = tokio::time::sleep(pauses.pause());
                if downloads.closing.run_until_cancelled(pause).await.is_none() {
                    return;
                }
                // It may have gone on meanwhile.
                let now = downloads.list().find(record.key).filter(|now| now.user == record.user);
                let (now, verified) = match now {
                    Some(now) => (now, downloads.list().verified(record.key)),
                    None => (record.clone(), record.verified),
                };
                let state = now.state;
                match downloads.parts.store.set_download_state(record.user, record.key, state, verified).await
                {
                    Err(error) if error.lack().is_some() => {}
                    Err(error) => return tracing::error!(%error, "the end of a download is not recorded"),
                    Ok(()) => return,
                }
            }
        };
        self.tasks.spawn(later.in_current_span());
    }

    /// Shares a finished download, at once or when what the store lacks is there again.
    async fn share(&self, record: &DownloadRecord) {
        let mut pauses = Pauses::default();
        while let Err(error) = self.try_share(record).await {
            tracing::warn!(%error, file = %record.manifest.name, "a finished download is not shared");
            if !matches!(&error, ShareError::Store(error) if error.lack().is_some()) {
                return self.release(record.key).await;
            }
            let pause = tokio::time::sleep(pauses.pause());
            if self.closing.run_until_cancelled(pause).await.is_none() {
                return;
            }
            if self.parts.session.who().is_none_or(|who| who.user != record.user) {
                return;
            }
        }
        // What is served from now on is the whole file, or nothing.
        self.release(record.key).await;
    }

    async fn try_share(&self, record: &DownloadRecord) -> Result<(), ShareError> {
        let (path, manifest, folders) =
            (record.path.clone(), record.manifest.clone(), self.parts.folders.clone());
        let identity = tokio::task::spawn_blocking(move || match &manifest.folder {
            None => FileIdentity::of(&path),
            Some(_) => folders.look(&path, &manifest),
        });
        let identity = identity.await;
        let Ok(Ok(identity)) = identity else {
            self.release(record.key).await;
            tracing::warn!(path = %record.path.display(), "a finished download is gone already");
            return Ok(());
        };
        let share = ShareRecord {
            user: record.user,
            key: record.key,
            group: record.group.clone(),
            // The mirrors belong to the shares of those who named them.
            manifest: Manifest { mirrors: Vec::new(), ..record.manifest.clone() },
            path: record.path.clone(),
            identity,
        };
        self.parts.shares.completed(share).await
    }
}

/// What the command on completion learns of a download.
fn completed(record: &DownloadRecord, group: &GroupName) -> Completed {
    Completed {
        group: group.clone(),
        file: record.manifest.name.clone(),
        path: record.path.clone(),
        size: record.manifest.size,
        sha1: record.manifest.sha1,
    }
}
