//! Marks in a data folder in which no client may start: its client moved to another machine, or an import was cut off.

use std::io;
use std::path::Path;

use shoal_session::text;

use super::ArchiveError;

/// Where the client went: the path of the export.
pub(super) const MOVED: &str = "moved";
/// An import has begun, and not ended.
const IMPORTING: &str = "importing";
/// Bytes that are read of a mark.
const MAX_BYTES: u64 = 8_192;

/// Whether a client may start in this data folder.
///
/// # Errors
/// When one must not, with what to do.
pub fn check(folder: &Path) -> Result<(), ArchiveError> {
    if is_importing(folder) {
        return Err(ArchiveError::Unfinished(folder.to_owned()));
    }
    let mark = folder.join(MOVED);
    match shoal_console::read_input(&mark, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // What cannot be read is there all the same.
        read => {
            let export = String::from_utf8_lossy(&read.unwrap_or_default()).trim().to_owned();
            Err(ArchiveError::Moved { export: text::printable(&export), mark })
        }
    }
}

/// From now on no client starts here.
pub(super) fn moved(folder: &Path, export: &Path) -> Result<(), ArchiveError> {
    let export = std::path::absolute(export).unwrap_or_else(|_| export.to_owned());
    super::put(&folder.join(MOVED), format!("{}\n", export.display()).as_bytes())
}

/// An import begins.
pub(super) fn begin_import(folder: &Path) -> Result<(), ArchiveError> {
    super::put(&folder.join(IMPORTING), b"")
}

/// An import came to its end.
pub(super) fn end_import(folder: &Path) -> Result<(), ArchiveError> {
    super::remove(&folder.join(IMPORTING))?;
    let written = |error| ArchiveError::Write { path: folder.to_owned(), error };
    shoal_disk::sync_folder(folder).map_err(written)
}

/// Whether an import began and did not end.
pub(super) fn is_importing(folder: &Path) -> bool {
    folder.join(IMPORTING).symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_client_moved_or_is_not_whole_starts_none() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        begin_import(dir.path()).unwrap();
        assert!(matches!(check(dir.path()), Err(ArchiveError::Unfinished(_))));
        end_import(dir.path()).unwrap();
        check(dir.path()).unwrap();
        moved(dir.path(), Path::new("/backup/a\u{1b}[2J")).unwrap();
        let said = check(dir.path()).unwrap_err().to_string();
        assert!(said.contains("/backup/a") && said.contains("remove") && !said.contains('\u{1b}'), "{said}");
        std::fs::remove_file(dir.path().join(MOVED)).unwrap();
        check(dir.path()).unwrap();
    }
}
