//! How the files of `shoal up` are written, and who else may write them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::typed;

/// What others than the owner may do to a folder that puts them in charge of it.
const OTHERS_WRITE: u32 = 0o022;

/// Writes a file for its owner alone, in one step.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    shoal_disk::replace(path, text.as_bytes()).with_context(|| {
        format!("cannot write {}; make room, or give another folder with --data", path.display())
    })
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
    fn a_folder_that_others_may_write_to_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, warned) in [(0o700, false), (0o755, false), (0o775, true), (0o702, true)] {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(warning(dir.path()).is_some(), warned, "{mode:o}");
        }
    }
}
