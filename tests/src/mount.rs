//! Small disks, and drives that come and go.

use std::path::{Path, PathBuf};
use std::process::Command;

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
