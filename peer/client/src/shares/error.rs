//! Why a file is not shared, in words for the user.

use std::path::PathBuf;

use shoal_common::manifest::ManifestError;
use shoal_engine::hash::HashError;

use crate::FileRef;
use crate::folders::UnknownFolder;
use crate::store::StoreError;
use shoal_session::CallError;

/// Why a file is not shared, or does not stop being shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Nobody is logged in.
    #[error("nobody is logged in; log in with: login <user_id>")]
    NotLoggedIn,
    /// The path leads nowhere.
    #[error("cannot read {}: {error}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file's own name cannot be a shared file's.
    #[error("{} cannot be shared under its name: {problem}; rename it", .path.display())]
    Name {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A folder with mirrors.
    #[error(
        "a folder cannot have mirrors: an HTTP server gives one file; leave out --mirror, or pack the folder into a file"
    )]
    FolderMirrors,
    /// A folder's listing cannot be kept.
    #[error("cannot keep the listing of the folder: {0}")]
    Listing(std::io::Error),
    /// A folder's listing is not here.
    #[error(transparent)]
    Folder(#[from] UnknownFolder),
    /// A mirror that nobody could use.
    #[error("{0}; give another with --mirror")]
    Mirror(String),
    /// Its metadata is not what trackers take.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The trackers refused, or none answers.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such share.
    #[error("you do not share {} in {}; list_files {} shows what is there", .0.file, .0.group, .0.group)]
    NotShared(FileRef),
    /// Another file is where the share was said to be.
    #[error("{} is not {} of {}: its content differs; share it with: upload_file <file_path> <group_id>", .path.display(), .file.file, .file.group)]
    Differs {
        /// The path.
        path: PathBuf,
        /// The share.
        file: FileRef,
    },
    /// As many files are shared as one client can.
    #[error(
        "this client shares as many files as it can; stop sharing one first: stop_share <group_id> <file_name>"
    )]
    TooMany,
}
