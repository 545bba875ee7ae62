//! A download as it is listed.

use std::path::PathBuf;
use std::time::Duration;

use shoal_common::{FileName, GroupName};
use shoal_engine::{Bottleneck, State};

/// A download as it is listed.
#[derive(Debug, Clone)]
pub struct DownloadRow {
    /// How far it came.
    pub state: RowState,
    /// The group.
    pub group: GroupName,
    /// The file.
    pub file: FileName,
    /// Where it goes.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are verified and written.
    pub verified: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// Sources in use.
    pub sources: usize,
    /// Time left at this rate, if anything moves.
    pub eta: Option<Duration>,
    /// What it is doing, while it runs.
    pub activity: Option<(State, Bottleneck)>,
    /// Whether it waits because the user has no ticket for the group that is good now: no tracker gave one.
    pub needs_ticket: bool,
    /// What it waits for while holders are known and none can be asked for pieces: who they are, and why.
    pub waits_for: Option<String>,
    /// What it waits for that is lacking here, in words: space, descriptors, its drive.
    pub waits: Option<String>,
    /// Why it waits for a sharer, where those that share the file said why they cannot serve it.
    pub trouble: Option<String>,
}

/// How far a listed download came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowState {
    /// It runs, or waits for a sharer.
    Downloading,
    /// The file is whole and in its place.
    Complete,
    /// It cannot go on by itself, and why.
    Failed(String),
    /// It was paused.
    Paused,
}

impl DownloadRow {
    /// How much is there, in whole percent; 100 only when it is complete.
    #[must_use]
    pub fn percent(&self) -> u8 {
        match self.state {
            RowState::Complete => 100,
            _ if self.size == 0 => 0,
            _ => {
                let percent = u128::from(self.verified) * 100 / u128::from(self.size);
                u8::try_from(percent).map_or(99, |percent| percent.min(99))
            }
        }
    }
}
