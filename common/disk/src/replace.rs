//! A file of the program's own, replaced whole.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::{rename_new, sync_file, sync_folder};

/// What stands before the process's number in the ending of a draft.
const DRAFT: &str = "new-";
/// The ending of drafts of earlier versions.
const EARLIER_DRAFT: &str = "new";

/// Writes a file for its owner alone (0600), whatever was there, in one step: after a crash it is the old one or the new one, and it
/// is durable when this returns. Meanwhile a draft lies beside it, of this process alone.
///
/// # Errors
/// When it cannot be written. What was there stays then, and nothing is left beside it. What a killed process left there is removed by
/// the next call for that file.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_left_drafts(path);
    let draft = path.with_extension(format!("{DRAFT}{}", std::process::id()));
    let written = (|| {
        // One that a process of this number left may have another mode.
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        sync_file(&file)?;
        std::fs::rename(&draft, path)?;
        sync_folder(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    })();
    if written.is_err() {
        // Its space may be what lacks.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

/// Removes drafts of processes that are gone.
fn remove_left_drafts(path: &Path) {
    let gone = |process: &Option<Pid>| {
        process.is_some_and(|process| rustix::process::test_kill_process(process) == Err(Errno::SRCH))
    };
    for (draft, _) in with_processes(path).into_iter().filter(|(_, process)| gone(process)) {
        let _ = std::fs::remove_file(&draft);
    }
}

/// What [`replace`] has beside a file: what is being written, or what killed processes left, also those of earlier versions.
#[must_use]
pub fn drafts(path: &Path) -> Vec<PathBuf> {
    let found = with_processes(path).into_iter().filter(|(draft, process)| {
        process.is_some() || draft.extension().is_some_and(|ending| ending == EARLIER_DRAFT)
    });
    found.map(|(draft, _)| draft).collect()
}

/// The files beside a file whose names differ in their endings alone, each with the process that writes it if it is a draft.
fn with_processes(path: &Path) -> Vec<(PathBuf, Option<Pid>)> {
    let (Some(parent), Some(stem)) = (path.parent(), path.file_stem()) else { return Vec::new() };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let process =
        |draft: &Path| draft.extension()?.to_str()?.strip_prefix(DRAFT)?.parse().ok().and_then(Pid::from_raw);
    entries
        .filter(|other| other.file_stem() == Some(stem))
        .map(|draft| (draft.clone(), process(&draft)))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_file_is_its_owners_alone_whatever_was_left_in_its_place_or_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session.key");
        let draft = path.with_extension(format!("{DRAFT}{}", std::process::id()));
        for old in [&path, &draft] {
            std::fs::write(old, "an old and longer one").unwrap();
            std::fs::set_permissions(old, PermissionsExt::from_mode(0o666)).unwrap();
        }
        for bytes in [&b"one"[..], b"another"] {
            replace(&path, bytes).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
            assert!(!draft.exists());
        }
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::fs::write(dir.path().join("folder/inside"), "").unwrap();
        assert!(replace(&dir.path().join("folder"), b"three").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        let mut killed = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let left = dir.path().join(format!("kept.new-{}", killed.id()));
        let others = ["kept.new-x", "kept.new", "other.new-1"].map(|name| dir.path().join(name));
        for file in others.iter().chain([&left]) {
            std::fs::write(file, "").unwrap();
        }
        replace(&path, b"one").unwrap();
        assert!(left.exists(), "its process runs");
        let mut found = drafts(&path);
        found.sort();
        assert_eq!(found, [others[1].clone(), left.clone()]);
        killed.kill().unwrap();
        killed.wait().unwrap();
        replace(&path, b"two").unwrap();
        assert!(!left.exists());
        assert!(others.iter().all(|other| other.exists()));
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
