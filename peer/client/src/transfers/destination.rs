//! Where a download may go: a folder or a file path that exists or can, and never over a different file unless that was
//! asked for.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use shoal_common::{FileName, Manifest};
use shoal_engine::regular;
use shoal_engine::{DiskError, Overwrite, Shortage, Target};
use tokio::sync::watch;

use super::TransferError;
use crate::FileRef;
use crate::hashing::{Hashing, hash};
use crate::store::DownloadRecord;

/// Why a download cannot go there.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// The folder does not exist, or is none.
    #[error("{} is not a folder; make it first, or choose another destination (one that ends in / is made)", .0.display())]
    NoFolder(PathBuf),
    /// Something else than a file is there.
    #[error("{} is not a file and cannot be replaced; choose another destination", .0.display())]
    NotAFile(PathBuf),
    /// A different file is there.
    #[error("{} exists and is a different file; choose another destination, or give --overwrite to replace it (what is right \
             in it is not fetched again)", .0.display())]
    Exists(PathBuf),
    /// Something else than a folder is where a folder is to go.
    #[error("{} exists already and is no folder; choose another destination, or move it away", .0.display())]
    FolderInTheWay(PathBuf),
    /// Another download goes there.
    #[error("{} is where {} of {} is being downloaded to; choose another destination", .path.display(), .file.file, .file.group)]
    Taken {
        /// The path.
        path: PathBuf,
        /// What goes there.
        file: FileRef,
    },
    /// It cannot be looked at, or what an unfinished download left cannot be removed.
    #[error("cannot use {}: {problem}", .path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        problem: String,
        /// What is lacking, if that may pass.
        shortage: Option<Shortage>,
    },
    /// The partial file of a download that has verified pieces is not there.
    #[error("the partial file {} is not there; mount its drive", .0.display())]
    NoPartial(PathBuf),
    /// The engine cannot clear it.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl DestinationError {
    /// What is lacking, if that may pass by itself.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::NoFolder(path) => Some(Shortage::folder(path)),
            Self::Unusable { shortage, .. } => shortage.clone(),
            Self::NoPartial(path) => Some(Shortage::partial(path)),
            Self::Disk(error) => error.shortage(),
            Self::NotAFile(_) | Self::Exists(_) | Self::FolderInTheWay(_) | Self::Taken { .. } => None,
        }
    }

    pub(super) fn unusable(path: &Path, error: &std::io::Error) -> Self {
        let shortage = Shortage::of(error, path.parent().unwrap_or(path));
        Self::Unusable { path: path.to_owned(), problem: error.to_string(), shortage }
    }
}

/// A destination that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// Nothing is there.
    New(PathBuf),
    /// Another file is there, and may be replaced.
    Replace(PathBuf),
    /// The very file is there.
    Identical(PathBuf),
}

impl Destination {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::New(path) | Self::Replace(path) | Self::Identical(path) => path,
        }
    }
}

/// What is at a path.
enum Found {
    Nothing,
    File { size: u64 },
    Other,
}

/// Makes a path of what the user typed, and finds out what is there. A file of the right size is read and compared.
pub(super) async fn check(
    typed: PathBuf,
    manifest: &Manifest,
    overwrite: bool,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<Destination, TransferError> {
    let path = resolved(typed, manifest.name.clone()).await?;
    let looked = path.clone();
    match blocking(move || look(&looked)).await? {
        Found::Nothing => Ok(Destination::New(path)),
        Found::Other => Err(DestinationError::NotAFile(path).into()),
        Found::File { size } if size == manifest.size && is_identical(&path, manifest, progress).await? => {
            Ok(Destination::Identical(path))
        }
        Found::File { .. } if overwrite => Ok(Destination::Replace(path)),
        Found::File { .. } => Err(DestinationError::Exists(path).into()),
    }
}

/// The path that a user typed, whole: within a folder under the file's own name.
pub(super) async fn resolved(typed: PathBuf, name: FileName) -> Result<PathBuf, DestinationError> {
    blocking(move || resolve(&typed, &name)).await
}

/// Removes what an unfinished download left at this path.
pub(super) async fn discard(path: PathBuf, overwrite: bool) -> Result<(), DestinationError> {
    blocking(move || Ok(target(path, overwrite).discard()?)).await
}

/// Fails unless there is a partial file for this path. Otherwise a download that has verified pieces would silently begin
/// again in the empty folder that an unmounted drive leaves.
pub(super) async fn must_have_partial(path: PathBuf, overwrite: bool) -> Result<(), DestinationError> {
    blocking(move || {
        let target = target(path, overwrite);
        if target.has_partial()? { Ok(()) } else { Err(DestinationError::NoPartial(target.part_path())) }
    })
    .await
}

/// Where a download goes on if a folder appeared in its place: into that folder, with what is there of it.
pub(super) async fn inside_folder(
    path: &Path,
    name: &FileName,
    overwrite: bool,
) -> Result<Option<PathBuf>, DestinationError> {
    let (path, inside) = (path.to_owned(), path.join(name.as_str()));
    blocking(move || {
        if !path.is_dir() {
            return Ok(None);
        }
        target(path, overwrite).move_partial(&target(inside.clone(), overwrite))?;
        Ok(Some(inside))
    })
    .await
}

/// A download was begun again to another place: what is there of it goes along, or is removed where that cannot be or where
/// it is not needed.
pub(super) async fn take_along(before: &DownloadRecord, record: &DownloadRecord, needed: bool) {
    let old = target(before.path.clone(), before.overwrite);
    let new = target(record.path.clone(), record.overwrite);
    let done =
        blocking(move || if needed && old.move_partial(&new).is_ok() { Ok(()) } else { Ok(old.discard()?) });
    if let Err(error) = done.await {
        tracing::warn!(%error, path = %before.path.display(), "what an earlier download left stays");
    }
}

/// Whether the folder is there, and no partial file for this path.
pub(super) async fn is_without_partial(path: PathBuf, overwrite: bool) -> bool {
    let looked = blocking(move || {
        let folder = path.parent().is_some_and(Path::is_dir);
        Ok(folder && !target(path, overwrite).has_partial()?)
    });
    // What cannot be looked at now is waited for.
    looked.await.unwrap_or(false)
}

/// The engine's name for this destination.
pub(super) fn target(path: PathBuf, overwrite: bool) -> Target {
    Target::new(path, if overwrite { Overwrite::Replace } else { Overwrite::Refuse })
}

async fn is_identical(
    path: &Path,
    manifest: &Manifest,
    progress: &watch::Sender<Option<Hashing>>,
) -> Result<bool, TransferError> {
    Ok(hash(path.to_owned(), progress).await?.digest == manifest.digest())
}

/// The file's path: within a folder under the file's own name, which is one component of a path by its type. A folder that is
/// meant, because the path ends in a slash, is made.
fn resolve(typed: &Path, name: &FileName) -> Result<PathBuf, DestinationError> {
    let absolute = std::path::absolute(typed).map_err(|error| DestinationError::unusable(typed, &error))?;
    let absolute = regular::found(&absolute);
    if absolute.is_dir() {
        return Ok(regular::found(&absolute.join(name.as_str())));
    }
    if typed.as_os_str().as_encoded_bytes().ends_with(b"/") {
        // It was meant to be a folder; one that is there already is none of ours.
        std::fs::create_dir_all(&absolute).map_err(|error| match error.kind() {
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                DestinationError::NoFolder(absolute.clone())
            }
            _ => DestinationError::unusable(&absolute, &error),
        })?;
        return Ok(absolute.join(name.as_str()));
    }
    match absolute.parent() {
        _ if absolute.file_name().is_none() => Err(DestinationError::NoFolder(absolute)),
        Some(parent) if !parent.is_dir() => Err(DestinationError::NoFolder(parent.to_owned())),
        _ => Ok(absolute),
    }
}

fn look(path: &Path) -> Result<Found, DestinationError> {
    // A link that leads nowhere is in the way, too.
    match std::fs::metadata(path).or_else(|_| std::fs::symlink_metadata(path)) {
        Ok(found) if found.is_file() => Ok(Found::File { size: found.len() }),
        Ok(_) => Ok(Found::Other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) if shoal_disk::is_about_name(&error) => Err(DiskError::Name(path.to_owned()).into()),
        Err(error) => Err(DestinationError::unusable(path, &error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DestinationError> + Send + 'static,
) -> Result<T, DestinationError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| {
        let problem = stopped.to_string();
        Err(DestinationError::Unusable { path: PathBuf::new(), problem, shortage: None })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{FileHasher, Layout, Sha1};

    fn manifest(content: &[u8]) -> Manifest {
        let mut hasher = FileHasher::default();
        hasher.update(content);
        let layout = Layout::for_size(content.len() as u64).unwrap();
        let pieces: Vec<Sha1> = content.chunks(layout.piece_length() as usize).map(Sha1::of).collect();
        Manifest::new(FileName::create("a.bin").unwrap(), layout, &pieces, hasher.finish(), vec![]).0
    }

    async fn place(path: PathBuf, overwrite: bool) -> Result<Destination, String> {
        let progress = watch::Sender::new(None);
        check(path, &manifest(b"content"), overwrite, &progress).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn folders_and_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::path::absolute(folder.path()).unwrap();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::create_dir(root.join("a.bin")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("link")).unwrap();
        assert_eq!(place(root.join("sub"), false).await, Ok(Destination::New(root.join("sub/a.bin"))));
        assert_eq!(place(root.join("sub/"), false).await, Ok(Destination::New(root.join("sub/a.bin"))));
        assert_eq!(
            place(root.join("two/new/"), false).await,
            Ok(Destination::New(root.join("two/new/a.bin")))
        );
        std::fs::write(root.join("file"), b"").unwrap();
        assert_eq!(place(root.join("new"), false).await, Ok(Destination::New(root.join("new"))));
        for (path, expected) in [
            (root.join("file/"), "is not a folder"),
            (root.join("file/sub/"), "is not a folder"),
            (root.join("no/file"), "is not a folder"),
            (root.clone(), "is not a file"),
            (root.join("link"), "is not a file"),
            (root.join("x".repeat(300)), "is no name"),
        ] {
            let error = place(path.clone(), true).await.unwrap_err();
            assert!(error.contains(expected), "{}: {error}", path.display());
        }
    }

    #[tokio::test]
    async fn what_is_there_is_kept_unless_it_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::path::absolute(folder.path()).unwrap().join("f");
        std::fs::write(&path, b"content").unwrap();
        assert_eq!(place(path.clone(), false).await, Ok(Destination::Identical(path.clone())));
        for other in [b"CONTENT".as_slice(), b"longer content"] {
            std::fs::write(&path, other).unwrap();
            assert!(place(path.clone(), false).await.unwrap_err().contains("--overwrite"));
            assert_eq!(place(path.clone(), true).await, Ok(Destination::Replace(path.clone())));
        }
    }
}
