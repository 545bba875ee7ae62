//! Sharing a folder: it is hashed, its listing is kept and served, and it is registered as one item.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_common::{GroupName, Listing, Manifest, RequestId};
use shoal_engine::folder::HashedFolder;
use tokio::sync::watch;

use super::{ANNOUNCE_WITHIN, ShareError, Shares, Uploaded, UploadedFolder, file_name, gid};
use crate::hashing::{Hashing, hash_folder};
use crate::store::ShareRecord;
use shoal_session::Who;

impl Shares {
    /// As [`Shares::upload`], for a folder.
    pub(super) async fn upload_folder(
        &self,
        who: &Who,
        root: &Path,
        group: &GroupName,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Uploaded, ShareError> {
        // Without a slash at its end, so that it is the same path each time.
        let root: PathBuf = root.components().collect();
        let name = file_name(&root)?;
        self.must_be_member(who, group).await?;
        let hashed = hash_folder(root.clone(), progress).await?;
        let HashedFolder { listing, layout, pieces, identity, left_out } = hashed;
        let before = self.version_before(who, group, &root).await?;
        let (mut version, mut lineage) = (1, RequestId::random().0);
        let made = |version, lineage| {
            Manifest::of_folder(name.clone(), &listing, (&layout, &pieces), (version, lineage))
        };
        if let Some(before) = before.as_ref().and_then(|before| before.manifest.folder.as_ref()) {
            (version, lineage) = (before.version, before.lineage);
            if before.listing != made(version, lineage)?.0.blake3 {
                version = version.saturating_add(1);
            }
        }
        let (manifest, piece_list) = made(version, lineage)?;
        self.keep(&manifest, listing).await?;
        let files = manifest.folder.as_ref().map_or(0, |folder| folder.files);
        let replaced = self.replaced(who, group, &root, &manifest).await?;
        for &old in &replaced {
            self.take_back(old).await?;
        }
        let key = self.register(group, &manifest, piece_list.clone()).await?;
        for old in replaced {
            self.handle.remove(old).await;
            self.parts.store.remove_share(who.user, old).await?;
        }
        let uploaded = Uploaded {
            file: manifest.name.clone(),
            size: manifest.size,
            sha1: manifest.sha1,
            folder: Some(UploadedFolder { files, left_out }),
        };
        let identity = self.parts.folders.remember(&root, identity);
        let (user, group) = (who.user, group.clone());
        let record = ShareRecord { user, key, group, manifest, path: root, identity };
        let turn = self.turn.lock().await;
        self.parts.store.put_share(record.clone(), piece_list).await?;
        self.handle.put(record).await?;
        drop(turn);
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(uploaded)
    }

    /// What was shared from this path with this group before.
    async fn version_before(
        &self,
        who: &Who,
        group: &GroupName,
        root: &Path,
    ) -> Result<Option<ShareRecord>, ShareError> {
        let gid = gid(who, group);
        let mut shares = self.parts.store.shares(who.user).await?;
        shares.retain(|old| old.path == root && Some(old.key.group) == gid && old.manifest.folder.is_some());
        Ok(shares.pop())
    }

    /// Keeps a listing, and reads it back, so that what is served is what is kept.
    async fn keep(&self, manifest: &Manifest, listing: Arc<Listing>) -> Result<(), ShareError> {
        let (folders, manifest) = (self.parts.folders.clone(), manifest.clone());
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(folder) = &manifest.folder {
                folders.keep(folder, &listing).map_err(ShareError::Listing)?;
            }
            Ok(folders.read(&manifest).map(|_| ())?)
        });
        kept.await.unwrap_or_else(|stopped| Err(ShareError::Listing(std::io::Error::other(stopped))))
    }
}
