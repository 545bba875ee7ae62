//! Downloads begin, and go on when their user says so.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use shoal_common::Manifest;
use shoal_common::tracker_api::{Answer, Call, Extent};
use tokio::sync::watch;

use super::destination::{self, DestinationError, Place};
use super::end::{End, Stop};
use super::error::{metadata, wrong_state};
use super::run::Origin;
use super::{Prepared, TransferError, Transfers, supervisor};
use crate::FileRef;
use crate::hashing::Hashing;
use crate::results::lossy;
use crate::store::{DownloadRecord, DownloadState};
use shoal_session::CallError;
use shoal_swarm::FileKey;

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

impl Transfers {
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
            self.stop_running(record.key, Stop::Suspend).await;
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

    pub(super) async fn go_on(&self, record: DownloadRecord, origin: Origin) -> Result<(), TransferError> {
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
}
