//! What the swarm serves of a share: the bytes of a file, or the files of a folder and its listing.

use shoal_common::manifest::ManifestError;
use shoal_engine::hash::{FileIdentity, HashError};
use shoal_swarm::{Body, Served};

use super::super::ShareError;
use super::Monitor;
use crate::store::ShareRecord;

impl Monitor {
    /// What is served of a share, and a folder's listing.
    pub(super) fn served(
        &self,
        record: &ShareRecord,
        identity: FileIdentity,
    ) -> Result<(Served, Option<Served>), ShareError> {
        if record.manifest.folder.is_none() {
            let layout = record.manifest.layout().map_err(ManifestError::from)?;
            return Ok((Served { layout, body: Body::File { path: record.path.clone(), identity } }, None));
        }
        let folders = &self.parts.folders;
        let listing = folders.serve_listing(&record.manifest).map_err(ShareError::Listing)?;
        let shared = folders.shared(&record.path, &record.manifest, &identity);
        let shared = shared.ok_or_else(|| HashError::Changed(record.path.clone()))?;
        Ok((shared, Some(listing)))
    }
}
