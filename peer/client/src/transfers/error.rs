//! Why a download did not begin or did not change, in words for the user.

use std::path::PathBuf;

use shoal_common::manifest::ManifestError;
use shoal_common::{FileName, Manifest};
use shoal_engine::hash::HashError;
use shoal_engine::{ContentError, Shortage};

use super::{DestinationError, MoveError};
use crate::FileRef;
use crate::store::{DownloadState, StoreError};
use crate::taking::ChoiceError;
use shoal_session::CallError;

/// Why a download did not begin, or was not found.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Nobody is logged in.
    #[error("nobody is logged in; log in with: login <user_id>")]
    NotLoggedIn,
    /// The trackers refused, or none answers.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The destination cannot be used.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is at the destination cannot be compared with the file.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The file's metadata contradicts itself.
    #[error("the metadata of {file} contradicts itself ({problem}); ask who shared it to share it again")]
    Metadata {
        /// The file.
        file: FileName,
        /// What is wrong.
        problem: String,
    },
    /// The file is being downloaded already.
    #[error("{} of {} is being downloaded already, to {}", .file.file, .file.group, .path.display())]
    Running {
        /// The file.
        file: FileRef,
        /// Where it goes.
        path: PathBuf,
    },
    /// There is no such download.
    #[error("there is no download of {} in {}; show_downloads lists them", .0.file, .0.group)]
    Unknown(FileRef),
    /// It is in no state for that.
    #[error("the download of {} is {state} and cannot be {wish}", .file.file)]
    State {
        /// The file.
        file: FileRef,
        /// What it is.
        state: &'static str,
        /// What was asked for.
        wish: &'static str,
    },
    /// What was chosen in a folder cannot be.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// It is not moved.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// The engine ended it at once.
    #[error("{0}")]
    Failed(String),
}

impl TransferError {
    /// What is lacking, if that may pass by itself.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Destination(error) => error.shortage(),
            Self::Hash(HashError::Unreadable { path, error }) => {
                Shortage::of(error, path.parent().unwrap_or(path))
            }
            Self::Store(error) => error.lack().map(|lack| Shortage::new(lack, error.to_string())),
            _ => None,
        }
    }
}

/// Why the engine cannot be started on what the trackers said.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

pub(super) fn metadata(manifest: &Manifest, problem: &dyn std::error::Error) -> TransferError {
    TransferError::Metadata { file: manifest.name.clone(), problem: problem.to_string() }
}

pub(super) fn wrong_state(file: &FileRef, state: &DownloadState, wish: &'static str) -> TransferError {
    let state = match state {
        DownloadState::Running => "running",
        DownloadState::Paused => "paused already",
        DownloadState::Complete => "complete",
        DownloadState::Failed(_) => "stopped already",
    };
    TransferError::State { file: file.clone(), state, wish }
}
