//! A file of the program's own, replaced whole.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{rename_new, sync_file, sync_folder};

/// Writes a file for its owner alone (0600), whatever was there, in one step: after a crash it is the old one or the new one, and it
/// is durable when this returns. Meanwhile it lies [`beside`] its place.
///
/// # Errors
/// When it cannot be written. What was there stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path);
    // One that a crash left may have another mode.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    sync_file(&file)?;
    std::fs::rename(&beside, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a new file for its owner alone (0600), durable when this returns. It replaces nothing, and has its name only once it is whole.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something of that name; else what the system says. Then nothing is left.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = parent.join(format!(".shoal-new-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        sync_file(&file)?;
        rename_new(&draft, path)?;
        sync_folder(parent)
    };
    // A process of this number may have been killed here before.
    let _ = std::fs::remove_file(&draft);
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&draft);
    })
}

/// Where a file lies while [`replace`] writes it; a crash may leave it there.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_file_is_its_owners_alone_whatever_was_left_in_its_place_or_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.key");
        for old in [&path, &beside(&path)] {
            std::fs::write(old, "an old and longer one").unwrap();
            std::fs::set_permissions(old, PermissionsExt::from_mode(0o666)).unwrap();
        }
        for bytes in [&b"one"[..], b"another"] {
            replace(&path, bytes).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
            assert!(!beside(&path).exists());
        }
    }

    #[test]
    fn a_new_file_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        create(&path, b"one").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(create(&path, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert!(create(&dir.path().join("none/export"), b"one").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left");
    }
}
