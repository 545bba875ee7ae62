//! Moves finished downloads to other folders; their shares follow. A move is on record before it changes anything, so that one
//! that a crash interrupts is ended, or undone, at the next start. Every file is whole in one place at least at any time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shoal_engine::hash::{FileIdentity, HashError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{TransferError, Transfers, span};
use crate::FileRef;
use crate::hashing::{Hashing, hash};
use crate::shares::FollowError;
use crate::store::{DownloadRecord, DownloadState, MoveRecord, Store, StoreError};

/// Bytes that are copied between two looks at whether to go on.
const STEP: u64 = 16 << 20;

/// Why a download was not moved. It is where it was then, but for [`MoveError::NotRecorded`].
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It is not finished.
    #[error(
        "{} of {} is not complete; pause it and begin it again with another destination: download_file <group_id> \
         <file_name> <destination_path>", .0.file, .0.group
    )]
    NotComplete(FileRef),
    /// The folder.
    #[error("{} is not a folder; make it first, or end it with / and it is made", .0.display())]
    NoFolder(PathBuf),
    /// It is there already.
    #[error("{} is there already", .0.display())]
    There(PathBuf),
    /// Something of that name is there.
    #[error("{} exists and is not replaced; choose another folder", .0.display())]
    Exists(PathBuf),
    /// The file itself is not where it was put.
    #[error("{} is no file any more ({problem}); say where it is with: relocate <group_id> <file_name> <file_path>", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// It is a folder.
    #[error(
        "{} is a folder, and only files are moved; move it yourself and say where it is with: relocate <group_id> \
         <file_name> <file_path>", .0.display()
    )]
    Folder(PathBuf),
    /// It was written to since it was downloaded.
    #[error("{} is not what was downloaded any more; it is not moved to another drive", .0.display())]
    Changed(PathBuf),
    /// The system refuses.
    #[error("cannot move {} to {}: {error}; it stays where it is", .from.display(), .to.display())]
    Failed {
        /// Where it is.
        from: PathBuf,
        /// Where it was to go.
        to: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is at its new place. The move stays on record, and the next start or move ends it.
    #[error(
        "{} is there now, but that cannot be recorded yet ({problem}); leave it there: the next start of the client records it",
        .path.display()
    )]
    NotRecorded {
        /// Where it is now.
        path: PathBuf,
        /// What is in the way.
        problem: String,
    },
    /// The copy cannot be compared.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Whoever asked for it went away.
    #[error("the move was given up; the file stays where it is")]
    GivenUp,
}

impl Transfers {
    /// Moves a finished download into a folder; gives its new path. Dropping the future gives a copy up; a rename takes place.
    ///
    /// # Errors
    /// See [`MoveError`]; also when there is none, or the store fails.
    pub(crate) async fn move_download(
        &self,
        file: &FileRef,
        folder: PathBuf,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<PathBuf, TransferError> {
        let record = self.named(file)?;
        let cancel = CancellationToken::new();
        let _given_up = cancel.clone().drop_guard();
        let moving = Moving {
            transfers: self.clone(),
            file: file.clone(),
            record,
            progress: progress.clone(),
            cancel,
        };
        let span = span(moving.record.key);
        // A rename must not be left half recorded.
        let moved = self.0.tasks.spawn(async move { moving.run(folder).await }.instrument(span));
        moved.await.unwrap_or_else(|stopped| Err(TransferError::Failed(stopped.to_string())))
    }
}

struct Moving {
    transfers: Transfers,
    file: FileRef,
    record: DownloadRecord,
    progress: watch::Sender<Option<Hashing>>,
    cancel: CancellationToken,
}

impl Moving {
    async fn run(self, folder: PathBuf) -> Result<PathBuf, TransferError> {
        let downloads = self.transfers.0.clone();
        // One at a time: more would only hinder each other.
        let _one = downloads.moving.lock().await;
        // What an earlier one could not record.
        recover(&downloads.parts.store).await?;
        let now = self.transfers.list().find(self.record.key);
        let now = now.ok_or_else(|| TransferError::Unknown(self.file.clone()))?;
        if now.state != DownloadState::Complete {
            return Err(MoveError::NotComplete(self.file).into());
        }
        let source = now.path;
        let looked = source.clone();
        let (target, before) = blocking(move || look(&looked, &folder)).await?;
        let row =
            MoveRecord { source: source.clone(), target: target.clone(), copy: None, identity: Some(before) };
        let (store, shares) = (&downloads.parts.store, &downloads.parts.shares);
        store.put_move(row.clone()).await?;
        let (from, to) = (source.clone(), target.clone());
        let renamed =
            shares.follow((&source, &target), before, move || shoal_disk::rename_new(&from, &to)).await;
        let (moved, over) = match renamed {
            Err(FollowError::Place(error)) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy(row, before).await
            }
            renamed => (outcome(renamed, &source, &target), true),
        };
        let unrecorded = matches!(&moved, Err(TransferError::Move(MoveError::NotRecorded { .. })));
        if moved.is_ok() || unrecorded {
            self.transfers.list().moved(&source, &target);
        }
        if over && !unrecorded {
            store.remove_move(&source).await?;
        }
        moved.map(|_| target)
    }

    /// Moves the file to another file system; gives whether that is durable, and whether nothing is left to be done.
    async fn copy(&self, mut row: MoveRecord, before: FileIdentity) -> (Result<bool, TransferError>, bool) {
        let parts = &self.transfers.0.parts;
        let (source, target) = (row.source.clone(), row.target.clone());
        let copy = target.with_file_name(format!(".shoal-move-{:016x}", fastrand::u64(..)));
        let moved = async {
            (row.copy, row.identity) = (Some(copy.clone()), None);
            parts.store.put_move(row.clone()).await?;
            row.identity = Some(self.copy_whole(&source, &copy).await?);
            parts.store.put_move(row).await?;
            let (from, to) = (copy.clone(), target.clone());
            let placed =
                parts.shares.follow((&source, &target), before, move || shoal_disk::rename_new(&from, &to));
            outcome(placed.await, &source, &target)
        };
        let moved: Result<bool, TransferError> = moved.await;
        let unneeded = match &moved {
            // The copy is in its place, and the next start removes the file.
            Err(TransferError::Move(MoveError::NotRecorded { .. })) => return (moved, false),
            Err(_) => copy,
            // Only what was copied: another program may have written there meanwhile.
            Ok(true) if FileIdentity::of(&source).is_ok_and(|now| before.is_still(&now)) => source,
            Ok(_) => {
                tracing::warn!(path = %source.display(), "a moved file stays in its old place, too");
                return (moved, true);
            }
        };
        let removed = removed(unneeded).await;
        let over = moved.is_ok() || removed;
        (moved, over)
    }

    /// Makes a durable copy, and reads it again; gives its identity if it is what was downloaded.
    async fn copy_whole(&self, source: &Path, copy: &Path) -> Result<FileIdentity, TransferError> {
        let (from, to, cancel, progress) =
            (source.to_owned(), copy.to_owned(), self.cancel.clone(), self.progress.clone());
        let copied = blocking(move || {
            let copied = copy_file(&from, &to, &cancel, &progress);
            progress.send_replace(None);
            copied.map_err(|error| match cancel.is_cancelled() {
                true => MoveError::GivenUp,
                false => failed(&from, &to, error),
            })
        });
        copied.await?;
        let hashed = self.cancel.run_until_cancelled(hash(copy.to_owned(), &self.progress)).await;
        let hashed = hashed.ok_or(MoveError::GivenUp)?.map_err(MoveError::from)?;
        if hashed.digest != self.record.manifest.digest() {
            return Err(MoveError::Changed(source.to_owned()).into());
        }
        Ok(hashed.identity)
    }
}

/// What became of a file that was to be put at its new place; gives whether it is durable there.
fn outcome(placed: Result<bool, FollowError>, source: &Path, target: &Path) -> Result<bool, TransferError> {
    placed.map_err(|error| match error {
        FollowError::Place(error) => failed(source, target, error).into(),
        FollowError::Before(error) => error.into(),
        FollowError::Unrecorded(problem) => {
            MoveError::NotRecorded { path: target.to_owned(), problem }.into()
        }
    })
}

/// Looks at where a file is and where it is to go; gives its new path, and what it is.
fn look(source: &Path, folder: &Path) -> Result<(PathBuf, FileIdentity), MoveError> {
    let missing = |problem: String| MoveError::Missing { path: source.to_owned(), problem };
    // A link would lead elsewhere from its new place.
    let found = fs::symlink_metadata(source).map_err(|error| missing(error.to_string()))?;
    if found.is_dir() {
        return Err(MoveError::Folder(source.to_owned()));
    }
    if !found.is_file() {
        return Err(missing("something else is there".to_owned()));
    }
    let identity = FileIdentity::of(source).map_err(|error| missing(error.to_string()))?;
    let name = source.file_name().ok_or_else(|| missing("it has no name".to_owned()))?;
    let absolute = std::path::absolute(folder).map_err(|error| failed(source, folder, error))?;
    if folder.as_os_str().as_encoded_bytes().ends_with(b"/") {
        fs::create_dir_all(&absolute).map_err(|error| failed(source, &absolute, error))?;
    }
    if !absolute.is_dir() {
        return Err(MoveError::NoFolder(absolute));
    }
    let target = absolute.join(name);
    match FileIdentity::of(&target) {
        Ok(there) if there.device == identity.device && there.inode == identity.inode && there.inode != 0 => {
            Err(MoveError::There(target))
        }
        _ if target == source => Err(MoveError::There(target)),
        _ if fs::symlink_metadata(&target).is_ok() => Err(MoveError::Exists(target)),
        _ => Ok((target, identity)),
    }
}

/// Copies a file with its times and permissions, and makes the copy durable.
fn copy_file(
    source: &Path,
    copy: &Path,
    cancel: &CancellationToken,
    progress: &watch::Sender<Option<Hashing>>,
) -> io::Result<()> {
    let mut from = File::open(source)?;
    let found = from.metadata()?;
    let mut to = File::options().write(true).read(true).create_new(true).mode(0o600).open(copy)?;
    let mut done = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = io::copy(&mut io::Read::take(&mut from, STEP), &mut to)?;
        if count == 0 {
            break;
        }
        done += count;
        progress.send_replace(Some(Hashing { path: source.to_owned(), done, total: found.len() }));
    }
    // Some file systems keep none.
    let _ = to.set_permissions(found.permissions());
    if let Ok(modified) = found.modified() {
        let _ = to.set_modified(modified);
    }
    shoal_disk::sync_file(&to)?;
    // So that it is the disk that is read again.
    let _ = rustix::fs::fadvise(&to, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Ends or undoes the moves that a crash interrupted.
///
/// # Errors
/// When the store fails.
pub(crate) async fn recover(store: &Store) -> Result<(), StoreError> {
    for row in store.moves().await? {
        let looked = row.clone();
        let Ok(there) = tokio::task::spawn_blocking(move || There::look(&looked)).await else { continue };
        match next(&row, &there) {
            Next::Wait => {
                tracing::warn!(source = %row.source.display(), "a move cannot be ended: is its drive away?");
                continue;
            }
            Next::End { before, after } => store.moved(&row.source, &row.target, before, after).await?,
            Next::Undo => {}
        }
        let unneeded = match (next(&row, &there), &row.copy) {
            (Next::Undo, Some(copy)) => Some(copy.clone()),
            // Only what was copied whole and not written to since.
            (Next::End { before, after }, Some(_)) if before.modified == after.modified => {
                there.source.map(|_| row.source.clone())
            }
            _ => None,
        };
        if let Some(path) = unneeded
            && !removed(path).await
            && next(&row, &there) == Next::Undo
        {
            // The copy may be on a drive that is away.
            continue;
        }
        tracing::info!(source = %row.source.display(), target = %row.target.display(), "an interrupted move is over");
        store.remove_move(&row.source).await?;
    }
    Ok(())
}

/// What is there of a move.
#[derive(Debug, Clone, Copy)]
struct There {
    source: Option<FileIdentity>,
    target: Option<FileIdentity>,
}

impl There {
    fn look(row: &MoveRecord) -> Self {
        let of = |path: &Path| FileIdentity::of(path).ok();
        Self { source: of(&row.source), target: of(&row.target) }
    }
}

/// What becomes of an interrupted move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The file came to its new place.
    End { before: FileIdentity, after: FileIdentity },
    /// It did not.
    Undo,
    /// Neither can be seen now.
    Wait,
}

fn next(row: &MoveRecord, there: &There) -> Next {
    let came = |expected: &FileIdentity, found: &FileIdentity| {
        // Its time of change is that of the rename.
        FileIdentity { changed: None, ..*expected }.is_still(found)
    };
    match (&row.identity, &there.target, &there.source) {
        (Some(expected), Some(found), source) if came(expected, found) => {
            Next::End { before: source.unwrap_or(*expected), after: *found }
        }
        (_, _, Some(_)) => Next::Undo,
        _ => Next::Wait,
    }
}

/// Removes a file that is not needed any more.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => shoal_disk::sync_folder(path.parent().unwrap_or(Path::new("/"))),
    }
}

/// Removes a file that is not needed any more; gives whether it is gone.
async fn removed(path: PathBuf) -> bool {
    let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
    match removed.map_err(io::Error::other).and_then(|removed| removed) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "what a move left behind stays");
            false
        }
    }
}

fn failed(from: &Path, to: &Path, error: io::Error) -> MoveError {
    MoveError::Failed { from: from.to_owned(), to: to.to_owned(), error }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MoveError> + Send + 'static,
) -> Result<T, MoveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(MoveError::GivenUp))
}

#[cfg(test)]
mod tests;
