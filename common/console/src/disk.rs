//! What the binaries ask of the disk: room, and files that are replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

/// What stands before the process's number in the ending of a draft.
const DRAFT: &str = "new-";

/// Bytes that this process may still write where `path` is; `None` if the file system does not say. Blocks on the disk.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    if disk.f_blocks == 0 {
        // File systems in user space may know nothing of their space.
        return None;
    }
    // Others cannot use what is reserved for root.
    let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    Some(blocks.saturating_mul(disk.f_frsize))
}

/// Replaces a file as a whole, durably, by one that its owner only can read. Blocks on the disk.
///
/// # Errors
/// When it cannot be written; the file is as before then, and nothing is left beside it. What a killed process left there is removed by
/// the next one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_left_drafts(path);
    let draft = path.with_extension(format!("{DRAFT}{}", std::process::id()));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        shoal_disk::sync_file(&file)?;
        fs::rename(&draft, path)?;
        shoal_disk::sync_folder(path.parent().unwrap_or(Path::new(".")))
    })();
    if written.is_err() {
        // Its space may be what lacks.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Removes drafts of processes that are gone.
fn remove_left_drafts(path: &Path) {
    let (Some(parent), Some(stem)) = (path.parent(), path.file_stem()) else { return };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for draft in entries.flatten().map(|entry| entry.path()).filter(|other| other.file_stem() == Some(stem)) {
        let ending = draft.extension().and_then(|ending| ending.to_str());
        let process = ending.and_then(|ending| ending.strip_prefix(DRAFT)?.parse().ok());
        let gone = |process| rustix::process::test_kill_process(process) == Err(Errno::SRCH);
        if process.and_then(Pid::from_raw).is_some_and(gone) {
            let _ = fs::remove_file(&draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::create_dir(dir.path().join("folder")).unwrap();
        fs::write(dir.path().join("folder/inside"), "").unwrap();
        assert!(replace(&dir.path().join("folder"), b"three").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
        assert!(free_bytes(dir.path()).is_some_and(|free| free > 0));
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        let mut killed = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let left = dir.path().join(format!("kept.new-{}", killed.id()));
        let others = ["kept.new-x", "kept.new", "other.new-1"].map(|name| dir.path().join(name));
        for file in others.iter().chain([&left]) {
            fs::write(file, "").unwrap();
        }
        replace(&path, b"one").unwrap();
        assert!(left.exists(), "its process runs");
        killed.kill().unwrap();
        killed.wait().unwrap();
        replace(&path, b"two").unwrap();
        assert!(!left.exists());
        assert!(others.iter().all(|other| other.exists()));
    }
}
