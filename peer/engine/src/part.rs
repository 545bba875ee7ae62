//! The context of a partial file.

use crate::content::Content;
use crate::disk::{Journal, Part};

/// A partial file with its content and journal: what all writing and digesting jobs of a download work on.
#[derive(Debug)]
pub(crate) struct PartContext {
    pub(crate) content: Content,
    pub(crate) part: Part,
    pub(crate) journal: Journal,
}
