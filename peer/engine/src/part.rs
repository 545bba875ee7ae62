//! A partial file while it is worked on.

use crate::content::Content;
use crate::disk::{Journal, PartFile};

/// A partial file with its content and journal: what writing and digesting work on, the same for all of a download.
#[derive(Debug)]
pub(crate) struct PartContext {
    pub(crate) content: Content,
    pub(crate) part: PartFile,
    pub(crate) journal: Journal,
}
