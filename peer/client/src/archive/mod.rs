//! A client moves to another machine: its key, its trackers, its shares and its downloads go into one file under a passphrase, and come
//! out of it into an empty data folder.
//!
//! A key is of one client: with two of them, the trackers know only the one that logged in last. So an export marks the data folder that it was made
//! of ([`marks`]), and no client starts there any more. The file names nothing that is written: what comes out of it goes to
//! fixed names in the data folder. The paths in it are only read, or replaced.

mod content;
mod error;
mod folders;
mod locate;
pub mod marks;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_common::passphrase::{self, PassphraseError};
use shoal_common::{Password, PeerId, TrackerInfo};
use shoal_console::data_dir::DataDir;
use shoal_net::{Identity, KNOWN_TRACKERS_FILE};

use crate::FileRef;
use crate::files::{IDENTITY_FILE, SESSION_FILE, STORE_FILE, wipe};
use crate::store::Store;
use content::{Content, Part};
use locate::{Finder, Sought, Wanted, partial_name};

pub use error::ArchiveError;
pub use locate::Looked;

/// What every export begins with; a later format has another number.
const MARK: &[u8; 16] = b"shoal export 01\n";
/// The same without the number.
const ANY_MARK: &[u8] = b"shoal export ";
/// Longest export, in bytes: it is in memory twice while it is made. A million shares fit.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Longest of the small files that go along, in bytes.
const MAX_SMALL: u64 = 1024 * 1024;
/// Settings that hold on another machine, too. Folders do not, and commands are not taken from a file.
const CARRIED: &[&str] = &["limit_up", "limit_down", "active_downloads", "schedule"];

/// What an export holds.
pub struct Archive(Content);

/// What came out of an export.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Shared files that were found, and are what they were.
    pub found: usize,
    /// Shared files that were not: the file, and where it was.
    pub missing: Vec<(FileRef, PathBuf)>,
    /// Downloads on the list.
    pub downloads: usize,
    /// Unfinished ones whose partial file was not found: they begin again, at this path.
    pub restarted: Vec<(FileRef, PathBuf)>,
    /// Whether the session goes on without a password.
    pub session: bool,
    /// Folders below those named that could not be looked into; the first few.
    pub unreadable: Vec<PathBuf>,
}

impl Archive {
    /// Reads a client's data folder; `trackers` is the text that names its trackers, and `session` takes a kept session along.
    ///
    /// # Errors
    /// When something cannot be read, or there is no client.
    pub async fn of(data_dir: &DataDir, trackers: String, session: bool) -> Result<Self, ArchiveError> {
        let folder = data_dir.path();
        marks::check(folder)?;
        if !folder.join(IDENTITY_FILE).exists() {
            return Err(ArchiveError::NoClient(folder.to_owned()));
        }
        let mut whole = Store::open(&folder.join(STORE_FILE))?.whole().await?;
        whole.settings.retain(|(name, _)| is_carried(name));
        let made = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let identity = small(&folder.join(IDENTITY_FILE))?.unwrap_or_default();
        let known = small(&folder.join(KNOWN_TRACKERS_FILE))?;
        let kept = if session { small(&folder.join(SESSION_FILE))? } else { None };
        let shares = whole.shares.iter().map(|share| &share.manifest);
        let downloads = whole.downloads.iter().map(|download| &download.manifest);
        let listings = folders::kept(folder, shares.chain(downloads));
        Ok(Self(Content::new(made, identity, trackers, (known, kept), (whole, listings))))
    }

    /// Takes a file along that this crate knows nothing of; `name` is for [`Self::part`].
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.parts.push(Part { name: name.to_owned(), bytes });
    }

    /// A file that was taken along.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        self.0.parts.iter().find(|part| part.name == name).map(|part| part.bytes.as_slice())
    }

    /// The text that names the trackers.
    #[must_use]
    pub fn trackers(&self) -> &str {
        &self.0.trackers
    }

    /// Shares and downloads in it.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.0.shares.len(), self.0.downloads.len())
    }

    /// Whether a kept session goes along.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.0.kept.is_some()
    }

    /// Writes it into a new file under a passphrase. From then on the client of that data folder lives elsewhere: it does not start
    /// there, and its kept session is gone from there. The mark comes first, so that a crash leaves no export of a client that starts.
    ///
    /// # Errors
    /// When there is a file already, it would be too long, or it cannot be written. Then the client can be started as before.
    pub fn move_to(
        &self,
        path: &Path,
        passphrase: &Password,
        data_dir: &DataDir,
    ) -> Result<(), ArchiveError> {
        marks::moved(data_dir.path(), path)?;
        if let Err(error) = self.write(path, passphrase) {
            remove(&data_dir.path().join(marks::MOVED))?;
            return Err(error);
        }
        let session = data_dir.path().join(SESSION_FILE);
        wipe(&session).map(drop).map_err(|error| ArchiveError::Write { path: session, error })
    }

    fn write(&self, path: &Path, passphrase: &Password) -> Result<(), ArchiveError> {
        let plain = self.0.bytes();
        if plain.len() as u64 + 1_024 > MAX_BYTES {
            return Err(ArchiveError::TooLarge(MAX_BYTES));
        }
        let sealed = passphrase::seal(MARK, passphrase, &plain)
            .map_err(|error| ArchiveError::Sealed { path: path.to_owned(), error })?;
        shoal_disk::create(path, &sealed).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => ArchiveError::Exists(path.to_owned()),
            _ => ArchiveError::Write { path: path.to_owned(), error },
        })
    }

    /// Looks whether a file may be an export, before anyone is asked for its passphrase, and reads it.
    ///
    /// # Errors
    /// When it cannot be read, is something else, or is of a later version.
    pub fn read(path: &Path) -> Result<Vec<u8>, ArchiveError> {
        let named = || path.to_owned();
        let bytes = shoal_console::read_input(path, MAX_BYTES)
            .map_err(|error| ArchiveError::Read { path: named(), error })?;
        if bytes.starts_with(MARK) {
            Ok(bytes)
        } else if bytes.starts_with(ANY_MARK) {
            Err(ArchiveError::Later(named()))
        } else {
            Err(ArchiveError::NotExport(named()))
        }
    }

    /// Opens what [`Self::read`] gave, and checks all of it; `path` is for messages.
    ///
    /// # Errors
    /// When the passphrase is another, or something in it cannot be right.
    pub fn open(path: &Path, sealed: &[u8], passphrase: &Password) -> Result<Self, ArchiveError> {
        let failed = |error| ArchiveError::Sealed { path: path.to_owned(), error };
        let plain = passphrase::open(MARK, passphrase, sealed).map_err(failed)?;
        let content = Content::read(&plain).ok_or_else(|| failed(PassphraseError::Damaged))?;
        let damaged = |what: String| ArchiveError::Damaged { path: path.to_owned(), what };
        content.check().map_err(damaged)?;
        TrackerInfo::parse(&content.trackers).map_err(|error| damaged(error.to_string()))?;
        Ok(Self(content))
    }

    /// Looks for the shared files where they were and in `folders`, and for the partial files of downloads, and remembers where they
    /// are. A file counts if it has the content that was shared. Nothing is written. Blocks on the disk, for as long as it takes to read what has to be
    /// read.
    ///
    /// # Errors
    /// When a folder cannot be looked into.
    pub fn locate(
        &mut self,
        folders: &[PathBuf],
        downloads: &Path,
        progress: &mut dyn FnMut(&Looked<'_>),
    ) -> Result<Unpacked, ArchiveError> {
        let content = &mut self.0;
        let sizes = content.shares.iter().map(|share| share.manifest.size).collect();
        let partials = content.downloads.iter().filter(|download| !download.state.is_over());
        let partials = partials.filter_map(|download| partial_name(&download.path)).collect();
        let of_folders = content.shares.iter().filter(|share| share.manifest.folder.is_some());
        let names = of_folders.filter_map(|share| share.path.file_name().map(OsStr::to_owned)).collect();
        let mut finder = Finder::new(folders, &Sought { sizes, partials, folders: names })?;
        let listings = content.listings();
        let mut unpacked = Unpacked { session: content.kept.is_some(), ..Unpacked::default() };
        let total = content.shares.len();
        for (at, share) in content.shares.iter_mut().enumerate() {
            progress(&Looked { at, total, path: &share.path });
            let wanted = Wanted::of(&share.path, &share.manifest, share.identity());
            let found = match share.manifest.folder {
                None => finder.find(&wanted),
                Some(_) => folders::listing(&listings, &share.manifest)
                    .and_then(|listing| folders::find(&listing, finder.folders_like(&share.path))),
            };
            match found {
                Some((path, identity)) => {
                    share.moved(path, &identity);
                    unpacked.found += 1;
                }
                None => unpacked.missing.push((share.name(), share.path.clone())),
            }
        }
        let moved: Vec<_> = content.shares.iter().map(|share| (share.key(), share.path.clone())).collect();
        let mut found = std::mem::take(&mut content.downloads);
        let lists = content.piece_lists();
        for download in &mut found {
            unpacked.downloads += 1;
            if download.state.is_over() {
                // Where it is shared from now.
                if let Some((_, path)) = moved.iter().find(|(key, _)| *key == download.key()) {
                    download.path.clone_from(path);
                }
                continue;
            }
            let list = lists.get(&download.manifest.piece_list.0);
            let whole = list.and_then(|list| engine_content(&download.manifest, list));
            if let Some(path) = whole.and_then(|whole| finder.partial(&download.path, &whole)) {
                download.path = path;
            } else {
                // A path of another machine is not one to write to.
                download.path = finder.place(downloads, &download.manifest.name);
                download.verified = 0;
                unpacked.restarted.push((download.name(), download.path.clone()));
            }
        }
        content.downloads = found;
        unpacked.unreadable = finder.unreadable();
        Ok(unpacked)
    }

    /// Writes it into a data folder that has no client. A crash in the middle leaves one in which no client starts, and which the next import fills.
    ///
    /// # Errors
    /// When there is a client already, or something cannot be written.
    pub async fn unpack(self, data_dir: &DataDir) -> Result<PeerId, ArchiveError> {
        let folder = data_dir.path();
        Self::begin(data_dir)?;
        let Self(mut content) = self;
        let identity = folder.join(IDENTITY_FILE);
        put(&identity, &content.identity)?;
        for (name, bytes) in
            [(KNOWN_TRACKERS_FILE, content.known.take()), (SESSION_FILE, content.kept.take())]
        {
            if let Some(bytes) = bytes {
                put(&folder.join(name), &bytes)?;
            }
        }
        folders::keep(folder, &content.listings(), content.manifests())?;
        let whole = content.rows();
        Store::open(&folder.join(STORE_FILE))?.fill(whole).await?;
        let peer = Identity::load_or_create(&identity)?.peer_id();
        marks::end_import(folder)?;
        Ok(peer)
    }

    /// Whether an export may come out into that folder.
    ///
    /// # Errors
    /// When there is a client already.
    pub fn check_empty(folder: &Path) -> Result<(), ArchiveError> {
        let there = |name: &&str| folder.join(name).symlink_metadata().is_ok();
        match [IDENTITY_FILE, STORE_FILE, SESSION_FILE, marks::MOVED].iter().find(|name| there(name)) {
            Some(_) if !marks::is_importing(folder) => Err(ArchiveError::Taken(folder.to_owned())),
            _ => Ok(()),
        }
    }

    /// Whether an import into that folder began and was cut off.
    #[must_use]
    pub fn was_cut_off(folder: &Path) -> bool {
        marks::is_importing(folder)
    }

    /// An import into that folder begins: what one left that was cut off is removed. Until [`Self::unpack`] came to its end, no
    /// client starts there.
    ///
    /// # Errors
    /// When there is a client already, or the folder cannot be written to.
    pub fn begin(data_dir: &DataDir) -> Result<(), ArchiveError> {
        let folder = data_dir.path();
        Self::check_empty(folder)?;
        if marks::is_importing(folder) {
            for name in [IDENTITY_FILE, KNOWN_TRACKERS_FILE, SESSION_FILE] {
                remove(&folder.join(name))?;
            }
            for suffix in ["", "-wal", "-shm"] {
                remove(&folder.join(format!("{STORE_FILE}{suffix}")))?;
            }
            return Ok(());
        }
        marks::begin_import(folder)
    }
}

/// What a download's partial file is of.
fn engine_content(manifest: &shoal_common::Manifest, list: &[u8]) -> Option<shoal_engine::Content> {
    let pieces = manifest.read_piece_list(list).ok()?;
    shoal_engine::Content::new(manifest.layout().ok()?, pieces.into(), manifest.digest()).ok()
}

fn is_carried(setting: &str) -> bool {
    CARRIED.contains(&setting)
}

/// A small file of the folder, if it is there.
fn small(path: &Path) -> Result<Option<Vec<u8>>, ArchiveError> {
    match shoal_console::read_input(path, MAX_SMALL) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ArchiveError::Read { path: path.to_owned(), error }),
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    shoal_disk::replace(path, bytes).map_err(|error| ArchiveError::Write { path: path.to_owned(), error })
}

fn remove(path: &Path) -> Result<(), ArchiveError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ArchiveError::Write { path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_that_cannot_be_written_leaves_a_client_that_starts() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&dir.path().join("client")).unwrap();
        let none = Archive::of(&data_dir, String::new(), false).await;
        assert!(matches!(none, Err(ArchiveError::NoClient(_))));
        Identity::load_or_create(&data_dir.path().join(IDENTITY_FILE)).unwrap();
        std::fs::write(data_dir.path().join(SESSION_FILE), "kept").unwrap();
        let archive = Archive::of(&data_dir, "127.0.0.1 9001".to_owned(), true).await.unwrap();
        let passphrase = Password::new("a passphrase".to_owned());
        let error = archive.move_to(&dir.path().join("none/export"), &passphrase, &data_dir).unwrap_err();
        assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
        marks::check(data_dir.path()).unwrap();
        assert!(data_dir.path().join(SESSION_FILE).exists());
        archive.move_to(&dir.path().join("export"), &passphrase, &data_dir).unwrap();
        assert!(matches!(marks::check(data_dir.path()), Err(ArchiveError::Moved { .. })));
        assert!(!data_dir.path().join(SESSION_FILE).exists());
        assert!(matches!(
            Archive::of(&data_dir, String::new(), false).await,
            Err(ArchiveError::Moved { .. })
        ));
    }
}
