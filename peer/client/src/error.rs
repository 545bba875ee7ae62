//! Why a client does not start, and why a command was not carried out, in words for the user.

use std::path::PathBuf;
use std::time::Duration;

use shoal_common::UserName;
use shoal_net::{IdentityError, KnownError, NetError};

use crate::FileRef;
use crate::archive::ArchiveError;
use crate::on_complete::CommandError;
use crate::schedule::MAX_WINDOWS;
use crate::shares::ShareError;
use crate::store::StoreError;
use crate::transfers::TransferError;
use shoal_session::text;
use shoal_session::{CallError, LoginError};

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file of the trackers' keys.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listening address, or the network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Its client moved to another machine.
    #[error(transparent)]
    Moved(#[from] ArchiveError),
    /// A blocking thread died.
    #[error("the client could not start: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It needs a session.
    #[error("log in first: login <user_id> (or create_user <user_id>)")]
    NotLoggedIn,
    /// There is a session already.
    #[error("{0} is logged in; log out first: logout")]
    LoggedIn(UserName),
    /// Another account's session.
    #[error("that session is {0}'s; only the clients of the account that is logged in can be logged out")]
    OthersSession(UserName),
    /// No client has such a key.
    #[error("no client of this account that is online has a key ending in {0}; see: sessions")]
    NoSession(String),
    /// Several clients have.
    #[error("several clients of this account have keys ending in {0}; give more of it, see: sessions")]
    SeveralSessions(String),
    /// No client with shares has such a key.
    #[error("this account shares nothing on a client whose key ends in {0}; see: quota")]
    NoSharesOn(String),
    /// Several have.
    #[error("this account shares on several clients whose keys end in {0}; give more of it, see: quota")]
    SeveralClients(String),
    /// A password is missing, and there is nobody to ask.
    #[error("the password is missing; give it with the command, with --password-file or in SHOAL_PASSWORD")]
    NoPassword,
    /// A path that cannot be kept, because it is no text.
    #[error("{} is not UTF-8; choose another folder", .0.display())]
    NoText(PathBuf),
    /// The session cannot be kept over restarts.
    #[error("logged in, but not over restarts: cannot write {}: {error}; make room, and log in with --keep again", .path.display())]
    NotKept {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// There is no folder for a download without a destination.
    #[error("there is no download folder; give a destination, or set one: set download_folder <path>")]
    NoFolder,
    /// There is nothing here to explain.
    #[error("this client neither downloads nor shares {} of {}; see: show_downloads", .0.file, .0.group)]
    NothingOf(FileRef),
    /// The trackers refused, or none answers.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Account or session.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Sharing.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Downloading.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The schedule has too many windows.
    #[error("a schedule has {MAX_WINDOWS} windows at most; remove one first: schedule remove <number>")]
    TooManyWindows,
    /// A command that cannot be run on completion.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// `wait` ended before the downloads did.
    #[error("{} still running after {} s; see show_downloads -v", text::count(*.running, "download"), .waited.as_secs_f32())]
    StillRunning {
        /// Downloads that still run.
        running: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// Downloads that were waited for failed.
    #[error("failed: {}; show_downloads says why", names(.0))]
    DownloadsFailed(Vec<FileRef>),
}

impl ClientError {
    /// A code for programs. It stays the same when the text changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not_logged_in",
            Self::LoggedIn(_) => "logged_in",
            Self::OthersSession(_) => "others_session",
            Self::NoSession(_) => "no_session",
            Self::SeveralSessions(_) => "several_sessions",
            Self::NoSharesOn(_) => "no_shares_on",
            Self::SeveralClients(_) => "several_clients",
            Self::NoPassword => "no_password",
            Self::NoText(_) => "no_text",
            Self::NotKept { .. } => "not_kept",
            Self::NoFolder => "no_folder",
            Self::NothingOf(_) => "nothing_of",
            Self::Call(CallError::NoTracker { .. }) => "no_tracker",
            Self::Call(_) => "refused",
            Self::Login(_) => "login",
            Self::Share(_) => "share",
            Self::Transfer(_) => "transfer",
            Self::Store(_) => "store",
            Self::TooManyWindows => "too_many_windows",
            Self::Command(_) => "command",
            Self::StillRunning { .. } => "still_running",
            Self::DownloadsFailed(_) => "downloads_failed",
        }
    }
}

fn names(files: &[FileRef]) -> String {
    files.iter().map(|file| format!("{} of {}", file.file, file.group)).collect::<Vec<_>>().join(", ")
}
