//! Begins downloads, and resumes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{Manifest, Sha1, Uid};
use tokio::sync::watch;
use tracing::Instrument;

use super::destination::{self, Destination, DestinationError};
use super::end::End;
use super::error::{metadata, wrong_state};
use super::holders::HoldersAnswer;
use super::run::{Found, StartedBy};
use super::{TransferError, Transfers, folder, read_piece_list, span, supervisor};
use crate::FileRef;
use crate::hashing::Hashing;
use crate::results::lossy;
use crate::store::{DownloadRecord, DownloadState};
use crate::taking::{DownloadOptions, Take};
use shoal_session::CallError;
use shoal_session::events::Event;
use shoal_swarm::FileKey;

/// How long `download_file` waits until the engine works, so that a destination that cannot be written to is an error of
/// the command.
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
    /// Whether it is a folder.
    #[serde(rename = "folder", skip_serializing_if = "std::ops::Not::not")]
    pub is_folder: bool,
    /// What it waits for that is lacking here, if it cannot begin yet.
    #[serde(rename = "activity", skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// A download that was resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resumed {
    /// Whether nothing of it is there any more, so that it begins again.
    #[serde(rename = "anew")]
    pub restarted: bool,
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
        options: DownloadOptions,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Begun, TransferError> {
        options.folder.check()?;
        let user = self.0.parts.session.who().ok_or(TransferError::NotLoggedIn)?.user;
        let (key, manifest) = self.find(&file).await?;
        let file = FileRef { group: file.group, file: manifest.name.clone() };
        let begin = self.begin_found(user, key, (file, manifest), (destination, options), progress);
        begin.instrument(span(key)).await
    }

    async fn begin_found(
        &self,
        user: Uid,
        key: FileKey,
        (file, manifest): (FileRef, Manifest),
        (destination, options): (PathBuf, DownloadOptions),
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Begun, TransferError> {
        let parts = &self.0.parts;
        if let Some(path) = self.list().running(key) {
            return Err(TransferError::Running { file, path });
        }
        if let Some(path) = parts.shares.there(key).await {
            return self.there_already(user, key, (file, manifest), path).await;
        }
        let is_folder = manifest.folder.is_some();
        let take = self.take(&manifest, options.folder).await?;
        let place = match is_folder {
            false => destination::check(destination, &manifest, options.overwrite, progress).await?,
            true => folder::check(destination, (&manifest, &take), &parts.folders, progress).await?,
        };
        let path = place.path().to_owned();
        if let Some((path, file)) = self.list().going_to(&path, key) {
            return Err(DestinationError::Taken { path, file }.into());
        }
        let (piece_list, pieces) = self.piece_list(key, &manifest).await?;
        let answer = self.holders(key).await?;
        let sharers = answer.sharers();
        let (rank, limit) = self.new_rank(key);
        let record = DownloadRecord {
            user,
            key,
            group: file.group.clone(),
            manifest,
            path: path.clone(),
            overwrite: matches!(place, Destination::Replace(_)) || (is_folder && options.overwrite),
            share: true,
            state: DownloadState::Running,
            verified: 0,
            rank,
            limit,
            take,
        };
        let complete = matches!(place, Destination::Identical(_));
        let found = (!complete).then_some(Found { pieces, answer });
        let transfers = self.clone();
        // A caller that gives up waiting leaves no download that is on record and does not run.
        let entered = self
            .0
            .tasks
            .spawn(async move { transfers.enter(record, piece_list, found).await }.in_current_span());
        let waits =
            entered.await.unwrap_or_else(|stopped| Err(TransferError::Failed(stopped.to_string())))?;
        Ok(Begun { file, path, sharers, complete, is_folder, waits })
    }

    /// A file that this client shares is not fetched again: a share has one place. It is listed all the same.
    async fn there_already(
        &self,
        user: Uid,
        key: FileKey,
        (file, manifest): (FileRef, Manifest),
        path: PathBuf,
    ) -> Result<Begun, TransferError> {
        let parts = &self.0.parts;
        let is_folder = manifest.folder.is_some();
        let piece_list = parts.store.piece_list(&manifest).await?;
        let sharers = self.holders(key).await?.sharers();
        let (group, name, size) = (file.group.clone(), manifest.name.clone(), manifest.size);
        let record = DownloadRecord {
            user,
            key,
            group: group.clone(),
            manifest,
            path: path.clone(),
            overwrite: false,
            // The share that is there already stays.
            share: false,
            state: DownloadState::Complete,
            verified: size,
            rank: self.new_rank(key).0,
            limit: None,
            take: Take::default(),
        };
        parts.store.put_download(record.clone(), piece_list).await?;
        self.list().put(record);
        parts.events.emit(Event::Complete {
            group,
            file: name,
            path: path.clone(),
            size,
            took_ms: None,
            average: None,
        });
        Ok(Begun { file, path, sharers, complete: true, is_folder, waits: None })
    }

    /// Records and lists a download, and lets it run with what was found; without that it is complete. Gives what it waits
    /// for.
    async fn enter(
        &self,
        record: DownloadRecord,
        piece_list: Vec<u8>,
        found: Option<Found>,
    ) -> Result<Option<String>, TransferError> {
        let before = self.list().find(record.key).filter(|before| before.path != record.path);
        self.0.parts.store.put_download(record.clone(), piece_list).await?;
        self.list().put(record.clone());
        if let Some(before) = before {
            destination::take_along(&before, &record, found.is_some()).await;
        }
        let Some(found) = found else {
            self.0.ended(&record, None, End::Complete, true).await;
            return Ok(None);
        };
        let unshared = found.answer.sharers() == 0;
        let opened = supervisor::start(&self.0, record.clone(), StartedBy::Command { unshared }, Some(found));
        let word = self.first_word(record.key, opened).await;
        if word.is_err()
            && let Err(error) = self.forget(&record).await
        {
            tracing::warn!(%error, "a download that failed at once stays on the list");
        }
        word
    }

    /// Resumes a paused or failed download; one that waits for something tries again at once. If nothing of it is there any
    /// more, it begins again.
    ///
    /// # Errors
    /// When there is none, it runs or is complete, or it fails at once.
    pub(crate) async fn resume(&self, file: &FileRef) -> Result<Resumed, TransferError> {
        let record = self.named(file)?;
        let key = record.key;
        let waits = self.waits(key).is_some();
        if !waits && !matches!(record.state, DownloadState::Paused | DownloadState::Failed(_)) {
            return Err(wrong_state(file, &record.state, "resumed"));
        }
        let begun = self.list().verified(key) > 0;
        let restarted = begun && destination::is_without_partial(record.path.clone(), record.overwrite).await;
        if restarted {
            self.list().reset(key);
        }
        // One that waits is not ended and begun again: it would be lost if the store failed in between.
        let hurried = if waits { self.list().hurry(key) } else { None };
        let opened = match hurried {
            Some(opened) => opened,
            None => {
                let record = DownloadRecord { state: DownloadState::Running, ..record };
                self.0.record_state(&record, DownloadState::Running).await?;
                supervisor::start(&self.0, record, StartedBy::Resume, None)
            }
        };
        Ok(Resumed { restarted, waits: self.first_word(key, opened).await? })
    }

    pub(super) async fn find(&self, file: &FileRef) -> Result<(FileKey, Manifest), TransferError> {
        let call = Call::Find { group: file.group.clone(), file: file.file.clone() };
        let Answer::Found { group, file: found, mut manifest } = self.0.parts.session.call(call).await?
        else {
            return Err(CallError::Unexpected.into());
        };
        // Under the name that the user typed, whatever a tracker answers; in the normal form in which it was shared.
        if manifest.name != file.file {
            manifest.name = file.file.clone();
        }
        manifest.validate().map_err(|error| metadata(&manifest, &error))?;
        Ok((FileKey { group, file: found }, *manifest))
    }

    /// The piece list as it is stored, and the digests in it.
    pub(super) async fn piece_list(
        &self,
        key: FileKey,
        manifest: &Manifest,
    ) -> Result<(Vec<u8>, Arc<[Sha1]>), TransferError> {
        let call = Call::PieceList { group: key.group, file: key.file };
        let Answer::PieceList(list) = self.0.parts.session.call(call).await? else {
            return Err(CallError::Unexpected.into());
        };
        let pieces = read_piece_list(manifest, &list)?;
        Ok((list, pieces))
    }

    pub(super) async fn holders(&self, key: FileKey) -> Result<HoldersAnswer, TransferError> {
        let call = Call::Holders { group: key.group, file: key.file };
        tracing::debug!("asking for holders");
        HoldersAnswer::of(self.0.parts.session.call(call).await?).ok_or(CallError::Unexpected.into())
    }

    /// Waits until a run works, fails or waits; gives what the download waits for.
    pub(super) async fn first_word(
        &self,
        key: FileKey,
        mut opened: watch::Receiver<Option<Option<String>>>,
    ) -> Result<Option<String>, TransferError> {
        // Silence is no failure: an interrupted download may have much to rehash.
        let _ = tokio::time::timeout(FIRST_WORD, opened.wait_for(Option::is_some)).await;
        let failure = opened.borrow().clone().flatten();
        match failure {
            Some(error) => {
                self.list().take_failure(key);
                Err(TransferError::Failed(error))
            }
            None => Ok(self.waits(key)),
        }
    }
}
