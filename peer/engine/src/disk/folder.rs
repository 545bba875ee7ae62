//! The partial folder of a folder that is being downloaded: `NAME.part`, with the files under their own names. When all of them
//! are whole, one call makes them durable and one rename gives the folder its name. So the folder is there whole or not at all,
//! and no file of the listing can have the name of a file of ours.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use shoal_common::{Bitfield, Layout, Listing};
use shoal_disk::{Lock, Tree};

use crate::content::Target;
use crate::disk::{DiskError, io_error, open_error, write_blocks};
use crate::pool::Block;

/// Files that stay open: those that two batches write, and one that is read. Few, because many downloads share the
/// descriptors of the process.
const OPEN_FILES: usize = 4;
/// Shows whether the file system takes upper case and lower case for the same. No path of a listing begins with a folder of
/// this name and holds nothing.
const PROBE: [&str; 2] = [".shoal-probe~", ".SHOAL-PROBE~"];

/// See the module.
#[derive(Debug)]
pub(crate) struct PartFolder {
    root: Tree,
    path: PathBuf,
    layout: Layout,
    listing: Arc<Listing>,
    held: Mutex<Option<Lock>>,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

impl PartFolder {
    /// Opens or creates the folder and locks it against other writers.
    pub(super) fn lock(path: PathBuf, layout: Layout, listing: Arc<Listing>) -> Result<Self, DiskError> {
        loop {
            match DirBuilder::new().create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(open_error(&path, error));
                }
                _ => {}
            }
            let (root, held) = Self::lock_existing(&path)?;
            let Some((root, held)) = root.zip(held) else { continue };
            let (held, open) = (Mutex::new(Some(held)), Mutex::default());
            let folder = Self { root, path, layout, listing, held, open };
            folder.check_names().inspect_err(|_| {
                let _ = std::fs::remove_dir(&folder.path);
            })?;
            return Ok(folder);
        }
    }

    /// Opens and locks the folder that is there; nothing if another took its place in that moment.
    fn lock_existing(path: &Path) -> Result<(Option<Tree>, Option<Lock>), DiskError> {
        let there = || std::fs::symlink_metadata(path);
        match there() {
            Ok(found) if !found.is_dir() => return Err(DiskError::Foreign(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
            Err(error) => return Err(io_error("look at", path, error)),
            Ok(_) => {}
        }
        let root = Tree::open(path).map_err(|error| open_error(path, error))?;
        let opened = root.folder().metadata().map_err(|error| io_error("open", path, error))?;
        let held = match shoal_disk::try_lock(root.folder()) {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return Err(DiskError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", path, error)),
        };
        // The last holder of the lock may have finished and renamed the folder meanwhile.
        let same = there().is_ok_and(|there| there.ino() == opened.ino() && there.dev() == opened.dev());
        Ok(if same { (Some(root), Some(held)) } else { (None, None) })
    }

    /// Removes the partial folder at this path, unless a download writes to it.
    pub(super) fn discard(path: &Path) -> Result<(), DiskError> {
        let (_root, _held) = Self::lock_existing(path)?;
        std::fs::remove_dir_all(path).map_err(|error| io_error("remove", path, error))
    }

    /// Fails where the file system takes two paths of the listing for one.
    fn check_names(&self) -> Result<(), DiskError> {
        let Some((one, other)) = self.listing.colliding() else { return Ok(()) };
        let probe = |name: &str| self.path.join(name);
        let made = DirBuilder::new().create(probe(PROBE[0]));
        let same = std::fs::symlink_metadata(probe(PROBE[1])).is_ok();
        let _ = std::fs::remove_dir(probe(PROBE[0]));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(open_error(&self.path, error)),
            _ if same => {
                let (one, other) = (one.to_owned(), other.to_owned());
                Err(DiskError::Collision { path: self.path.clone(), one, other })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file within the folder.
    fn name(&self, file: usize) -> &str {
        self.listing.file(file).map_or("", |(path, _)| path)
    }

    /// As [`Part::present`](super::Part::present).
    pub(super) fn present(&self) -> Result<(bool, Bitfield), DiskError> {
        let mut present = Bitfield::none(&self.layout);
        let mut entries =
            std::fs::read_dir(&self.path).map_err(|error| io_error("look at", &self.path, error))?;
        if entries.next().is_none() {
            return Ok((true, present));
        }
        for file in 0..self.layout.files() {
            let length = match self.root.read(self.name(file)).and_then(|file| file.metadata()) {
                Ok(found) if found.is_file() => found.len(),
                Ok(_) => return Err(DiskError::Foreign(self.path.join(self.name(file)))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.error("look at", file, error)),
            };
            let start = self.layout.extent(file).start;
            for piece in self.layout.pieces_of(file) {
                let end = self.layout.offset(piece) + u64::from(self.layout.length(piece)) - start;
                if end <= length {
                    present.insert(piece);
                }
            }
        }
        Ok((false, present))
    }

    pub(super) fn must_fit(&self, written: &Bitfield) -> Result<(), DiskError> {
        let missing = self.layout.size() - written.bytes(&self.layout);
        match self.lacking(missing) {
            0 => Ok(()),
            lacking => Err(DiskError::Full { path: self.path.clone(), bytes: self.layout.size(), lacking }),
        }
    }

    /// Bytes that the drive lacks for so many more; 0 if it has them, or does not say.
    fn lacking(&self, bytes: u64) -> u64 {
        match rustix::fs::fstatfs(self.root.folder()) {
            Ok(system) if system.f_blocks > 0 => {
                let block = u64::try_from(system.f_bsize).unwrap_or(0);
                bytes.saturating_sub(system.f_bavail.saturating_mul(block))
            }
            _ => 0,
        }
    }

    pub(super) fn unlock(&self) {
        let _ = self.root.folder().unlock();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The file that has this byte of the content, and where in it.
    fn locate(&self, offset: u64) -> io::Result<(usize, u64)> {
        let found = self.layout.stretches(offset..offset.saturating_add(1)).next();
        found.map(|stretch| (stretch.file, stretch.offset)).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// Opens a file, or finds it open.
    fn open(&self, file: usize, open: impl FnOnce(&str) -> io::Result<File>) -> io::Result<Arc<File>> {
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(number, _)| *number == file)
            && let Some(found) = kept.remove(at)
        {
            let opened = found.1.clone();
            kept.push_front(found);
            return Ok(opened);
        }
        let opened = Arc::new(open(self.name(file))?);
        kept.truncate(OPEN_FILES - 1);
        kept.push_front((file, opened.clone()));
        Ok(opened)
    }

    fn writable(&self, file: usize) -> io::Result<Arc<File>> {
        self.open(file, |name| {
            let opened = self.root.write(name)?;
            if opened.metadata()?.is_file() { Ok(opened) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        })
    }

    pub(super) fn write(&self, offset: u64, blocks: &[Block]) -> Result<(), DiskError> {
        let (file, at) = self.locate(offset).map_err(|error| io_error("write", &self.path, error))?;
        let written = self.writable(file).and_then(|open| write_blocks(&open, at, blocks));
        written.map_err(|error| self.error("write", file, error))
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.read_piece(offset, into).map_err(|error| io_error("read", &self.path, error))
    }

    /// Reads bytes of one piece, for the download and for uploads.
    pub(super) fn read_piece(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (file, at) = self.locate(offset)?;
        // Of the files that are kept open all can be read; others are opened for this read alone.
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(number, _)| *number == file).map(|(_, open)| open.clone());
        kept.truncate(OPEN_FILES);
        drop(kept);
        match found {
            Some(open) => open.read_exact_at(into, at),
            None => self.root.read(self.name(file))?.read_exact_at(into, at),
        }
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.root.sync().map_err(|error| io_error("write", &self.path, error))
    }

    pub(super) fn finish(&self, target: &Target) -> Result<(), DiskError> {
        self.must_be_in_place()?;
        for file in (0..self.layout.files()).filter(|&file| self.layout.extent(file).is_empty()) {
            self.root.write(self.name(file)).map_err(|error| self.error("write", file, error))?;
        }
        for folder in self.listing.empty_folders() {
            let made = self.root.make_folder(folder);
            made.map_err(|error| io_error("make the folder", &self.path.join(folder), error))?;
        }
        self.sync()?;
        shoal_disk::rename_new_folder(&self.path, target.path()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::DirectoryNotEmpty => DiskError::Exists(target.path().to_owned()),
            _ => io_error("put in place", target.path(), error),
        })?;
        let synced = shoal_disk::sync_folder(target.folder());
        synced.map_err(|error| io_error("write to the folder of", target.path(), error))
    }

    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a cancelled download");
        }
    }

    pub(super) fn must_be_in_place(&self) -> Result<(), DiskError> {
        let look = |error| io_error("look at", &self.path, error);
        let opened = self.root.folder().metadata().map_err(look)?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if there.ino() == opened.ino() && there.dev() == opened.dev() => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(look(error)),
            Ok(_) | Err(_) => Err(DiskError::Gone(self.path.clone())),
        }
    }

    fn error(&self, action: &'static str, file: usize, error: io::Error) -> DiskError {
        let path = self.path.join(self.name(file));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let (path, bytes) = (self.path.clone(), self.layout.size());
                DiskError::Full { path, bytes, lacking: self.lacking(bytes) }
            }
            // A link, a folder or a pipe in the place of a file, or a file in the place of a folder.
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                DiskError::Foreign(path)
            }
            _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => DiskError::Foreign(path),
            _ if shoal_disk::is_about_name(&error) => DiskError::Name(path),
            _ => io_error(action, &path, error),
        }
    }
}
