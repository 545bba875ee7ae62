//! What the binaries ask of the disk: room, and files that are replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
/// When it cannot be written; the file is as before then, and nothing is left beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
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
}
