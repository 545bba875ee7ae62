//! The downloads of this client: begun, listed, paused, resumed, cancelled; on record until they are cancelled. Each
//! that runs has a task of its own, which feeds the engine with sources and shares what comes in.

mod active;
mod choice;
mod copies;
mod destination;
mod ending;
mod error;
mod list;
mod mirrors;
mod row;
mod run;
mod sources;
mod supervisor;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use shoal_common::tracker_api::{Answer, Call, Extent};
use shoal_common::{FileName, Gid, GroupName, Manifest, Sha1, Uid};
use shoal_console::descriptors;
use shoal_engine::Engine;
use shoal_segment::mirror::Reach;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use destination::DestinationError;
pub use error::TransferError;
pub use row::{DownloadRow, RowState};
pub use sources::Sources;

use crate::FileRef;
use crate::hashing::Hashing;
use crate::results::lossy;
use crate::shares::Shares;
use crate::store::{DownloadRecord, DownloadState, Store, StoreError};
use active::Active;
use destination::Place;
use error::{metadata, wrong_state};
use list::{End, List};
use run::Origin;
use shoal_common::budget::Budget;
use shoal_session::events::Events;
use shoal_session::holdings::Holdings;
use shoal_session::tickets::TicketBook;
use shoal_session::{CallError, Session};
use shoal_swarm::{FileKey, Swarm};

/// How long `download_file` waits for the engine's first word, so that a destination that cannot be written to is an
/// error of the command.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// A download that was begun.
#[derive(Debug, Clone, Serialize)]
pub struct Begun {
    /// The file, by the name it goes by now.
    #[serde(flatten)]
    pub file: FileRef,
    /// Where it goes.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Clients that share it whole now.
    pub sharers: usize,
    /// Whether it was there already.
    pub complete: bool,
    /// What it waits for that is lacking here, if it cannot begin yet.
    #[serde(rename = "activity", skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// A download that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resumed {
    /// Whether nothing of it is there any more, so that it begins anew.
    pub anew: bool,
    /// What it waits for that is lacking here, if it cannot go on yet.
    #[serde(rename = "activity", skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// What was found before a run.
enum Prepared {
    /// The file is there and whole.
    Complete,
    /// It is to be fetched: the digests of its pieces.
    Pieces(Arc<[Sha1]>),
}

/// This client's downloads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transfers(Arc<Shared>);

/// What downloads are made of.
pub(crate) struct Parts {
    /// Where they are recorded.
    pub store: Store,
    /// Where pieces come from, and are served.
    pub swarm: Swarm,
    /// Where sources are found.
    pub session: Session,
    /// Where finished downloads go on.
    pub shares: Shares,
    /// Where parts are announced.
    pub holdings: Holdings,
    /// Where ends are told to the user.
    pub events: Events,
    /// What allows them to fetch.
    pub tickets: TicketBook,
    /// What runs them.
    pub engine: Engine,
    /// How far mirrors that other members name may lie.
    pub mirrors: Reach,
}

struct Shared {
    parts: Parts,
    list: Mutex<List>,
    /// Downloads that run now.
    running: watch::Sender<usize>,
    /// Counts the times that this machine woke up.
    wakes: watch::Sender<u64>,
    /// How many of them may work at the same time.
    active: Active,
    tasks: TaskTracker,
    /// Ends what only waits.
    closing: CancellationToken,
}

impl Transfers {
    /// No downloads yet; see [`Transfers::restore`].
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            list: Mutex::default(),
            running: watch::Sender::new(0),
            wakes: watch::Sender::new(0),
            active: Active::new(Budget::of(descriptors::limit()).downloads),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Lists a user's downloads and lets those that ran go on; gives their number.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn restore(&self, user: Uid) -> Result<usize, StoreError> {
        let records = self.0.parts.store.downloads(user).await?;
        let running: Vec<DownloadRecord> =
            records.iter().filter(|record| record.state == DownloadState::Running).cloned().collect();
        self.list().replace(records);
        let mut count = 0;
        for record in running {
            match self.go_on(record.clone(), Origin::Login).await {
                Ok(()) => count += 1,
                Err(error) => self.0.ended(&record, End::Failed(error.to_string()), true).await,
            }
        }
        Ok(count)
    }

    /// Looks a file up and begins to download it.
    ///
    /// # Errors
    /// See [`TransferError`]; nothing is left behind then.
    pub(crate) async fn begin(
        &self,
        file: FileRef,
        destination: PathBuf,
        overwrite: bool,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Begun, TransferError> {
        let parts = &self.0.parts;
        let who = parts.session.who().ok_or(TransferError::NotLoggedIn)?;
        let (key, manifest) = self.find(&file).await?;
        let file = FileRef { group: file.group, file: manifest.name.clone() };
        if let Some(path) = self.list().running(key) {
            return Err(TransferError::Running { file, path });
        }
        let place = destination::check(destination, &manifest, overwrite, progress).await?;
        let path = place.path().to_owned();
        if let Some(other) = self.list().going_to(&path, key) {
            return Err(DestinationError::Taken { path, file: other }.into());
        }
        let piece_list = self.piece_list(key, &manifest).await?;
        let sharers = self.sharers(key).await?;
        let record = DownloadRecord {
            user: who.user,
            key,
            group: file.group.clone(),
            manifest,
            path: path.clone(),
            overwrite: matches!(place, Place::Replace(_)),
            share: true,
            state: DownloadState::Running,
            verified: 0,
        };
        let complete = matches!(place, Place::Identical(_));
        let transfers = self.clone();
        // Whoever gives up waiting leaves no download that is on record and does not run.
        let entered = self
            .0
            .tasks
            .spawn(async move { transfers.enter(record, piece_list, complete, sharers == 0).await });
        let waits =
            entered.await.unwrap_or_else(|stopped| Err(TransferError::Failed(stopped.to_string())))?;
        Ok(Begun { file, path, sharers, complete, waits })
    }

    /// Records and lists a download, and lets it run unless it is complete; gives what it waits for.
    async fn enter(
        &self,
        record: DownloadRecord,
        piece_list: Vec<u8>,
        complete: bool,
        unshared: bool,
    ) -> Result<Option<String>, TransferError> {
        self.0.parts.store.put_download(record.clone(), piece_list).await?;
        self.list().put(record.clone());
        if complete {
            self.0.ended(&record, End::Complete, true).await;
            return Ok(None);
        }
        match self.go_on_at_once(&record, Origin::Command { unshared }).await {
            Ok(waits) => Ok(waits),
            Err(error) => {
                self.forget(&record).await?;
                Err(error)
            }
        }
    }

    /// Pauses a download until it is resumed; what is verified is kept.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    pub(crate) async fn pause(&self, file: &FileRef) -> Result<(), TransferError> {
        let record = self.named(file)?;
        if !self.stop_running(record.key, run::Stop::Pause).await {
            return Err(wrong_state(file, &record.state, "paused"));
        }
        Ok(())
    }

    /// Lets a paused or failed download go on, and one that waits for something at once. If nothing of it is there any more,
    /// it begins anew.
    ///
    /// # Errors
    /// When there is none, it runs or is complete, or it fails at once.
    pub(crate) async fn resume(&self, file: &FileRef) -> Result<Resumed, TransferError> {
        let record = self.named(file)?;
        let waits = self.list().waits(record.key).is_some();
        if !waits && !matches!(record.state, DownloadState::Paused | DownloadState::Failed(_)) {
            return Err(wrong_state(file, &record.state, "resumed"));
        }
        if waits {
            self.stop_running(record.key, run::Stop::Suspend).await;
        }
        let begun = self.list().verified(record.key) > 0;
        let anew = begun && destination::is_without_partial(record.path.clone(), record.overwrite).await;
        if anew {
            self.list().begins_anew(record.key);
        }
        let record = DownloadRecord { state: DownloadState::Running, ..record };
        self.0.record_state(&record, DownloadState::Running).await?;
        match self.go_on_at_once(&record, Origin::Resume).await {
            Ok(waits) => Ok(Resumed { anew, waits }),
            Err(error) => {
                self.0.record_state(&record, DownloadState::Failed(error.to_string())).await?;
                Err(error)
            }
        }
    }

    /// Takes a download off the list; true if it was complete, so that its file stays.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub(crate) async fn cancel(&self, file: &FileRef) -> Result<bool, TransferError> {
        let record = self.named(file)?;
        self.stop_running(record.key, run::Stop::Cancel).await;
        // It may have been completed by the time it stopped.
        let record = self.list().find(record.key).unwrap_or(record);
        let complete = record.state == DownloadState::Complete;
        if !complete {
            destination::discard(record.path.clone(), record.overwrite).await?;
        }
        self.forget(&record).await?;
        Ok(complete)
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
            self.0.parts.swarm.stop(key);
            self.0.parts.holdings.set(key, Extent::None);
        }
        Ok(unfinished)
    }

    /// The user left a group: nothing more is fetched of its files.
    pub(crate) async fn leave(&self, group: Gid) {
        let keys = self.list().running_keys();
        for key in keys.into_iter().filter(|key| key.group == group) {
            self.stop_running(key, run::Stop::Left).await;
        }
    }

    /// Stops all downloads until the next login, and lists none.
    pub(crate) async fn suspend(&self) {
        let keys = self.list().running_keys();
        for key in &keys {
            self.list().stop(*key, run::Stop::Suspend);
        }
        for key in keys {
            self.stop_running(key, run::Stop::Suspend).await;
        }
        self.list().replace(Vec::new());
    }

    /// This machine was asleep: holders are asked for, and tried again, at once.
    pub(crate) fn woke(&self) {
        self.0.wakes.send_modify(|wakes| *wakes += 1);
    }

    /// All downloads in the order in which they began.
    #[must_use]
    pub(crate) fn rows(&self) -> Vec<DownloadRow> {
        self.0.named_list().rows(|group| self.0.parts.tickets.own_ticket(group).is_some())
    }

    /// The downloads that failed since this was last asked.
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

    async fn find(&self, file: &FileRef) -> Result<(FileKey, Manifest), TransferError> {
        let call = Call::Find { group: file.group.clone(), file: file.file.clone() };
        let Answer::Found { group, file: found, mut manifest } = self.0.parts.session.call(call).await?
        else {
            return Err(CallError::Unexpected.into());
        };
        // Under the name that the user typed, whatever a tracker answers.
        manifest.name = file.file.clone();
        manifest.validate().map_err(|error| metadata(&manifest, &error))?;
        Ok((FileKey { group, file: found }, *manifest))
    }

    async fn piece_list(&self, key: FileKey, manifest: &Manifest) -> Result<Vec<u8>, TransferError> {
        let call = Call::PieceList { group: key.group, file: key.file };
        let Answer::PieceList(list) = self.0.parts.session.call(call).await? else {
            return Err(CallError::Unexpected.into());
        };
        manifest.read_piece_list(&list).map_err(|error| metadata(manifest, &error))?;
        Ok(list)
    }

    async fn sharers(&self, key: FileKey) -> Result<usize, TransferError> {
        let call = Call::Holders { group: key.group, file: key.file };
        match self.0.parts.session.call(call).await? {
            Answer::Holders { holders, .. } => {
                Ok(holders.iter().filter(|holder| holder.extent == Extent::Complete).count())
            }
            _ => Err(CallError::Unexpected.into()),
        }
    }

    fn named(&self, file: &FileRef) -> Result<DownloadRecord, TransferError> {
        if self.0.parts.session.who().is_none() {
            return Err(TransferError::NotLoggedIn);
        }
        self.0.named_list().named(file).ok_or_else(|| TransferError::Unknown(file.clone()))
    }

    async fn go_on(&self, record: DownloadRecord, origin: Origin) -> Result<(), TransferError> {
        let first = match self.0.prepare(&record).await {
            Ok(Prepared::Complete) => {
                self.0.ended(&record, End::Complete, true).await;
                return Ok(());
            }
            Ok(Prepared::Pieces(pieces)) => Ok(pieces),
            Err(error) => match error.shortage() {
                Some(shortage) => Err(shortage),
                None => return Err(error),
            },
        };
        supervisor::start(&self.0, record, origin, first);
        Ok(())
    }

    /// As [`Transfers::go_on`] for a command, and waits for the first word; gives what the download waits for.
    async fn go_on_at_once(
        &self,
        record: &DownloadRecord,
        origin: Origin,
    ) -> Result<Option<String>, TransferError> {
        self.go_on(record.clone(), origin).await?;
        let opened = self.list().opened(record.key);
        let Some(mut opened) = opened else { return Ok(None) };
        // No word yet is no failure: an interrupted download may have much to rehash.
        let _ = tokio::time::timeout(FIRST_WORD, opened.wait_for(Option::is_some)).await;
        let failure = opened.borrow().clone().flatten();
        match failure {
            Some(error) => {
                self.list().take_failure(record.key);
                Err(TransferError::Failed(error))
            }
            None => Ok(self.list().waits(record.key)),
        }
    }

    /// Stops a download and waits for its end; false if it does not run.
    async fn stop_running(&self, key: FileKey, stop: run::Stop) -> bool {
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
}

impl Shared {
    /// Looks at the destination of a download, and reads its piece list.
    async fn prepare(&self, record: &DownloadRecord) -> Result<Prepared, TransferError> {
        let (manifest, nobody) = (&record.manifest, watch::Sender::new(None));
        // It may have been put in its place without this being recorded any more.
        let place = destination::check(record.path.clone(), manifest, record.overwrite, &nobody).await?;
        if matches!(place, Place::Identical(_)) {
            return Ok(Prepared::Complete);
        }
        if self.list().verified(record.key) > 0 {
            destination::must_have_partial(record.path.clone(), record.overwrite).await?;
        }
        let piece_list = self.parts.store.piece_list(manifest).await?;
        let pieces = manifest.read_piece_list(&piece_list).map_err(|error| metadata(manifest, &error))?;
        Ok(Prepared::Pieces(pieces.into()))
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list, with groups under the names that they have now: another may have been given the one that they had.
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
