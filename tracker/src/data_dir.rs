//! The folder with one tracker's key, database and log. Only its owner may use it, and it is locked while the tracker runs.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};
use shoal_console::data_dir::DataDir;
use shoal_net::Identity;

/// Makes the folder, readable by its owner only, unless it exists.
///
/// # Errors
/// In words: it cannot be made.
pub fn make(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the data directory {}; give another --data-dir", dir.display()))
}

/// The tracker's key; made if there is none.
///
/// # Errors
/// When its file cannot be used.
pub fn identity(dir: &Path) -> Result<Identity> {
    Ok(Identity::load_or_create(&dir.join("identity.key"))?)
}

/// Locks the folder, and warns if others can look into it.
pub(crate) fn lock(dir: &Path) -> Result<DataDir> {
    let held = DataDir::open(dir)?;
    // A file in it stands for it: on some file systems all have the same permissions.
    if dir.metadata().is_ok_and(|found| shoal_disk::is_exposed(&dir.join("identity.key"), &found)) {
        let shown = dir.display();
        tracing::warn!("others can look into the data directory {shown}; run: chmod 700 {shown}");
    }
    Ok(held)
}
