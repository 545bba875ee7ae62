//! What this client knows of folders: their listings, kept in the data folder, and how the files of the shared ones looked when
//! they were last looked at. Blocking, but for what is in memory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::folder::ListingError;
use shoal_common::limits::MAX_LISTING_BYTES;
use shoal_common::{Blake3, FolderRecord, Layout, Listing, Manifest};
use shoal_engine::folder::{self, FolderIdentity, SharedFolder};
use shoal_engine::hash::FileIdentity;
use shoal_swarm::{Body, Served};

/// The folder of the listings within the data folder.
const FOLDER: &str = "listings";

/// A folder whose listing was read and checked.
#[derive(Debug)]
pub(crate) struct KnownFolder {
    /// What is in it.
    pub(crate) listing: Arc<Listing>,
    /// How its files are cut.
    pub(crate) layout: Layout,
}

/// Why a listing is not known.
#[derive(Debug, thiserror::Error)]
pub enum UnknownFolder {
    /// It is not kept here.
    #[error("the listing of the folder is not there any more; share the folder again, or download it again")]
    Absent,
    /// It cannot be read.
    #[error("cannot read the listing of the folder: {0}")]
    Io(#[from] io::Error),
    /// It is none that may be used.
    #[error("the folder cannot be taken: {0}")]
    Listing(#[from] ListingError),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Folders(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    known: Mutex<HashMap<Blake3, Arc<KnownFolder>>>,
    /// By the path of the shared folder.
    seen: Mutex<HashMap<PathBuf, FolderIdentity>>,
}

impl Folders {
    /// Those whose listings are in this data folder.
    #[must_use]
    pub(crate) fn new(data_dir: &Path) -> Self {
        let (known, seen) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { dir: data_dir.join(FOLDER), known, seen }))
    }

    /// Where the listing of a folder is, or goes.
    pub(crate) fn path(&self, folder: &FolderRecord) -> PathBuf {
        self.0.dir.join(folder.listing.to_string())
    }

    /// Makes the folder of the listings, for this user alone.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.dir)
    }

    /// Keeps the listing of a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep(&self, folder: &FolderRecord, listing: &Listing) -> io::Result<()> {
        self.prepare()?;
        shoal_disk::replace(&self.path(folder), &listing.encode())
    }

    /// Removes a listing that is of no use.
    pub(crate) fn discard(&self, folder: &FolderRecord) {
        let _ = std::fs::remove_file(self.path(folder));
    }

    /// The folder that a manifest describes, if its listing is kept here.
    ///
    /// # Errors
    /// See [`UnknownFolder`].
    pub(crate) fn read(&self, manifest: &Manifest) -> Result<Arc<KnownFolder>, UnknownFolder> {
        let folder = manifest.folder.as_ref().ok_or(UnknownFolder::Absent)?;
        if let Some(known) = self.known().get(&folder.listing) {
            return Ok(known.clone());
        }
        let path = self.path(folder);
        let bytes = match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() <= MAX_LISTING_BYTES.into() => std::fs::read(&path)?,
            Ok(_) => return Err(ListingError::Other.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UnknownFolder::Absent),
            Err(error) => return Err(error.into()),
        };
        let (listing, layout) = manifest.read_listing(&bytes)?;
        let known = Arc::new(KnownFolder { listing: Arc::new(listing), layout });
        self.known().insert(folder.listing, known.clone());
        Ok(known)
    }

    /// The listing of a folder, to be served to those who want the folder.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn serve_listing(&self, manifest: &Manifest) -> io::Result<Served> {
        let unknown = || io::Error::from(io::ErrorKind::NotFound);
        let layout = manifest.listing_layout().ok_or_else(unknown)?;
        let path = self.path(manifest.folder.as_ref().ok_or_else(unknown)?);
        let identity = FileIdentity::of(&path)?;
        Ok(Served { layout, body: Body::File { path, identity } })
    }

    /// Looks at the files of a shared folder, and remembers how they look.
    ///
    /// # Errors
    /// When one is not there or cannot be looked at.
    pub(crate) fn look(&self, root: &Path, manifest: &Manifest) -> io::Result<FileIdentity> {
        let known = self.read(manifest).map_err(|error| match error {
            UnknownFolder::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })?;
        let found = folder::look(root, &known.listing)?;
        Ok(self.remember(root, found))
    }

    /// Remembers how the files of a shared folder look.
    pub(crate) fn remember(&self, root: &Path, found: FolderIdentity) -> FileIdentity {
        let whole = found.whole;
        self.seen().insert(root.to_owned(), found);
        whole
    }

    /// A shared folder as it looked when it was last looked at, if that was like this.
    pub(crate) fn shared(&self, root: &Path, manifest: &Manifest, like: &FileIdentity) -> Option<Served> {
        let files = self.seen().get(root).filter(|seen| seen.whole == *like)?.files.clone();
        let known = self.known().get(&manifest.folder.as_ref()?.listing)?.clone();
        let folder = SharedFolder { root: root.to_owned(), listing: known.listing.clone(), files };
        Some(Served { layout: known.layout.clone(), body: Body::Folder(folder) })
    }

    /// A folder is not shared from here any more.
    pub(crate) fn forget(&self, root: &Path) {
        self.seen().remove(root);
    }

    /// Removes the listings that nothing on record names.
    pub(crate) fn sweep(&self, named: &HashSet<Blake3>) {
        self.known().retain(|listing, _| named.contains(listing));
        let Ok(entries) = std::fs::read_dir(&self.0.dir) else { return };
        let names: HashSet<String> = named.iter().map(ToString::to_string).collect();
        for entry in entries.flatten() {
            let name = entry.file_name();
            // Also what an unfinished download of a listing left.
            let stem = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
            if !names.contains(stem) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Blake3, Arc<KnownFolder>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<PathBuf, FolderIdentity>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
