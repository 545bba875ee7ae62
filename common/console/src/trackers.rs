//! The file that names the trackers.

use std::path::Path;

use anyhow::Context;
use shoal_common::{TrackerInfo, tracker_info};

use crate::read_text;

/// Reads the file that names the trackers.
///
/// # Errors
/// When it cannot be read, or a line of it is wrong.
pub fn read_trackers(path: &Path) -> anyhow::Result<TrackerInfo> {
    let shown = path.display();
    let text = read_text(path, tracker_info::MAX_FILE_BYTES)
        .with_context(|| format!("cannot read the tracker file {shown}"))?;
    TrackerInfo::parse(&text).with_context(|| format!("the tracker file {shown} cannot be used"))
}
