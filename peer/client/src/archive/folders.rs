//! Shared folders in an export: their listings go along, and a folder is found by them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shoal_common::{Blake3, Listing, Manifest};
use shoal_engine::folder;
use shoal_engine::hash::FileIdentity;
use tokio_util::sync::CancellationToken;

use super::ArchiveError;
use crate::folders::Folders;

/// The listings of folders, as they travel, by their hashes.
pub(super) type Listings = BTreeMap<Blake3, Vec<u8>>;

/// The listings that lie in this data folder for what is on record there. What is missing or damaged is left out: its folder is
/// hashed again, or its listing fetched.
pub(super) fn kept<'a>(data_dir: &Path, manifests: impl Iterator<Item = &'a Manifest>) -> Listings {
    let folders = Folders::new(data_dir);
    let listing = |manifest: &Manifest| {
        let described = manifest.folder.as_ref()?;
        Some((described.listing, folders.read(manifest).ok()?.listing.encode()))
    };
    manifests.filter_map(listing).collect()
}

/// Writes them into a data folder.
///
/// # Errors
/// When one cannot be written.
pub(super) fn keep<'a>(
    data_dir: &Path,
    listings: &Listings,
    manifests: impl Iterator<Item = &'a Manifest>,
) -> Result<(), ArchiveError> {
    let folders = Folders::new(data_dir);
    for manifest in manifests {
        let Some((described, listing)) = manifest.folder.as_ref().zip(listing(listings, manifest)) else {
            continue;
        };
        let kept = folders.keep(described, &listing);
        kept.map_err(|error| ArchiveError::Write { path: folders.path(described), error })?;
    }
    Ok(())
}

/// The listing of that folder, if it is among them and is right.
pub(super) fn listing(listings: &Listings, manifest: &Manifest) -> Option<Listing> {
    let bytes = listings.get(&manifest.folder.as_ref()?.listing)?;
    manifest.read_listing(bytes).ok().map(|(listing, _)| listing)
}

/// The first of these places where the folder is, with all its files as they were shared. Reads them.
pub(super) fn find(
    listing: &Listing,
    places: impl Iterator<Item = PathBuf>,
) -> Option<(PathBuf, FileIdentity)> {
    places.filter(|place| place.is_dir()).find_map(|place| {
        let compared = folder::compare(&place, listing, |_, _| {}, &CancellationToken::new());
        let (same, identity) = compared.ok()?;
        same.then_some((place, identity.whole))
    })
}
