//! The context of a partial file.

use crate::content::Content;
use crate::disk::{Journal, PartFile};

/// A partial file with its content and journal: what all writing and digesting jobs of a download work on.
#[derive(Debug)]
pub(crate) struct PartContext {
    pub(crate) content: Content,
    pub(crate) part: PartFile,
    pub(crate) journal: Journal,
}
