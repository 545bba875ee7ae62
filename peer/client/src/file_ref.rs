//! What a command names.

use serde::Serialize;
use shoal_common::{FileName, GroupName};

/// A file of a group, by names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRef {
    /// The group.
    pub group: GroupName,
    /// The file.
    pub file: FileName,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To others.
    Up,
    /// From others.
    Down,
}
