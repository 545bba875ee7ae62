//! What is in a folder of a group, without downloading it: its listing alone is fetched, once.

use std::time::Duration;

use serde::Serialize;
use shoal_common::{Manifest, Sha1, Uid};
use shoal_engine::rate::Limiter;
use shoal_swarm::FileKey;
use tokio::sync::watch;

use super::folder::CannotStart;
use super::run::{Run, StartedBy};
use super::{TransferError, Transfers};
use crate::FileRef;
use crate::folders::KnownFolder;
use crate::priority::Rank;
use crate::store::{DownloadRecord, DownloadState};
use crate::taking::{ChoiceError, Take};

/// How long a listing may take to come: 32 MiB at most.
const WITHIN: Duration = Duration::from_secs(60);
/// Most entries that are given at a time.
pub const MAX_ENTRIES: usize = 10_000;

/// Files and empty folders of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderFiles {
    /// The folder.
    #[serde(flatten)]
    pub file: FileRef,
    /// How many entries there are in all.
    pub total: usize,
    /// Bytes of all of them.
    pub size: u64,
    /// Those that were asked for, by their paths.
    pub entries: Vec<FolderEntry>,
    /// From which one on more follow; absent if these are the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<usize>,
}

/// A file or an empty folder of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderEntry {
    /// Its path from the folder on; that of an empty folder ends in a slash.
    pub path: String,
    /// Its size in bytes; absent for an empty folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<Sha1>,
    /// Whether it is executable where it was shared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Whether the download of the folder, if there is one, leaves it out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

impl Transfers {
    /// What is in a folder, or below a path in it: `most` entries from the one of that number on. The listing is fetched from
    /// those who share the folder, unless it is known here.
    ///
    /// # Errors
    /// When it is no folder, or its listing does not come.
    pub(crate) async fn entries(
        &self,
        file: FileRef,
        within: &str,
        (from, most): (usize, usize),
    ) -> Result<FolderFiles, TransferError> {
        let user = self.0.parts.session.who().ok_or(TransferError::NotLoggedIn)?.user;
        let (key, manifest) = self.find(&file).await?;
        if manifest.folder.is_none() {
            return Err(ChoiceError::NotAFolder(manifest.name).into());
        }
        let known = match self.known(&manifest).await {
            Some(known) => known,
            None => {
                self.fetch_listing(user, key, &file, &manifest).await?;
                let lost = || TransferError::Failed("the listing of the folder cannot be used".to_owned());
                self.known(&manifest).await.ok_or_else(lost)?
            }
        };
        let options = self.list().find(key).map(|record| record.take.options);
        let chosen = options.and_then(|options| options.chosen(&known.listing).ok()).unwrap_or_default();
        Ok(page(file, &known, (within, &chosen), (from, most.min(MAX_ENTRIES))))
    }

    async fn fetch_listing(
        &self,
        user: Uid,
        key: FileKey,
        file: &FileRef,
        manifest: &Manifest,
    ) -> Result<(), TransferError> {
        let (_, pieces) = self.piece_list(key, manifest).await?;
        let answer = self.holders(key).await?;
        // It is on no record: nothing but the listing comes of it.
        let record = DownloadRecord {
            user,
            key,
            group: file.group.clone(),
            manifest: manifest.clone(),
            path: std::path::PathBuf::new(),
            overwrite: false,
            share: false,
            state: DownloadState::Paused,
            verified: 0,
            rank: Rank::default(),
            limit: None,
            take: Take::default(),
        };
        let wanted = self.0.wanted(&record, pieces).await.map_err(|error| match error {
            CannotStart::Short(_, error) | CannotStart::Never(error) => TransferError::Failed(error),
        })?;
        // It came meanwhile; of the folder itself nothing is fetched.
        if !wanted.is_listing {
            return Ok(());
        }
        let (opened, (_stop, stopped)) = (watch::Sender::new(None), watch::channel(None));
        let what = (wanted, Limiter::new(None));
        let run = Run::start(&self.0, (&record, 0), what, StartedBy::Again, opened, stopped);
        let problem = match tokio::time::timeout(WITHIN, run.alone(answer)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problem)) => problem,
            Err(_) => format!("it did not come within {} s", WITHIN.as_secs()),
        };
        Err(TransferError::Failed(format!(
            "what is in {} is not known here, and cannot be fetched: {problem}; try again when it is shared",
            file.file
        )))
    }
}

/// One page of what is in a folder.
fn page(
    file: FileRef,
    known: &KnownFolder,
    (within, chosen): (&str, &shoal_engine::Chosen),
    (from, most): (usize, usize),
) -> FolderFiles {
    let within = within.trim_matches('/');
    let is_within = |path: &str| {
        let rest = path.strip_prefix(within);
        within.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let (mut number, mut total, mut size, mut entries) = (0, 0, 0, Vec::new());
    for entry in known.listing.entries() {
        let of_file = entry.file.as_ref().map(|found| {
            number += 1;
            (found, number - 1)
        });
        if !is_within(&entry.path) {
            continue;
        }
        total += 1;
        size += of_file.map_or(0, |(found, _)| found.size);
        if total > from && entries.len() < most {
            entries.push(match of_file {
                Some((found, number)) => FolderEntry {
                    path: entry.path.clone(),
                    size: Some(found.size),
                    sha1: Some(found.sha1),
                    executable: found.exec,
                    skipped: !chosen.has(number),
                },
                None => FolderEntry {
                    path: format!("{}/", entry.path),
                    size: None,
                    sha1: None,
                    executable: false,
                    skipped: !chosen.is_all(),
                },
            });
        }
    }
    let end = from.saturating_add(entries.len());
    FolderFiles { file, total, size, next: (end < total).then_some(end), entries }
}
