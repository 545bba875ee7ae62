//! Why something was not done, in words for the user.

use std::io;
use std::path::PathBuf;

use shoal_common::layout::LayoutError;
use shoal_common::names::NameError;
use shoal_common::tracker_api::RefusalKind;
use shoal_engine::regular::{NotRegular, OpenError};
use shoal_engine::{DownloadError, Shortage};
use shoal_net::KnownError;
use shoal_session::{CallError, LoginError};

use crate::keyring::KeyringError;
use crate::name::StoredName;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The trackers did not do it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Nobody was logged in, or no account made or changed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The file of the trackers' keys cannot be used.
    #[error(transparent)]
    Known(#[from] KnownError),
    /// The network cannot be used at all.
    #[error("cannot use the network: {0}")]
    Network(String),
    /// Nobody is logged in.
    #[error("nobody is logged in; type login, or start dfs again")]
    NotLoggedIn,
    /// The name cannot be one of a stored file.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A local file or folder cannot be used.
    #[error("cannot {action} {}: {error}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Only regular files are stored.
    #[error("{0}; only files are stored")]
    NotAFile(#[from] NotRegular),
    /// The system makes the file up when it is read, and it does not end.
    #[error("{} gives more than {} when it is read, although its size is {size} bytes; store a copy of it", .path.display(), shoal_session::text::size(*.most))]
    Endless {
        /// The file.
        path: PathBuf,
        /// The size that the system names, in bytes.
        size: u64,
        /// What was read at most, in bytes.
        most: u64,
    },
    /// The file is too long.
    #[error(transparent)]
    TooLong(#[from] LayoutError),
    /// It was written to while it was stored.
    #[error("{} changed while it was being stored, and nothing is listed; put it again", .0.display())]
    Changed(PathBuf),
    /// It was written to while it waited in the queue.
    #[error("{} changed since it was queued, and was not stored; queue it again", .0.display())]
    ChangedInQueue(PathBuf),
    /// There cannot be so many copies.
    #[error(
        "{copies} copies need as many servers, and dfs.conf names {servers} that the trackers know; {}", few_servers(.unknown)
    )]
    Copies {
        /// Copies asked for.
        copies: u8,
        /// Servers that there are.
        servers: usize,
        /// The names in `dfs.conf` of which the trackers know nothing.
        unknown: Vec<String>,
    },
    /// Too few servers answer.
    #[error(
        "only {up} of {all} servers can be reached, and a file needs two copies of each part ({who}){START_OTHERS}"
    )]
    Servers {
        /// Those that answer.
        up: usize,
        /// Those of `dfs.conf`.
        all: usize,
        /// The others and why.
        who: String,
    },
    /// The servers together have less room than the file's copies need.
    #[error(
        "the servers have {} left, and the copies need {}: they are full, and nothing is listed; make room or add servers",
        shoal_session::text::size(*.free), shoal_session::text::size(*.needed)
    )]
    NoRoom {
        /// Bytes of all copies.
        needed: u64,
        /// Bytes that are free on all servers.
        free: u64,
    },
    /// The user's quota is used up.
    #[error(
        "your quota has {} left, and {name} with all its copies needs {}; nothing is listed; remove stored files, or ask the trackers' operator for more",
        shoal_session::text::size(*.left), shoal_session::text::size(*.needed)
    )]
    Quota {
        /// The file.
        name: StoredName,
        /// Bytes of all copies.
        needed: u64,
        /// Bytes that the user may still store.
        left: u64,
    },
    /// A chunk found too few servers.
    #[error(
        "part {part} of {name} could not be put on {needed} servers, and nothing is listed: {why}{MAKE_ROOM}"
    )]
    NoPlace {
        /// The file.
        name: StoredName,
        /// The chunk, from 1.
        part: u32,
        /// How many it needs.
        needed: usize,
        /// What each server said.
        why: String,
    },
    /// There is no such file.
    #[error("you have no stored file {name}; {}", near_names(.near))]
    NotFound {
        /// Its name.
        name: StoredName,
        /// Names of stored files that come near.
        near: Vec<StoredName>,
    },
    /// What the trackers have of it makes no sense.
    #[error("the trackers' data about {0} contradicts itself: {1}")]
    Contradiction(StoredName, &'static str),
    /// The description does not open.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The download did not come to its end.
    #[error("{name}: {error}")]
    Download {
        /// The file.
        name: StoredName,
        /// Why.
        error: DownloadError,
    },
    /// Something is lacking on this machine, and was for as long as was to be waited.
    #[error("{shortage}{RUN_AGAIN}")]
    Short {
        /// What.
        shortage: Shortage,
    },
    /// Parts are on no server that can be reached.
    #[error("{missing} bytes of {name} are on no server that can be reached now ({who}){GET_AGAIN}")]
    Unreachable {
        /// The file.
        name: StoredName,
        /// Bytes that are missing.
        missing: u64,
        /// The servers and why.
        who: String,
    },
}

/// What to do about a lack: the ends of messages.
const START_OTHERS: &str = "; start the others and put it again";
const MAKE_ROOM: &str = "; make room or start more servers, and put it again: it goes on where it was";
const RUN_AGAIN: &str = "; when that has passed, run it again and it continues";
const GET_AGAIN: &str = "; get it again when they are back: it goes on where it was";

/// Names that are shown in an error at most.
const MAX_NEAR: usize = 5;

fn near_names(near: &[StoredName]) -> String {
    if near.is_empty() {
        return "list shows what there is".to_owned();
    }
    let names: Vec<&str> = near.iter().take(MAX_NEAR).map(StoredName::as_str).collect();
    format!("did you mean {}?", names.join(" or "))
}

/// What to do where there are too few servers.
fn few_servers(unknown: &[String]) -> String {
    if unknown.is_empty() {
        return "ask for fewer copies or add servers".to_owned();
    }
    let (names, are) = (unknown.join(", "), if unknown.len() == 1 { "is" } else { "are" });
    format!(
        "{names} {are} not known to them: running, and admitted? (\"nodes\" and \"admit\" at a tracker's prompt)"
    )
}

impl StoreError {
    /// What is lacking on this machine, if that may pass by itself.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::File { path, error, .. } => {
                let folder = path.parent().filter(|_| !path.is_dir()).unwrap_or(path);
                Shortage::of(error, folder)
            }
            Self::Download { error, .. } => error.shortage(),
            _ => None,
        }
    }

    /// Whether the same may succeed later without its owner changing anything: what it lacks comes back by itself, or with a
    /// login.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Call(error) | Self::Login(LoginError::Call(error)) => match error {
                CallError::NoTracker { .. } => true,
                CallError::Refused { kind, again, .. } => {
                    again.is_some()
                        || matches!(kind, RefusalKind::Wait | RefusalKind::Unavailable)
                        || self.needs_login()
                }
                _ => false,
            },
            Self::Login(_) | Self::Network(_) | Self::NotLoggedIn => true,
            Self::Servers { .. }
            | Self::NoRoom { .. }
            | Self::NoPlace { .. }
            | Self::Short { .. }
            | Self::Unreachable { .. } => true,
            _ => false,
        }
    }

    /// What is lacking, without the advice to do it again: for one whose work is done again by itself.
    #[must_use]
    pub fn lack(&self) -> String {
        let text = self.to_string();
        let advice = [START_OTHERS, MAKE_ROOM, RUN_AGAIN, GET_AGAIN];
        advice.iter().find_map(|advice| text.strip_suffix(advice)).unwrap_or(&text).to_owned()
    }

    /// Whether only a login helps.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        match self {
            Self::NotLoggedIn => true,
            Self::Call(error) | Self::Login(LoginError::Call(error)) => matches!(
                error.refusal(),
                Some(RefusalKind::NotLoggedIn | RefusalKind::SignedOut | RefusalKind::WrongPassword)
            ),
            Self::Login(_) => true,
            _ => false,
        }
    }

    pub(super) fn not_found(name: &StoredName) -> Self {
        Self::NotFound { name: name.clone(), near: Vec::new() }
    }

    pub(super) fn not_read(path: &std::path::Path, error: OpenError) -> Self {
        match error {
            OpenError::NotRegular(found) => found.into(),
            OpenError::Io(error) => Self::File { action: "read", path: path.to_owned(), error },
        }
    }

    pub(super) fn file(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::File { action, path, error }
    }
}
