//! How the files of `shoal up` are written, and who else may write them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use super::typed;

/// What others than the owner may do to a folder that puts them in charge of it.
const OTHERS_WRITE: u32 = 0o022;

/// Writes a file for its owner alone, in one step, so that a crash leaves the old one or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let written = write(path, text);
    written.with_context(|| {
        format!("cannot write {}; make room, or give another folder with --data", path.display())
    })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One that a crash left may have another mode.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    shoal_disk::sync_file(&file)?;
    std::fs::rename(&beside, path)?;
    shoal_disk::sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// A warning, if others may change what is in the folder.
pub(super) fn warning(folder: &Path) -> Option<String> {
    let found = std::fs::metadata(folder).ok()?;
    (found.mode() & OTHERS_WRITE != 0).then(|| {
        let word = typed::word(folder);
        format!(
            "warning: others may write to {}, and so choose your tracker: chmod 700 {word}",
            folder.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_its_owners_alone_whatever_was_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up.json");
        for old in [&path, &path.with_extension("new")] {
            std::fs::write(old, "old").unwrap();
            std::fs::set_permissions(old, PermissionsExt::from_mode(0o666)).unwrap();
        }
        replace(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, warned) in [(0o700, false), (0o755, false), (0o775, true), (0o702, true)] {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(warning(dir.path()).is_some(), warned, "{mode:o}");
        }
    }
}
