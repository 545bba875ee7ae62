//! What is known of a file already: that it was hashed for another group, or shared when it was elsewhere.

use std::path::{Path, PathBuf};

use shoal_common::GroupName;
use shoal_common::manifest::ManifestError;
use shoal_engine::hash::Hashed;
use tokio::sync::watch;

use super::{ANNOUNCE_WITHIN, ShareError, Shares};
use crate::FileRef;
use crate::hashing::{Hashing, hash};
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
        let hashed = hash(absolute.clone(), progress).await?;
        if hashed.digest != old.manifest.digest() {
            return Err(ShareError::Differs { path: absolute, file: file.clone() });
        }
        let _turn = self.turn.lock().await;
        // It may have been stopped meanwhile.
        let old = self.record(who.user, key).await?.ok_or_else(not_shared)?;
        let record = ShareRecord { path: absolute.clone(), identity: hashed.identity, ..old };
        let piece_list = self.parts.store.piece_list(&record.manifest).await?;
        self.parts.store.put_share(record.clone(), piece_list).await?;
        self.handle.put(record).await?;
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(absolute)
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
        if !super::is_untouched(&record).await {
            return Ok(None);
        }
        let manifest = &record.manifest;
        let pieces = manifest.read_piece_list(&self.parts.store.piece_list(manifest).await?)?;
        let layout = manifest.layout().map_err(ManifestError::from)?;
        Ok(Some(Hashed { layout, pieces, digest: manifest.digest(), identity: record.identity }))
    }
}
