//! The folder in which one tracker keeps its key, its database and its log: its owner's alone, and locked while it runs.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use shoal_console::data_dir::DataDir;
use shoal_net::Identity;

/// What others than the owner may do, in a mode.
const OTHERS: u32 = 0o077;

/// Makes the folder, readable by its owner only, if there is none; one that is there stays as it is.
///
/// # Errors
/// In words: it cannot be made.
pub fn make(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the data directory {}; give another --data-dir", dir.display()))
}

/// The tracker's key, which is made if there is none.
///
/// # Errors
/// When its file cannot be used.
pub fn identity(dir: &Path) -> Result<Identity> {
    Ok(Identity::load_or_create(&dir.join("identity.key"))?)
}

/// Locks the folder, and warns where others can look into it.
pub(crate) fn lock(dir: &Path) -> Result<DataDir> {
    let held = DataDir::open(dir)?;
    if dir.metadata().is_ok_and(|found| found.mode() & OTHERS != 0) {
        let shown = dir.display();
        tracing::warn!("others can look into the data directory {shown}; run: chmod 700 {shown}");
    }
    Ok(held)
}
