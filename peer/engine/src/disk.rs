//! A download on the disk: the partial file, preallocated and locked, and beside it the state that says which of its
//! pieces are right. Blocking; called from blocking threads only. Never writes to a file that it has not recognised as
//! its own, and never puts a file in place that was not made durable first.

mod adopted;
mod error;
mod folder;
mod journal;
mod left;
mod part;
mod partial;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_disk::{Lock, is_refused};
use tokio_util::sync::CancellationToken;

use crate::chosen::Chosen;
use crate::content::{Content, Overwrite, Target};
use crate::disk::adopted::Adopted;
pub use crate::disk::error::DiskError;
use crate::disk::folder::PartFolder;
pub(crate) use crate::disk::journal::Journal;
use crate::disk::journal::Saved;
pub(crate) use crate::disk::part::{OpenPart, Part};
pub use crate::disk::partial::Partial;
use crate::pool::Block;

/// The type of a tmpfs (linux/magic.h). There, reserving space means clearing memory that is about to be overwritten:
/// 0.3 s a GiB, measured 2026-11-21, before the first byte is fetched. Its free space must do.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// The partial file, open and locked.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: Arc<File>,
    path: PathBuf,
    layout: Layout,
    held: Mutex<Option<Lock>>,
    /// The system does one write to a file at a time, and lets the next one spin until then.
    turn: Mutex<()>,
}

/// What is on the disk when a download is opened.
#[derive(Debug)]
pub(crate) struct Present {
    /// Whether no partial file was there before.
    is_new: bool,
    /// The pieces that may be in it, whole by their length.
    pieces: Bitfield,
    /// Files of a folder, in part or whole, that are at their places.
    in_place: Vec<usize>,
}

/// What was found when a download was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) part: Part,
    pub(crate) journal: Journal,
    /// Pieces that are durable in the partial file.
    pub(crate) written: Bitfield,
    /// Pieces that may be in the partial file and must be hashed to know.
    pub(crate) suspects: Vec<PieceIndex>,
}

impl Opened {
    /// Opens the partial file and its state, or creates them. What is at the destination already is read, and used as far as
    /// it is right; that stops early when cancelled.
    pub(crate) fn open(
        (target, content, chosen): (&Target, &Content, &Chosen),
        cancelled: &CancellationToken,
    ) -> Result<Self, DiskError> {
        check_destination(target, content)?;
        let part = Part::lock(target, content, chosen)?;
        let recovered =
            Self::recover(&part, (target, content, chosen), cancelled).inspect_err(|_| part.unlock());
        recovered.map(|(journal, written, suspects)| Self { part, journal, written, suspects })
    }

    fn recover(
        part: &Part,
        (target, content, chosen): (&Target, &Content, &Chosen),
        cancelled: &CancellationToken,
    ) -> Result<(Journal, Bitfield, Vec<PieceIndex>), DiskError> {
        let layout = content.layout();
        let Present { is_new, pieces: present, mut in_place } = part.present()?;
        let present = |piece: PieceIndex| present.has(piece);
        let checkpoint = checkpointed(target);
        let (mut written, mut suspects) = (Bitfield::none(layout), Vec::new());
        let found = Saved::read(&target.state_path(), content)?;
        let is_fresh = is_new && !matches!(found, Saved::Known { .. });
        match found {
            Saved::Foreign => return Err(DiskError::Foreign(target.state_path())),
            Saved::Absent | Saved::Torn | Saved::OtherContent if is_new => {}
            Saved::Absent => return Err(DiskError::Foreign(part.path().to_owned())),
            Saved::OtherContent => return Err(DiskError::OtherContent(part.path().to_owned())),
            Saved::Torn if content.is_checked() => {
                suspects = layout.iter().filter(|&piece| present(piece)).collect();
            }
            Saved::Torn => {}
            Saved::Known { durable, listed } => {
                in_place.retain(|&file| {
                    let mut all = layout.pieces_of(file);
                    let trusted = all.all(|piece| durable.has(piece)) && part.trust(file, checkpoint);
                    if trusted {
                        layout.pieces_of(file).for_each(|piece| {
                            written.insert(piece);
                        });
                    }
                    !trusted
                });
                durable.iter(layout).filter(|&piece| present(piece)).for_each(|piece| {
                    written.insert(piece);
                });
                let mut listed: Vec<_> =
                    listed.into_iter().filter(|&piece| present(piece) && !written.has(piece)).collect();
                listed.sort_unstable();
                listed.dedup();
                // What cannot be checked is fetched again.
                suspects = if content.is_checked() { listed } else { Vec::new() };
            }
        }
        // Where there was nothing before, nothing is left behind.
        let undo = |_: &DiskError| {
            if is_fresh {
                part.undo();
            }
        };
        if is_fresh && in_place.is_empty() {
            part.must_be_ours().inspect_err(undo)?;
        }
        let taken = (is_new, &in_place[..], chosen);
        let adopted = part.adopt((target, content), taken, cancelled).inspect_err(undo)?;
        adopted.whole.iter(layout).for_each(|piece| {
            written.insert(piece);
        });
        if !cancelled.is_cancelled() {
            part.must_fit(&written, chosen).inspect_err(undo)?;
        }
        let journal = Journal::create(target, content, &written, &suspects).inspect_err(undo)?;
        partial::describe(target, content);
        if let Err(error) = part.allocate() {
            undo(&error);
            if is_fresh {
                journal.remove();
            }
            return Err(error);
        }
        let copied = part.copy((target, content, &journal), &adopted.pieces)?;
        copied.iter(layout).for_each(|piece| {
            written.insert(piece);
        });
        Ok((journal, written, suspects))
    }
}

/// Writes blocks to a file one behind the other, the first at `offset`.
fn write_blocks(file: &File, mut offset: u64, blocks: &[Block]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block.bytes())).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let written = match rustix::io::pwritev(file, rest, offset) {
            // A container that does not know this call: block by block.
            Err(error) if is_refused(&error.into()) => {
                rustix::io::pwrite(file, rest.first().map_or(&[][..], |block| &**block), offset)
            }
            written => written,
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl PartFile {
    /// Opens or creates the file and locks it against other writers.
    fn lock(path: PathBuf, layout: Layout) -> Result<Self, DiskError> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(i32::from_ne_bytes((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().to_ne_bytes()))
                .open(&path)
                .map_err(|error| open_error(&path, error))?;
            let opened = file.metadata().map_err(|error| io_error("open", &path, error))?;
            if !opened.is_file() {
                return Err(DiskError::Foreign(path));
            }
            let held = match shoal_disk::try_lock(&file) {
                Ok(held) => Mutex::new(Some(held)),
                Err(TryLockError::WouldBlock) => return Err(DiskError::Locked(path)),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &path, error)),
            };
            // The last holder of the lock may have finished and renamed the file meanwhile.
            let there = std::fs::symlink_metadata(&path);
            if there.is_ok_and(|there| there.ino() == opened.ino() && there.dev() == opened.dev()) {
                return Ok(Self { file: Arc::new(file), path, layout, held, turn: Mutex::default() });
            }
        }
    }

    /// Lets others open the file for writing; readers keep it open.
    pub(crate) fn unlock(&self) {
        let _ = self.file.unlock();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The file, for readers; it stays good after a rename.
    fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Writes blocks one behind the other, the first at `offset`.
    fn write(&self, offset: u64, blocks: &[Block]) -> Result<(), DiskError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        write_blocks(&self.file, offset, blocks).map_err(|error| self.error("write", error))
    }

    /// Reads exactly `into.len()` bytes at `offset`.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(into, offset).map_err(|error| self.error("read", error))
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        shoal_disk::sync_data(&self.file).map_err(|error| self.error("write", error))
    }

    /// Makes the whole file durable and puts it in its place, under its final name.
    pub(crate) fn finish(&self, target: &Target) -> Result<(), DiskError> {
        self.must_be_in_place()?;
        shoal_disk::sync_file(&self.file).map_err(|error| self.error("write", error))?;
        match target.overwrite() {
            Overwrite::Replace => std::fs::rename(&self.path, target.path())
                .map_err(|error| io_error("replace", target.path(), error))?,
            Overwrite::Refuse => rename_to_new(&self.path, target.path())?,
        }
        let synced = shoal_disk::sync_folder(target.folder());
        synced.map_err(|error| io_error("write to the folder of", target.path(), error))
    }

    /// Removes the partial file.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a cancelled download");
        }
    }

    fn length(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(|error| self.error("open", error))?.len())
    }

    /// Fails unless the drive has room for what is missing. What waits for space must not eat up what is left of it.
    fn must_fit(&self, written: &Bitfield) -> Result<(), DiskError> {
        match self.lacking().min(self.layout.size() - written.bytes(&self.layout)) {
            0 => Ok(()),
            lacking => Err(DiskError::Full { path: self.path.clone(), bytes: self.layout.size(), lacking }),
        }
    }

    /// Reserves the space for the whole file, so that a full disk shows now and not at the end.
    fn allocate(&self) -> Result<(), DiskError> {
        let size = self.layout.size();
        let system = rustix::fs::fstatfs(&self.file).map_err(|error| self.error("look at", error.into()))?;
        let reserved = match () {
            () if size == 0 || system.f_type == TMPFS => Ok(()),
            () => rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size),
        };
        match reserved {
            Ok(()) => {}
            Err(error) if is_refused(&error.into()) => {}
            Err(error) => return Err(self.error("reserve space for", error.into())),
        }
        match self.file.set_len(size) {
            // Writing makes it longer as well.
            Err(error) if !is_refused(&error) => Err(self.error("reserve space for", error)),
            _ => Ok(()),
        }
    }

    /// Bytes that the drive lacks for what the file has not got yet; 0 if it has them, or does not say.
    fn lacking(&self) -> u64 {
        let (Ok(file), Ok(system)) = (rustix::fs::fstat(&self.file), rustix::fs::fstatfs(&self.file)) else {
            return 0;
        };
        if system.f_blocks == 0 {
            // File systems in user space may know nothing of their space.
            return 0;
        }
        let held = u64::try_from(file.st_blocks).unwrap_or(0).saturating_mul(512);
        let free = system.f_bavail.saturating_mul(u64::try_from(system.f_bsize).unwrap_or(0));
        self.layout.size().saturating_sub(held).saturating_sub(free)
    }

    /// Fails unless the file is still what its path leads to: behind an unmounted drive there is an empty folder, in which
    /// nothing of this download must be written.
    pub(crate) fn must_be_in_place(&self) -> Result<(), DiskError> {
        let opened = self.file.metadata().map_err(|error| self.error("look at", error))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if there.ino() == opened.ino() && there.dev() == opened.dev() => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("look at", error)),
            Ok(_) | Err(_) => Err(DiskError::Gone(self.path.clone())),
        }
    }

    fn error(&self, action: &'static str, error: io::Error) -> DiskError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let (bytes, lacking) = (self.layout.size(), self.lacking());
                DiskError::Full { path: self.path.clone(), bytes, lacking }
            }
            _ => io_error(action, &self.path, error),
        }
    }
}

/// When the last checkpoint was written: its file is a new one each time. Long ago, if the file system does not say.
fn checkpointed(target: &Target) -> SystemTime {
    let state = std::fs::symlink_metadata(target.state_path());
    state.and_then(|state| state.created()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn check_destination(target: &Target, content: &Content) -> Result<(), DiskError> {
    let folder = target.folder();
    let is_folder = std::fs::metadata(folder)
        .and_then(|found| if found.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) });
    is_folder.map_err(|error| DiskError::Folder { path: folder.to_owned(), error })?;
    match std::fs::symlink_metadata(target.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_name(target.path()),
        Err(error) if shoal_disk::is_about_name(&error) => Err(DiskError::Name(target.path().to_owned())),
        Err(error) => Err(io_error("look at", target.path(), error)),
        // A folder never takes the place of anything else; of one that is there it uses what is right.
        Ok(found) if content.listing().is_some() && found.is_dir() => Ok(()),
        Ok(_) if content.listing().is_some() => Err(DiskError::Exists(target.path().to_owned())),
        Ok(found) if !found.is_file() && !found.is_symlink() => {
            Err(DiskError::NotAFile(target.path().to_owned()))
        }
        Ok(_) if target.overwrite() == Overwrite::Refuse => Err(DiskError::Exists(target.path().to_owned())),
        Ok(_) => Ok(()),
    }
}

/// Fails where the file system does not take a name that our own names beside it do not show to be none.
fn check_name(path: &Path) -> Result<(), DiskError> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    match name.last() {
        Some(b'.' | b' ') => shoal_disk::try_name(path).map_err(|error| open_error(path, error)),
        _ => Ok(()),
    }
}

/// Renames without ever replacing a file, even one that appears at this moment.
fn rename_to_new(from: &Path, to: &Path) -> Result<(), DiskError> {
    shoal_disk::rename_new(from, to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => DiskError::Exists(to.to_owned()),
        _ => io_error("put in place", to, error),
    })
}

fn open_error(path: &Path, error: io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::IsADirectory => DiskError::Foreign(path.to_owned()),
        _ if shoal_disk::is_about_name(&error) => DiskError::Name(path.to_owned()),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => DiskError::Foreign(path.to_owned()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DiskError::Full { path: path.to_owned(), bytes: 0, lacking: 0 }
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let folder = path.parent().unwrap_or(path);
            DiskError::Folder { path: folder.to_owned(), error }
        }
        _ => io_error("open", path, error),
    }
}

fn io_error(action: &'static str, path: &Path, error: io::Error) -> DiskError {
    DiskError::Io { action, path: path.to_owned(), error }
}

/// Reads a small file whole, up to `most` bytes; `None` when there is none.
fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let nofollow = i32::from_ne_bytes((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().to_ne_bytes());
    let file = match OpenOptions::new().read(true).custom_flags(nofollow).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(open_error(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| io_error("read", path, error))?;
    Ok(Some(bytes))
}
