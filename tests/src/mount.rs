//! Small disks, and drives that come and go.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

/// A tmpfs or a folder that is mounted, unmounted in any case.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one at a folder that does not exist yet, with these options. Needs root.
    #[must_use]
    pub fn new(at: &Path, options: &str) -> Self {
        std::fs::create_dir(at).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        assert!(status.unwrap().success());
        Self(at.to_owned())
    }

    /// Mounts a folder at another one too, as a drive is mounted. Needs root.
    #[must_use]
    pub fn bind(folder: &Path, at: &Path) -> Self {
        let status = Command::new("mount").arg("--bind").arg(folder).arg(at).status();
        assert!(status.unwrap().success());
        Self(at.to_owned())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to be killed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A number for a file that no other file ever had: file systems give inode numbers of removed files out again, which the kernel
/// takes for stale handles.
pub(crate) fn lasting_number(found: &Metadata) -> u64 {
    let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let nanos = born.map_or(0, |born| u64::try_from(born.as_nanos()).unwrap_or(0));
    (found.ino() ^ nanos.rotate_left(24)).max(2)
}
