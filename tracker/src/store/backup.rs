//! Copies the database on a connection of its own, beside the database thread, so that no client waits.
//!
//! A backup never replaces a file, least of all one that the running tracker uses. It gets its name only when it is complete,
//! outside the data directory, and only if there is no such file.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;

use super::StoreError;
use super::inspect::open;

/// Pages copied at a time: writers go on in between.
const PAGES: i32 = 1_024;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something has that name.
    #[error("{} exists already; name another file or remove it", .0.display())]
    Exists(PathBuf),
    /// A folder has that name.
    #[error("{} is a folder; name a file in it, for example {}", .0.display(), .0.join("tracker.db").display())]
    Folder(PathBuf),
    /// Nothing has the name of the folder that it should be in.
    #[error("there is no folder {}; make it first or name a file in another one", .0.display())]
    NoFolder(PathBuf),
    /// It would be lost together with the database.
    #[error("{} is in this tracker's data directory; name a file elsewhere, best on another disk", .0.display())]
    Inside(PathBuf),
    /// The folder cannot be written to.
    #[error("cannot write to the folder {}: {error}; correct that, or name a file in another one", .folder.display())]
    Unwritable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The database, or the copy of it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Writes a copy of the database of a data directory to the new file `to`, readable by its owner only, as of some moment
/// while it runs.
///
/// # Errors
/// [`BackupError`]; then there is no `to`, and nothing is left beside it.
pub fn back_up(dir: &Path, to: &Path) -> Result<(), BackupError> {
    let folder = check(dir, to)?;
    let unwritable = |error| BackupError::Unwritable { folder: folder.clone(), error };
    let draft = tempfile::Builder::new().prefix(".shoal-backup-").tempfile_in(&folder).map_err(unwritable)?;
    let from = open(dir)?;
    {
        let mut copy = shoal_disk::sqlite::open(draft.path())?;
        Backup::new(&from, &mut copy)?.run_to_completion(PAGES, Duration::from_millis(1), None)?;
        // One file without a log beside it, so that it is put back whole.
        copy.execute_batch("PRAGMA journal_mode = DELETE;")?;
        // Without a mark a database that is put back differs from the one used last, even during the same start.
        super::start::unmark(&copy)?;
    }
    shoal_disk::sync_file(draft.as_file()).map_err(unwritable)?;
    let draft = draft.into_temp_path();
    shoal_disk::rename_new(&draft, to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => unwritable(error),
    })?;
    // It has another name now.
    let _ = draft.keep();
    shoal_disk::sync_folder(&folder).map_err(unwritable)
}

/// The folder that a backup named `to` goes into.
fn check(dir: &Path, to: &Path) -> Result<PathBuf, BackupError> {
    let parent = match to.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        // The root.
        None => return Err(BackupError::Folder(to.to_owned())),
    };
    let dir =
        dir.canonicalize().map_err(|error| BackupError::Unwritable { folder: dir.to_owned(), error })?;
    if [to, parent].iter().any(|path| path.canonicalize().is_ok_and(|path| path.starts_with(&dir))) {
        return Err(BackupError::Inside(to.to_owned()));
    }
    if to.is_dir() {
        return Err(BackupError::Folder(to.to_owned()));
    }
    if to.as_os_str().as_bytes().ends_with(b"/") {
        return Err(BackupError::NoFolder(to.to_owned()));
    }
    // A link to nowhere is there, too.
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    if parent.is_dir() { Ok(parent.to_owned()) } else { Err(BackupError::NoFolder(parent.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::Store;
    use super::*;

    #[test]
    fn a_backup_is_a_new_file_of_its_owner_outside_the_data_directory() {
        let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _store = Store::open(data.path()).unwrap();
        let at = |name: &str| other.path().join(name);
        back_up(data.path(), &at("first")).unwrap();
        assert_eq!(at("first").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::create_dir(at("folder")).unwrap();
        symlink(at("nowhere"), at("link")).unwrap();
        symlink(data.path(), at("data")).unwrap();
        symlink(data.path().join("tracker.db"), at("database")).unwrap();
        let before = std::fs::read(data.path().join("tracker.db")).unwrap();
        for (to, said) in [
            (at("first"), "exists already"),
            (at("link"), "exists already"),
            (at("folder"), "is a folder; name a file in it"),
            (at("folder/"), "is a folder; name a file in it"),
            (at("folder/.."), "is a folder; name a file in it"),
            (at("new/"), "there is no folder"),
            (at("new/file"), "there is no folder"),
            (at("first/file"), "there is no folder"),
            (at("data/file"), "data directory"),
            (at("data"), "data directory"),
            (at("database"), "data directory"),
            (data.path().join("tracker.db"), "data directory"),
            (data.path().join("identity.key"), "data directory"),
            ("/".into(), "is a folder"),
        ] {
            let error = back_up(data.path(), &to).unwrap_err().to_string();
            assert!(error.contains(said), "{}: {error}", to.display());
        }
        assert_eq!(std::fs::read(data.path().join("tracker.db")).unwrap(), before);
        let mut left: Vec<_> =
            std::fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["data", "database", "first", "folder", "link"]);
    }
}
