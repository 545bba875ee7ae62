//! What is known of a file already: that it was hashed for another group, or shared when it was elsewhere.

use std::path::{Path, PathBuf};

use shoal_common::GroupName;
use shoal_common::manifest::ManifestError;
use shoal_engine::hash::{FileIdentity, Hashed};
use tokio::sync::watch;

use super::{ANNOUNCE_WITHIN, ShareError, Shares};
use crate::FileRef;
use crate::hashing::{Hashing, compare_folder, hash};
use crate::store::ShareRecord;
use shoal_session::Who;
use shoal_swarm::FileKey;

impl Shares {
    /// Shares from another path what was shared before: the file was moved. Gives that path, whole.
    ///
    /// # Errors
    /// When there is no such share, or another file is there.
    pub(crate) async fn relocate(
        &self,
        who: &Who,
        (key, file): (FileKey, &FileRef),
        path: &Path,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<PathBuf, ShareError> {
        let not_shared = || ShareError::NotShared(file.clone());
        let old = self.record(who.user, key).await?.ok_or_else(not_shared)?;
        let absolute = super::found(path).await?;
        let (absolute, identity, same) = self.compared(&old, absolute, progress).await?;
        if !same {
            return Err(ShareError::Differs { path: absolute, file: file.clone() });
        }
        let _turn = self.turn.lock().await;
        // It may have been stopped meanwhile.
        let old = self.record(who.user, key).await?.ok_or_else(not_shared)?;
        let record = ShareRecord { path: absolute.clone(), identity, ..old };
        let piece_list = self.parts.store.piece_list(&record.manifest).await?;
        self.parts.store.put_share(record.clone(), piece_list).await?;
        self.handle.put(record).await?;
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(absolute)
    }

    /// Compares what is at a path with a share; gives the path as it is recorded, and what is there now.
    async fn compared(
        &self,
        share: &ShareRecord,
        path: PathBuf,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<(PathBuf, FileIdentity, bool), ShareError> {
        if share.manifest.folder.is_none() {
            let hashed = hash(path.clone(), progress).await?;
            return Ok((path, hashed.identity, hashed.digest == share.manifest.digest()));
        }
        let path: PathBuf = path.components().collect();
        let (folders, manifest) = (self.parts.folders.clone(), share.manifest.clone());
        let known = tokio::task::spawn_blocking(move || folders.read(&manifest)).await;
        let known = known.map_err(|stopped| ShareError::Listing(std::io::Error::other(stopped)))??;
        let (same, found) = compare_folder(path.clone(), known, progress).await?;
        let identity = if same { self.parts.folders.remember(&path, found) } else { found.whole };
        Ok((path, identity, same))
    }

    /// The digests of a file that is shared in another group and was not written to since. In the same group it is hashed
    /// again: who shares a file there once more means to have it looked at.
    pub(super) async fn hashed_before(
        &self,
        who: &Who,
        group: &GroupName,
        path: &Path,
    ) -> Result<Option<Hashed>, ShareError> {
        let records = self.parts.store.shares(who.user).await?;
        let Some(record) = records.into_iter().find(|old| old.path == path && old.group != *group) else {
            return Ok(None);
        };
        if !super::is_untouched(&record, &self.parts.folders).await {
            return Ok(None);
        }
        let manifest = &record.manifest;
        let pieces = manifest.read_piece_list(&self.parts.store.piece_list(manifest).await?)?;
        let layout = manifest.layout().map_err(ManifestError::from)?;
        Ok(Some(Hashed { layout, pieces, digest: manifest.digest(), identity: record.identity }))
    }
}
