//! Which files of a folder a download fetches: chosen when it begins, and changed while it runs or later.

use serde::Serialize;
use shoal_common::Manifest;

use super::begin::Resumed;
use super::run::StartedBy;
use super::{TransferError, Transfers, supervisor};
use crate::FileRef;
use crate::folders::KnownFolder;
use crate::store::{DownloadRecord, DownloadState};
use crate::taking::{ChoiceError, FolderOptions, Rule, Take};

/// What a download fetches from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilesChosen {
    /// The folder.
    #[serde(flatten)]
    pub file: FileRef,
    /// How many files of it are fetched, those that are there included; `None` while what is in it is not known.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// What it waits for that is lacking here, if it goes on and cannot yet.
    #[serde(rename = "activity", skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

impl Transfers {
    /// How a folder is to be taken, as far as that can be told now.
    pub(super) async fn take(
        &self,
        manifest: &Manifest,
        options: FolderOptions,
    ) -> Result<Take, TransferError> {
        if options.is_plain() {
            return Ok(Take::default());
        }
        if manifest.folder.is_none() {
            return Err(ChoiceError::NotAFolder(manifest.name.clone()).into());
        }
        match self.known(manifest).await {
            None => Ok(Take { options, part: None }),
            Some(known) => {
                must_match(manifest, &options.rules, &known)?;
                let chosen = options.chosen(&known.listing)?;
                Ok(Take::of(options, &chosen, &known.layout))
            }
        }
    }

    /// Has a download fetch more or fewer files of a folder; `rules` are added to those that it has. What is there of files
    /// that are not fetched any more stays until the download ends. One that is complete goes on if more is to be fetched.
    ///
    /// # Errors
    /// When there is no such download, it is of a file, a rule matches nothing, or nothing would be left.
    pub(crate) async fn choose(
        &self,
        file: &FileRef,
        rules: Vec<Rule>,
    ) -> Result<FilesChosen, TransferError> {
        let record = self.named(file)?;
        let manifest = &record.manifest;
        if manifest.folder.is_none() {
            return Err(ChoiceError::NotAFolder(manifest.name.clone()).into());
        }
        let mut options = record.take.options.clone();
        options.add(rules.clone())?;
        let Some(known) = self.known(manifest).await else {
            let take = Take { options, part: None };
            self.0.parts.store.set_take(record.user, record.key, take.clone()).await?;
            self.list().choose(record.key, take, shoal_engine::Chosen::all());
            return Ok(FilesChosen { file: file.clone(), files: None, bytes: None, waits: None });
        };
        must_match(manifest, &rules, &known)?;
        let (before, chosen) = (record.take.options.chosen(&known.listing)?, options.chosen(&known.listing)?);
        if chosen.files(&known.layout).next().is_none() {
            return Err(ChoiceError::NothingLeft(manifest.name.clone()).into());
        }
        let take = Take::of(options, &chosen, &known.layout);
        self.0.parts.store.set_take(record.user, record.key, take.clone()).await?;
        self.list().choose(record.key, take, chosen.clone());
        let more = chosen.files(&known.layout).any(|file| !before.has(file));
        // It may fit now.
        self.list().hurry_if_waiting(record.key);
        let waits = if more { self.go_on(&record).await?.waits } else { None };
        let (files, bytes) = (chosen.files(&known.layout).count() as u64, chosen.bytes(&known.layout));
        Ok(FilesChosen { file: file.clone(), files: Some(files), bytes: Some(bytes), waits })
    }

    /// Has a complete download go on; any other does by itself, or when it is resumed.
    async fn go_on(&self, record: &DownloadRecord) -> Result<Resumed, TransferError> {
        let key = record.key;
        let complete = self.list().find(key).filter(|now| now.state == DownloadState::Complete);
        let Some(record) = complete else { return Ok(Resumed { restarted: false, waits: None }) };
        let record = DownloadRecord { state: DownloadState::Running, ..record };
        self.0.record_state(&record, DownloadState::Running).await?;
        let opened = supervisor::start(&self.0, record, StartedBy::Resume, None);
        Ok(Resumed { restarted: false, waits: self.first_word(key, opened).await? })
    }

    /// What is in a folder, if that is known here.
    pub(super) async fn known(&self, manifest: &Manifest) -> Option<std::sync::Arc<KnownFolder>> {
        let (folders, manifest) = (self.0.parts.folders.clone(), manifest.clone());
        tokio::task::spawn_blocking(move || folders.read(&manifest).ok()).await.ok().flatten()
    }
}

fn must_match(manifest: &Manifest, rules: &[Rule], known: &KnownFolder) -> Result<(), ChoiceError> {
    match FolderOptions::useless(rules, &known.listing)? {
        None => Ok(()),
        Some(rule) => Err(ChoiceError::Nothing { folder: manifest.name.clone(), glob: rule.glob.clone() }),
    }
}
