//! What is known of each share, for its explanation.

use std::path::PathBuf;

use shoal_swarm::FileKey;

use super::health::Standing;
use crate::FileRef;

/// What is known of a share.
#[derive(Debug, Clone)]
pub(crate) struct ShareFacts {
    /// The file.
    pub(crate) key: FileKey,
    /// What it is called.
    pub(crate) file: FileRef,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How it stands; `None` while it is on record and not looked after, because the trackers did not take it.
    pub(crate) standing: Option<Standing>,
    /// How much of it was read, in percent, while it is being read.
    pub(crate) percent: Option<u8>,
    /// Other files that wait to be read.
    pub(crate) waiting: usize,
    /// Why it is not looked after, as far as that is known.
    pub(crate) problem: Option<String>,
}
