//! The partial folder of a folder that is being downloaded: `NAME.part`, with the incomplete files under their own names. Files
//! that are right move into the folder itself, `NAME`, after one call has made all of them durable. So what is in `NAME` is
//! whole, and no file of the listing can have the name of a file of ours.

mod adopt;
mod names;
mod place;

use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::io::Errno;
use shoal_common::{Bitfield, Layout, Listing};
use shoal_disk::{Lock, Tree};

use self::names::{Problem, Rules, is_probe};
use self::place::{Place, is_untouched};
use crate::chosen::Chosen;
use crate::content::{Content, Target};
use crate::disk::{DiskError, Present, io_error, open_error, write_blocks};
use crate::pool::Block;

/// Files that stay open: those that two batches write, and one that is read. Few, because many downloads share the
/// descriptors of the process.
const OPEN_FILES: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct PartFolder {
    root: Tree,
    path: PathBuf,
    layout: Layout,
    listing: Arc<Listing>,
    /// Other paths than in the listing.
    names: Arc<HashMap<usize, String>>,
    place: Place,
    held: Mutex<Option<Lock>>,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

impl PartFolder {
    /// Opens or creates the folder and locks it against other writers.
    pub(super) fn lock(
        target: &Target,
        content: &Content,
        listing: &Arc<Listing>,
        chosen: &Chosen,
    ) -> Result<Self, DiskError> {
        let (path, layout) = (target.part_path(), content.layout());
        loop {
            match DirBuilder::new().create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(open_error(&path, error));
                }
                _ => {}
            }
            let (root, held) = Self::lock_existing(&path)?;
            let Some((root, held)) = root.zip(held) else { continue };
            let (layout, listing, names) = (layout.clone(), listing.clone(), content.placing().names.clone());
            let place = Place::of(target, content.placing().keeps_modes);
            let (held, open) = (Mutex::new(Some(held)), Mutex::default());
            let folder = Self { root, path, layout, listing, names, place, held, open };
            let usable = folder.check_place().and_then(|()| folder.check_names(chosen));
            usable.inspect_err(|_| {
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

    /// Fails where files cannot move from here to the folder itself.
    fn check_place(&self) -> Result<(), DiskError> {
        let look = |error| io_error("look at", &self.place.path, error);
        let Some(there) = self.place.tree().map_err(look)? else { return Ok(()) };
        let device = |tree: &Tree| tree.folder().metadata().map(|found| found.dev()).map_err(look);
        if device(&there)? == device(&self.root)? {
            Ok(())
        } else {
            Err(DiskError::Mounted(self.place.path.clone()))
        }
    }

    /// Fails where the file system cannot hold the chosen files: it takes two paths for one, or does not take a name.
    fn check_names(&self, chosen: &Chosen) -> Result<(), DiskError> {
        let fault = |error| open_error(&self.path, error);
        let longest = rustix::fs::fstatfs(self.root.folder()).map_err(|error| fault(error.into()))?.f_namelen;
        let longest = usize::try_from(longest).ok().filter(|&longest| longest > 0).unwrap_or(usize::MAX);
        let paths = || chosen.files(&self.layout).map(|file| self.name(file));
        let problem = |rules: &Rules| rules.problem(&paths().collect::<Vec<_>>());
        if problem(&Rules::strictest(longest)).is_none() {
            return Ok(());
        }
        match problem(&Rules::find(self.path.as_path(), longest).map_err(fault)?) {
            None => Ok(()),
            Some(Problem::Same(one, other)) => {
                Err(DiskError::Collision { path: self.place.path.clone(), one, other })
            }
            Some(Problem::Refused(name)) => Err(DiskError::Unnamable { path: self.place.path.clone(), name }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file within the folder.
    fn name(&self, file: usize) -> &str {
        match self.names.get(&file) {
            Some(other) => other,
            None => self.listing.file(file).map_or("", |(path, _)| path),
        }
    }

    /// Whether a file is executable where it was shared.
    fn is_executable(&self, file: usize) -> bool {
        self.listing.file(file).is_some_and(|(_, listed)| listed.exec)
    }

    /// As [`Part::present`](super::Part::present).
    pub(super) fn present(&self) -> Result<Present, DiskError> {
        let mut pieces = Bitfield::none(&self.layout);
        let entries =
            std::fs::read_dir(&self.path).map_err(|error| io_error("look at", &self.path, error))?;
        let is_new = entries.flatten().all(|entry| is_probe(&entry.file_name()));
        let has_place =
            self.place.tree().map_err(|error| io_error("look at", &self.place.path, error))?.is_some();
        let mut in_place = Vec::new();
        for file in (0..self.layout.files()).filter(|&file| !self.layout.extent(file).is_empty()) {
            let found = if is_new { None } else { self.part_length(file)? };
            if let Some(length) = found {
                let start = self.layout.extent(file).start;
                for piece in self.layout.pieces_of(file) {
                    let end = self.layout.offset(piece) + u64::from(self.layout.length(piece)) - start;
                    if end <= length {
                        pieces.insert(piece);
                    }
                }
            } else if has_place && !matches!(self.place.look(self.name(file)), Ok(None)) {
                in_place.push(file);
            }
        }
        Ok(Present { is_new, pieces, in_place })
    }

    /// Fails if the folder is another one, in which there is nothing of this one.
    pub(super) fn must_be_ours(&self) -> Result<(), DiskError> {
        let entries = match std::fs::read_dir(&self.place.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| io_error("look at", &self.place.path, error))?,
        };
        let is_empty = |file: usize| self.layout.extent(file).is_empty();
        let there = |file: usize| is_empty(file) && matches!(self.place.look(self.name(file)), Ok(Some(_)));
        if self.place.replaces() || entries.count() == 0 || (0..self.layout.files()).any(there) {
            return Ok(());
        }
        Err(DiskError::OtherFolder(self.place.path.clone()))
    }

    /// The length of an incomplete file, if there is one.
    fn part_length(&self, file: usize) -> Result<Option<u64>, DiskError> {
        match self.root.read(self.name(file)).and_then(|file| file.metadata()) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(DiskError::Foreign(self.path.join(self.name(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("look at", file, error)),
        }
    }

    /// Takes a file at its place for right if nothing of it changed since `checkpoint`, when it was; gives whether it does.
    pub(super) fn trust(&self, file: usize, checkpoint: SystemTime) -> bool {
        let Ok(Some(found)) = self.place.look(self.name(file)) else { return false };
        let size = self.layout.extent(file).end - self.layout.extent(file).start;
        let same = found.metadata().is_ok_and(|found| found.is_file() && found.len() == size)
            && is_untouched(&found, checkpoint).unwrap_or(false);
        same && self.place.keep(file, &found, self.is_executable(file)).is_ok()
    }

    pub(super) fn has_placed(&self, file: usize) -> bool {
        self.place.has(file)
    }

    /// Makes what was written durable, and gives these files, which are right, their names.
    pub(super) fn place(&self, files: Vec<usize>) -> Result<Vec<usize>, DiskError> {
        self.sync()?;
        self.must_be_in_place()?;
        for &file in &files {
            let name = self.name(file);
            self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(number, _)| *number != file);
            let put = self.place.put(&self.root, file, name, self.is_executable(file));
            put.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    DiskError::Different { path: self.place.path.join(name), others: 0 }
                }
                _ => self.error_at("put in place", self.place.path.join(name), error),
            })?;
        }
        Ok(files)
    }

    pub(super) fn must_fit(&self, written: &Bitfield, chosen: &Chosen) -> Result<(), DiskError> {
        let pieces = chosen.pieces(&self.layout);
        let (bytes, there) = (chosen.bytes(&self.layout), written.and(&pieces).bytes(&self.layout));
        match self.lacking(bytes - there) {
            0 => Ok(()),
            lacking => Err(DiskError::Full { path: self.path.clone(), bytes, lacking }),
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

    /// As [`PartFolder::write`].
    pub(super) fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let (file, at) = self.locate(offset).map_err(|error| io_error("write", &self.path, error))?;
        let written = self.writable(file).and_then(|open| open.write_all_at(bytes, at));
        written.map_err(|error| self.error("write", file, error))
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.read_piece(offset, into).map_err(|error| io_error("read", &self.path, error))
    }

    /// Reads bytes of one piece, for the download and for uploads.
    pub(super) fn read_piece(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (file, at) = self.locate(offset)?;
        if self.place.has(file) {
            let there = self.place.open(file, self.name(file))?;
            there.file.read_exact_at(into, at)?;
            return there.check();
        }
        // Of the files that are kept open all can be read; others are opened for this read alone.
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(number, _)| *number == file).map(|(_, open)| open.clone());
        kept.truncate(OPEN_FILES);
        drop(kept);
        match found {
            Some(open) => open.read_exact_at(into, at),
            None => match self.root.read(self.name(file)) {
                // It got its name in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.place.look(self.name(file))?.ok_or(error)?.read_exact_at(into, at)
                }
                opened => opened?.read_exact_at(into, at),
            },
        }
    }

    pub(super) fn sync(&self) -> Result<(), DiskError> {
        self.root.sync().map_err(|error| io_error("write", &self.path, error))
    }

    /// Makes the empty files and folders, and all of it durable; what is left of the partial folder is removed.
    pub(super) fn finish(&self, target: &Target, chosen: &Chosen) -> Result<(), DiskError> {
        self.must_be_in_place()?;
        let made = self.place.made();
        let tree = made.map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => DiskError::Exists(self.place.path.clone()),
            _ => open_error(&self.place.path, error),
        })?;
        for file in chosen.files(&self.layout).filter(|&file| self.layout.extent(file).is_empty()) {
            let path = self.place.path.join(self.name(file));
            let put = self.place.put_empty(file, self.name(file), self.is_executable(file));
            put.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => DiskError::Different { path, others: 0 },
                _ => self.error_at("make", path, error),
            })?;
        }
        for folder in self.listing.empty_folders().filter(|_| chosen.is_all()) {
            let made = tree.make_folder(folder);
            made.map_err(|error| io_error("make the folder", &self.place.path.join(folder), error))?;
        }
        self.sync()?;
        self.remove();
        let synced = shoal_disk::sync_folder(target.folder());
        synced.map_err(|error| io_error("write to the folder of", target.path(), error))
    }

    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial folder");
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
        self.error_at(action, self.path.join(self.name(file)), error)
    }

    fn error_at(&self, action: &'static str, path: PathBuf, error: io::Error) -> DiskError {
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
