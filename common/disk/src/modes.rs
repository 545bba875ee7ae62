//! Permissions of files, and file systems that have none.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lost::Lost;

/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// Whether others may read this file by its owner's fault. Where the file system gives every file the same permissions (FAT,
/// exFAT, SMB), nobody can take them away: that is said once, and the file is used.
#[must_use]
pub fn is_exposed(path: &Path, found: &Metadata) -> bool {
    if found.mode() & OTHERS == 0 {
        return false;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let kept = keeps_modes(folder.unwrap_or(Path::new(".")));
    if !kept {
        warn_of_modes(path, "all files have the same permissions");
    }
    kept
}

/// Says, once, that a file cannot be kept from others.
pub fn warn_of_modes(path: &Path, reason: &str) {
    Lost::Modes.warn(|| format!("{}: {reason}", path.display()));
}

/// Whether a new file can be kept from others there. Where none can be made, it is taken as kept: the strict answer.
fn keeps_modes(folder: &Path) -> bool {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let probe = folder.join(format!(".shoal-mode-{}-{number}", std::process::id()));
    let made = File::options().write(true).create_new(true).mode(0o600).open(&probe);
    let Ok(file) = made else { return true };
    let kept = file.metadata().map_or(true, |found| found.mode() & OTHERS == 0);
    let _ = fs::remove_file(&probe);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_may_read_is_exposed_where_it_need_not_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true)] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_exposed(&path, &path.metadata().unwrap()), exposed, "{mode:o}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no probe is left");
    }
}
