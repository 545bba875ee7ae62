//! The downloads of this client: begun, listed, paused, resumed, cancelled; on record until they are cancelled. Each one
//! that runs has a task, which feeds sources to the engine and shares what arrives.

mod begin;
mod choice;
mod choosing;
mod destination;
mod end;
mod ending;
mod error;
mod folder;
mod holders;
mod idleness;
mod known;
mod list;
mod listing;
mod mirrors;
mod moving;
mod order;
mod places;
mod queue;
mod row;
mod run;
mod sources;
mod supervisor;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::{FileName, Gid, GroupName, Manifest, Sha1, Uid};
use shoal_console::descriptors;
use shoal_engine::Engine;
use shoal_http::mirror::Reach;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use begin::{Begun, Resumed};
pub use choosing::FilesChosen;
pub(crate) use destination::DestinationError;
#[cfg(test)]
pub(crate) use end::LEFT;
pub use error::TransferError;
pub use listing::{FolderEntry, FolderFiles, MAX_ENTRIES};
pub use moving::MoveError;
pub(crate) use moving::recover;
pub use row::{DownloadRow, FilesRow, RowState};
pub use sources::Sources;

use crate::FileRef;
use crate::Hashing;
use crate::folders::Folders;
use crate::on_complete::OnComplete;
use crate::shares::Shares;
use crate::store::{DownloadRecord, DownloadState, Store, StoreError};
use destination::Destination;
use end::Stop;
use error::{metadata, wrong_state};
#[cfg(test)]
pub(crate) use known::Known;
pub(crate) use known::{Asked, MirrorTrouble, Unusable};
pub(crate) use list::{Doing, DownloadFacts, Wait, Working};
use list::{List, Waiting};
use places::Places;
use shoal_common::budget::Budget;
use shoal_session::Session;
use shoal_session::events::Events;
use shoal_session::holdings::Holdings;
use shoal_session::tickets::TicketBook;
use shoal_session::ways::Ways;
use shoal_swarm::{FileKey, Swarm};

/// How long the end of a session waits for downloads to stop.
const SUSPEND_WITHIN: Duration = Duration::from_secs(3);

/// What a look before a run showed.
enum Prepared {
    /// The file is there and whole.
    Complete,
    /// It is to be fetched: the digests of its pieces.
    Pieces(Arc<[Sha1]>),
}

/// This client's downloads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transfers(Arc<Downloads>);

/// What downloads are made of.
pub(crate) struct Parts {
    /// Where they are recorded.
    pub store: Store,
    /// What is known of folders.
    pub folders: Folders,
    /// Where pieces come from, and are served.
    pub swarm: Swarm,
    /// Where sources are found.
    pub session: Session,
    /// Where finished downloads go on.
    pub shares: Shares,
    /// Where parts are announced.
    pub holdings: Holdings,
    /// Where the user learns of ends.
    pub events: Events,
    /// What allows them to fetch.
    pub tickets: TicketBook,
    /// On which networks this machine is.
    pub ways: Ways,
    /// What runs them.
    pub engine: Engine,
    /// How far mirrors that other members name may lie.
    pub mirrors: Reach,
    /// What is run when one is complete.
    pub on_complete: OnComplete,
}

struct Downloads {
    parts: Parts,
    list: Mutex<List>,
    /// Downloads that run now.
    running: watch::Sender<usize>,
    /// Counts the times that this machine woke up.
    wakes: watch::Sender<u64>,
    /// Which of them may work at the same time.
    places: Arc<Places>,
    /// Held while a finished download is moved.
    moving: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskTracker,
    /// Ends what only waits.
    closing: CancellationToken,
}

impl Transfers {
    /// No downloads yet; see [`Transfers::restore`].
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Downloads {
            parts,
            list: Mutex::default(),
            running: watch::Sender::new(0),
            wakes: watch::Sender::new(0),
            places: Places::new(Budget::of(descriptors::limit()).downloads),
            moving: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Lists a user's downloads and continues those that ran; gives their number.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn restore(&self, user: Uid) -> Result<usize, StoreError> {
        let records = self.0.parts.store.downloads(user).await?;
        let running: Vec<DownloadRecord> =
            records.iter().filter(|record| record.state == DownloadState::Running).cloned().collect();
        self.list().replace(records);
        let count = running.len();
        // They look at their destinations themselves: a drive that hangs must not delay a login.
        supervisor::start_again(&self.0, running);
        Ok(count)
    }

    /// Pauses a download until it is resumed; what is verified is kept.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub(crate) async fn pause(&self, file: &FileRef) -> Result<(), TransferError> {
        let record = self.named(file)?;
        if !self.stop_running(record.key, Stop::Pause).await {
            return Err(wrong_state(file, &record.state, "paused"));
        }
        Ok(())
    }

    /// Takes a download off the list; true if it was complete, so that its file stays.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) async fn cancel(&self, file: &FileRef) -> Result<bool, TransferError> {
        let record = self.named(file)?;
        self.stop_running(record.key, Stop::Cancel).await;
        // It may have been completed by the time it stopped.
        let record = self.list().find(record.key).unwrap_or(record);
        let complete = record.state == DownloadState::Complete;
        if !complete {
            destination::discard(record.path.clone(), record.overwrite).await?;
        } else if record.take.part.is_some() {
            self.0.release(record.key).await;
        }
        self.forget(&record).await?;
        Ok(complete)
    }

    /// A finished download was moved.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn is_at(&self, user: Uid, key: FileKey, path: &Path) -> Result<(), StoreError> {
        let complete = self.list().find(key).is_some_and(|found| found.state == DownloadState::Complete);
        if complete {
            self.0.parts.store.set_download_path(user, key, path).await?;
            self.list().set_path(key, path);
        }
        Ok(())
    }

    /// Stops uploading what is being downloaded, and does not share it when it is complete; false if it is not being
    /// downloaded.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn stop_share(&self, user: Uid, key: FileKey) -> Result<bool, StoreError> {
        let unfinished = self.list().unshare(key);
        if unfinished {
            self.0.parts.store.unshare_download(user, key).await?;
            self.0.release(key).await;
        }
        Ok(unfinished)
    }

    /// The user left a group: nothing more is fetched of its files.
    pub(crate) async fn leave(&self, group: Gid) {
        let keys = self.list().running_keys();
        for key in keys.into_iter().filter(|key| key.group == group) {
            self.stop_running(key, Stop::Left).await;
        }
    }

    /// Stops all downloads until the next login, and lists none. One that does not stop soon, on a drive that hangs, stops
    /// when it can; nothing of it is offered any more.
    pub(crate) async fn suspend(&self) {
        let keys = self.list().running_keys();
        let parts = self.list().part_keys();
        for key in &keys {
            self.list().stop(*key, Stop::Suspend);
        }
        let ended = async {
            for &key in &keys {
                self.stop_running(key, Stop::Suspend).await;
            }
        };
        if tokio::time::timeout(SUSPEND_WITHIN, ended).await.is_err() {
            tracing::warn!("some downloads did not stop within {SUSPEND_WITHIN:?}: does a drive hang?");
        }
        self.list().replace(Vec::new());
        for key in keys.into_iter().chain(parts) {
            self.0.release(key).await;
        }
    }

    /// This machine was asleep: holders are asked for, and tried again, at once.
    pub(crate) fn woke(&self) {
        self.0.wakes.send_modify(|wakes| *wakes += 1);
    }

    /// All downloads in the order in which they began.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<DownloadRow> {
        let waiting = self.0.waiting();
        self.0.named_list().rows(&waiting, |group| self.0.parts.tickets.own_ticket(group).is_some())
    }

    /// What is known of all downloads, in the same order.
    #[must_use]
    pub(crate) fn facts(&self) -> Vec<DownloadFacts> {
        let waiting = self.0.waiting();
        self.0.named_list().facts(&waiting, |group| self.0.parts.tickets.own_ticket(group).is_some())
    }

    /// How much of a listed download is there, in whole percent.
    #[must_use]
    pub(crate) fn percent(&self, key: FileKey) -> Option<u8> {
        self.list().percent(key)
    }

    /// The downloads that failed since the last call.
    #[must_use]
    pub(crate) fn take_failures(&self) -> Vec<FileRef> {
        self.list().take_failures()
    }

    /// The key of a listed download.
    #[must_use]
    pub(crate) fn key_of(&self, file: &FileRef) -> Option<FileKey> {
        self.0.named_list().named(file).map(|record| record.key)
    }

    /// Completes when no download runs. Safe to drop.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// How many downloads run now.
    #[must_use]
    pub(crate) fn running(&self) -> usize {
        *self.0.running.borrow()
    }

    /// Waits until no task is left; call [`Transfers::suspend`] first.
    pub(crate) async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn named(&self, file: &FileRef) -> Result<DownloadRecord, TransferError> {
        if self.0.parts.session.who().is_none() {
            return Err(TransferError::NotLoggedIn);
        }
        self.0.named_list().named(file).ok_or_else(|| TransferError::Unknown(file.clone()))
    }

    /// Stops a download and waits for its end; false if it does not run.
    async fn stop_running(&self, key: FileKey, stop: Stop) -> bool {
        let ended = self.list().stop(key, stop);
        match ended {
            Some(ended) => {
                ended.cancelled().await;
                true
            }
            None => false,
        }
    }

    async fn forget(&self, record: &DownloadRecord) -> Result<(), StoreError> {
        // First, so that one that is still on record is still listed.
        self.0.parts.store.remove_download(record.user, record.key).await?;
        self.list().remove(record.key);
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.list()
    }

    /// What a download waits for, if it lacks something or it is not its turn.
    fn waits(&self, key: FileKey) -> Option<String> {
        let waiting = self.0.waiting();
        self.list().waits(key, &waiting)
    }
}

/// Ties log lines to a download: all that is logged on its behalf has the file's id. Of the highest level, so that no
/// filter keeps the id out of the lines that it lets through.
fn span(key: FileKey) -> tracing::Span {
    tracing::error_span!("download", id = %key.file, group = %key.group)
}

/// Validates a piece list.
fn read_piece_list(manifest: &Manifest, list: &[u8]) -> Result<Arc<[Sha1]>, TransferError> {
    tracing::debug!("reading the piece list");
    let pieces = manifest.read_piece_list(list).map_err(|error| metadata(manifest, &error))?;
    Ok(pieces.into())
}

impl Downloads {
    /// Offers the parts of a download no longer. A share of the same file goes on.
    async fn release(&self, key: FileKey) {
        self.parts.shares.part_ended(key).await;
    }

    /// Looks at the destination of a download, and reads its piece list. Where a folder appeared in the file's place, the
    /// download goes into it.
    async fn prepare(
        &self,
        record: &mut DownloadRecord,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Prepared, TransferError> {
        if record.manifest.folder.is_some() {
            return self.prepare_folder(record, progress).await;
        }
        let name = record.manifest.name.clone();
        if let Some(path) = destination::inside_folder(&record.path, &name, record.overwrite).await? {
            self.parts.store.set_download_path(record.user, record.key, &path).await?;
            self.list().set_path(record.key, &path);
            record.path = path;
        }
        let manifest = &record.manifest;
        // It may have been completed without that being recorded.
        let place = destination::check(record.path.clone(), manifest, record.overwrite, progress).await?;
        if matches!(place, Destination::Identical(_)) {
            return Ok(Prepared::Complete);
        }
        if self.list().verified(record.key) > 0 {
            destination::must_have_partial(record.path.clone(), record.overwrite).await?;
        }
        let piece_list = self.parts.store.piece_list(manifest).await?;
        Ok(Prepared::Pieces(read_piece_list(manifest, &piece_list)?))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Waiting {
        Waiting::new(self.places.waiting(), self.places.bound_by_files())
    }

    /// The list, with the present names of groups: another group may have been given an old one.
    fn named_list(&self) -> MutexGuard<'_, List> {
        let who = self.parts.session.who();
        let mut list = self.list();
        if let Some(who) = who {
            list.rename(&who.groups);
        }
        list
    }

    /// What a download is called now.
    fn name_of(&self, record: &DownloadRecord) -> (GroupName, FileName) {
        let who = self.parts.session.who();
        let group = who.as_ref().and_then(|who| who.group_name(record.key.group)).unwrap_or(&record.group);
        (group.clone(), record.manifest.name.clone())
    }
}
