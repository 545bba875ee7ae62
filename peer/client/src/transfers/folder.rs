//! What a run of a download fetches: a file, the files of a folder, or, before them, the folder's listing, which comes from the
//! same holders.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use shoal_common::{FileDigest, Manifest, Sha1};
use shoal_engine::{Chosen, Content, Overwrite, Shortage, Target};
use shoal_swarm::{FileKey, listing_key};
use tokio::sync::watch;

use super::destination::{self, Destination, DestinationError};
use super::error::StartError;
use super::{Downloads, Prepared, TransferError, metadata, read_piece_list};
use crate::folders::{Folders, UnknownFolder};
use crate::hashing::{Hashing, compare_folder};
use crate::store::DownloadRecord;
use crate::taking::{ChoiceError, Take};

/// See the module.
pub(super) struct Wanted {
    /// Under which key its holders serve it.
    pub(super) key: FileKey,
    pub(super) content: Content,
    pub(super) target: Target,
    /// Which files of a folder.
    pub(super) chosen: Chosen,
    /// Whether it is only the listing, which is neither shown nor offered as a part.
    pub(super) is_listing: bool,
}

/// Why nothing can be fetched.
pub(super) enum CannotStart {
    /// It may pass.
    Short(Shortage, String),
    /// It cannot.
    Never(String),
}

impl Downloads {
    /// What is to be fetched now for this download, whose piece list has these pieces.
    pub(super) async fn wanted(
        &self,
        record: &DownloadRecord,
        pieces: Arc<[Sha1]>,
    ) -> Result<Wanted, CannotStart> {
        let mut record = record.clone();
        if let Some(listed) = self.list().find(record.key) {
            record.take = listed.take;
        }
        // One that an earlier version let in: what one of the two left would remove the other.
        if let Some((path, file)) = self.list().going_to(&record.path, record.key) {
            return Err(CannotStart::Never(DestinationError::Taken { path, file }.to_string()));
        }
        let folders = self.parts.folders.clone();
        let (user, key, before) = (record.user, record.key, record.take.clone());
        let found = tokio::task::spawn_blocking(move || match &record.manifest.folder {
            None => file(&record, pieces).map_err(|error| contradicts(&record.manifest, &error)),
            Some(_) => folder(&folders, &record, &pieces),
        });
        let wanted = found.await.unwrap_or_else(|stopped| Err(CannotStart::Never(stopped.to_string())))?;
        if wanted.content.listing().is_some() {
            let take = Take::of(before.options.clone(), &wanted.chosen, wanted.content.layout());
            self.list().choose(key, take.clone(), wanted.chosen.clone());
            if take != before
                && let Err(error) = self.parts.store.set_take(user, key, take).await
            {
                tracing::debug!(%error, "what is fetched of a folder cannot be recorded");
            }
        }
        Ok(wanted)
    }

    /// As [`Downloads::prepare`], for a folder.
    pub(super) async fn prepare_folder(
        &self,
        record: &DownloadRecord,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Prepared, TransferError> {
        let (manifest, folders) = (&record.manifest, &self.parts.folders);
        // It may have been completed without that being recorded.
        let place = check(record.path.clone(), (manifest, &record.take), folders, progress).await?;
        if matches!(place, Destination::Identical(_)) {
            // What a crash left behind the last step.
            destination::discard(record.path.clone(), record.overwrite).await?;
            return Ok(Prepared::Complete);
        }
        // Of a complete one there is no partial folder, and more may have been chosen since.
        if self.list().verified(record.key) > 0 && !record.path.is_dir() {
            destination::must_have_partial(record.path.clone(), record.overwrite).await?;
        }
        let piece_list = self.parts.store.piece_list(manifest).await?;
        Ok(Prepared::Pieces(read_piece_list(manifest, &piece_list)?))
    }
}

/// Finds out what is at the place of a folder. A folder that is there is taken as it is: the engine looks at its files.
pub(super) async fn check(
    typed: PathBuf,
    (manifest, take): (&Manifest, &Take),
    folders: &Folders,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<Destination, TransferError> {
    let path = destination::resolved(typed, manifest.name.clone()).await?;
    // A link to a folder stands for that folder.
    let real = tokio::task::spawn_blocking(move || match path.is_symlink() && path.is_dir() {
        true => std::fs::canonicalize(&path).unwrap_or(path),
        false => path,
    });
    let path = real.await.map_err(|stopped| TransferError::Failed(stopped.to_string()))?;
    let (folders, looked, known) = (folders.clone(), path.clone(), manifest.clone());
    let looked = tokio::task::spawn_blocking(move || match std::fs::symlink_metadata(&looked) {
        Ok(found) if !found.is_dir() => Err(DestinationError::FolderInTheWay(looked)),
        Ok(_) => Ok(folders.read(&known).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DestinationError::unusable(&looked, &error)),
    });
    let there = looked.await.map_err(|stopped| TransferError::Failed(stopped.to_string()))??;
    match there {
        Some(known) if take.options.is_plain() => match compare_folder(path.clone(), known, progress).await {
            Ok((true, _)) => Ok(Destination::Identical(path)),
            _ => Ok(Destination::New(path)),
        },
        _ => Ok(Destination::New(path)),
    }
}

fn file(record: &DownloadRecord, pieces: Arc<[Sha1]>) -> Result<Wanted, StartError> {
    let layout = record.manifest.layout().map_err(shoal_common::manifest::ManifestError::from)?;
    let content = Content::new(layout, pieces, record.manifest.digest())?;
    let target = destination::target(record.path.clone(), record.overwrite);
    let chosen = Chosen::all();
    Ok(Wanted { key: record.key, content, target, chosen, is_listing: false })
}

fn folder(folders: &Folders, record: &DownloadRecord, pieces: &[Sha1]) -> Result<Wanted, CannotStart> {
    let manifest = &record.manifest;
    let damaged = || CannotStart::Never(format!("the metadata of {} contradicts itself", manifest.name));
    let (layout, described) = manifest.listing_layout().zip(manifest.folder.as_ref()).ok_or_else(damaged)?;
    let (of_listing, of_files) = pieces.split_at_checked(layout.pieces() as usize).ok_or_else(damaged)?;
    match folders.read(manifest) {
        Ok(known) => {
            let checked = known.listing.check_pieces(&known.layout, of_files);
            checked.map_err(|error| contradicts(manifest, &error))?;
            let content = Content::folder(known.layout.clone(), of_files.into(), known.listing.clone());
            let content = content.map_err(|error| contradicts(manifest, &error))?;
            let options = &record.take.options;
            let cannot = |error: ChoiceError| CannotStart::Never(error.to_string());
            options.check().map_err(cannot)?;
            let chosen = options.chosen(&known.listing).map_err(cannot)?;
            if !chosen.is_all() && chosen.files(&known.layout).next().is_none() {
                let globs: Vec<&str> = options.rules.iter().map(|rule| rule.glob.as_str()).collect();
                let (folder, glob) = (manifest.name.clone(), globs.join(" "));
                return Err(cannot(ChoiceError::Nothing { folder, glob }));
            }
            let content = content.placed(options.placing(&known.listing));
            let target = destination::target(record.path.clone(), record.overwrite);
            Ok(Wanted { key: record.key, content, target, chosen, is_listing: false })
        }
        Err(UnknownFolder::Absent) => {
            let path = folders.path(described);
            folders.prepare().map_err(|error| cannot_keep(&path, &error))?;
            let digest = FileDigest { sha1: manifest.sha1, blake3: manifest.blake3 };
            let content = Content::new(layout, of_listing.into(), digest);
            let content = content.map_err(|error| contradicts(manifest, &error))?;
            let target = Target::new(path, Overwrite::Replace);
            let chosen = Chosen::all();
            Ok(Wanted { key: listing_key(record.key), content, target, chosen, is_listing: true })
        }
        Err(UnknownFolder::Io(error)) => Err(cannot_keep(&folders.path(described), &error)),
        Err(UnknownFolder::Listing(error)) => {
            // It came as it was shared, and nothing of it may be used.
            folders.discard(described);
            let name = &manifest.name;
            Err(CannotStart::Never(format!(
                "the folder {name} cannot be taken: {error}; ask who shared it to share it again"
            )))
        }
    }
}

fn cannot_keep(path: &std::path::Path, error: &std::io::Error) -> CannotStart {
    let words = format!("cannot keep the listing of the folder in {}: {error}", path.display());
    match Shortage::of(error, path.parent().unwrap_or(path)) {
        Some(shortage) => CannotStart::Short(shortage, words),
        None => CannotStart::Never(words),
    }
}

fn contradicts(manifest: &Manifest, error: &dyn std::error::Error) -> CannotStart {
    CannotStart::Never(metadata(manifest, error).to_string())
}
