//! A download as it is listed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use shoal_common::{FileName, GroupName};
use shoal_engine::{Bottleneck, Phase};

use crate::priority::Priority;
use crate::results::lossy;

/// How many files of a folder are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FilesRow {
    /// Those that are whole, right, and have their names; absent where that is not known now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Those that are fetched.
    pub chosen: u64,
    /// All in the folder.
    pub all: u64,
}

/// A download as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct DownloadRow {
    /// How far it came.
    #[serde(flatten)]
    pub state: RowState,
    /// The group.
    pub group: GroupName,
    /// The file.
    pub file: FileName,
    /// How much is there, in whole percent; 100 only when it is complete.
    pub percent: u8,
    /// Bytes per second now.
    pub rate: u64,
    /// Sources in use.
    pub sources: usize,
    /// Where it goes.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Bytes that are fetched in all: the size of the file, or of the chosen files of a folder.
    #[serde(skip)]
    pub size: u64,
    /// Bytes that are verified and written.
    #[serde(skip)]
    pub verified: u64,
    /// Time left at this rate, if anything moves.
    #[serde(skip)]
    pub eta: Option<Duration>,
    /// What it does, what it waits for, or what keeps it from being faster, in words; while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// Its place in the queue while it waits for its turn, 1 for the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<usize>,
    /// How urgent it is.
    #[serde(skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// Its own limit in bytes per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Of a folder, how many of its files are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesRow>,
    /// Whether a rate limit, its own or that of all downloads, is what keeps it from being faster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub speed_limited: bool,
}

/// How far a listed download came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "error")]
pub enum RowState {
    /// It runs, or waits for a sharer.
    #[serde(rename = "D")]
    Downloading,
    /// The file is whole and in its place.
    #[serde(rename = "C")]
    Complete,
    /// It cannot go on by itself, and why.
    #[serde(rename = "F")]
    Failed(String),
    /// It was paused.
    #[serde(rename = "P")]
    Paused,
}

impl RowState {
    /// The letter that stands for it.
    #[must_use]
    pub fn letter(&self) -> char {
        match self {
            Self::Downloading => 'D',
            Self::Complete => 'C',
            Self::Failed(_) => 'F',
            Self::Paused => 'P',
        }
    }
}

/// How much of a file is there, in whole percent; 100 only when the download is complete.
pub(super) fn percent(state: &RowState, verified: u64, size: u64) -> u8 {
    match state {
        RowState::Complete => 100,
        _ if size == 0 => 0,
        _ => {
            let percent = u128::from(verified) * 100 / u128::from(size);
            u8::try_from(percent).map_or(99, |percent| percent.min(99))
        }
    }
}

/// Why a download has no source to ask for pieces.
#[derive(Debug, Default)]
pub(super) struct NoSource {
    /// The user has no ticket for the group that is good now: no tracker gave one.
    pub(super) needs_ticket: bool,
    /// Which holders are known, and why none can be asked.
    pub(super) waits_for: Option<String>,
}

/// What the engine does with a download, in words.
pub(super) fn activity(phase: Phase, limit: Bottleneck, sources: usize, lack: NoSource) -> Option<String> {
    let words = match (phase, limit) {
        (Phase::Opening, _) => "opening",
        (Phase::Waiting, _) if lack.needs_ticket => "waiting for a ticket from a tracker",
        (Phase::Waiting, limit) => match lack {
            NoSource { waits_for: Some(words), .. } if sources == 0 => return Some(words),
            _ if limit == Bottleneck::SourcesBusy => "its sources are busy",
            _ if sources == 0 => "waiting for a sharer",
            _ => "waiting for pieces",
        },
        (Phase::Checking, _) => "checking",
        (Phase::Finishing, _) => "finishing",
        (Phase::Downloading, Bottleneck::RateLimit) => "at the rate limit",
        (Phase::Downloading, Bottleneck::Disk) => "limited by the disk",
        (Phase::Downloading, Bottleneck::Sources) => "limited by its sources",
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_100_only_when_complete() {
        assert_eq!(percent(&RowState::Downloading, 10, 10), 99);
        assert_eq!(percent(&RowState::Complete, 10, 10), 100);
        assert_eq!(percent(&RowState::Paused, 0, 0), 0);
        assert_eq!(percent(&RowState::Paused, 5, 10), 50);
    }

    #[test]
    fn a_download_says_what_it_does() {
        let none = NoSource::default;
        let ticket = || NoSource { needs_ticket: true, ..none() };
        for (phase, limit, sources, lack, words) in [
            (Phase::Checking, Bottleneck::Idle, 2, none(), "checking"),
            (Phase::Waiting, Bottleneck::NoSource, 0, none(), "waiting for a sharer"),
            (Phase::Waiting, Bottleneck::NoSource, 0, ticket(), "waiting for a ticket from a tracker"),
            (Phase::Waiting, Bottleneck::NoSource, 2, none(), "waiting for pieces"),
            (Phase::Waiting, Bottleneck::SourcesBusy, 2, none(), "its sources are busy"),
            (Phase::Downloading, Bottleneck::Disk, 2, none(), "limited by the disk"),
            (Phase::Downloading, Bottleneck::RateLimit, 2, none(), "at the rate limit"),
        ] {
            assert_eq!(activity(phase, limit, sources, lack).as_deref(), Some(words));
        }
    }

    #[test]
    fn a_waiting_download_says_for_whom() {
        let words = "ann cannot be reached at 127.0.0.1:1 (it refuses connections)";
        let unreachable = |sources, needs_ticket| {
            let lack = NoSource { waits_for: Some(words.into()), needs_ticket };
            activity(Phase::Waiting, Bottleneck::NoSource, sources, lack).unwrap()
        };
        assert_eq!(unreachable(0, false), words);
        assert_eq!(unreachable(0, true), "waiting for a ticket from a tracker");
        assert_eq!(unreachable(1, false), "waiting for pieces");
    }
}
