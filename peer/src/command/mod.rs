//! What a user can ask of the client, as typed values. [`parse`] makes them from lines; `app` carries them out.

mod parse;
mod spec;
mod table;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use shoal_common::{FileName, GroupName, UserName};
use zeroize::Zeroizing;

pub use parse::{MAX_LINE_BYTES, ParseError, Parsed, parse};
pub use spec::{Argument, Section, Spec, find};
pub use table::COMMANDS;
pub use words::{Word, Words, quoted, split};

/// A password. It is wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password as it was typed.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password itself, for deriving keys from it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// One command. A password that was left out is `None`; whoever reads commands asks for it and calls
/// [`Command::supply`] before `app` sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Create an account.
    CreateUser {
        /// Its name.
        user: UserName,
        /// Its password.
        password: Option<Password>,
        /// The code of an invitation.
        invitation: Option<String>,
    },
    /// Begin a session.
    Login {
        /// Whose.
        user: UserName,
        /// Their password.
        password: Option<Password>,
    },
    /// End the session.
    Logout,
    /// End a session of the account on another client.
    SignOut {
        /// Whose account: the one that is logged in.
        user: UserName,
        /// The client's key, or its last characters.
        client: String,
    },
    /// The clients on which the account is logged in.
    Sessions,
    /// What the account, or a group, has and may have.
    Quota(Option<GroupName>),
    /// Take back what the account shared on a client that is lost.
    ForgetClient(String),
    /// Who is logged in.
    WhoAmI,
    /// Replace the account's password.
    ChangePassword {
        /// The present one; the session is proof enough when it is not given.
        old: Option<Password>,
        /// The new one.
        new: Option<Password>,
    },
    /// Create a group.
    CreateGroup(GroupName),
    /// Ask to be let into a group.
    JoinGroup(GroupName),
    /// Leave a group.
    LeaveGroup(GroupName),
    /// All groups.
    ListGroups,
    /// A group's members.
    ListMembers(GroupName),
    /// Who asks to be let into a group.
    ListRequests(GroupName),
    /// Decide a join request.
    Decide {
        /// Of which group.
        group: GroupName,
        /// Whose.
        user: UserName,
        /// Whether to let them in.
        accept: bool,
    },
    /// Share a file.
    UploadFile {
        /// Where it is.
        path: PathBuf,
        /// With which group.
        group: GroupName,
        /// HTTP mirrors of the same content.
        mirrors: Vec<String>,
    },
    /// Stop sharing a file.
    StopShare(FileRef),
    /// A group's files.
    ListFiles(GroupName),
    /// Who holds a file.
    ShowPeers(FileRef),
    /// Download a file.
    DownloadFile {
        /// Which.
        file: FileRef,
        /// A folder, or the file's new path.
        destination: PathBuf,
        /// Whether to replace what is there.
        overwrite: bool,
    },
    /// All downloads.
    ShowDownloads {
        /// With progress.
        verbose: bool,
        /// Until none runs.
        watch: bool,
    },
    /// Pause a download.
    PauseDownload(FileRef),
    /// Go on with a download.
    ResumeDownload(FileRef),
    /// Give a download up, or forget a finished one.
    CancelDownload(FileRef),
    /// Limit a rate.
    Limit {
        /// Which.
        direction: Direction,
        /// Bytes a second; `None` is no limit.
        rate: Option<u64>,
    },
    /// Wait until no download runs, or that long.
    Wait(Option<Duration>),
    /// Show the commands, or one.
    Help(Option<&'static Spec>),
    /// Leave.
    Quit,
}

/// A file of a group, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// The group.
    pub group: GroupName,
    /// The file.
    pub file: FileName,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To others.
    Up,
    /// From others.
    Down,
}

/// A password that must be asked for before a command can be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// An account's password.
    Present,
    /// A new password, to be typed twice.
    New,
}

impl Command {
    /// The password that was left out, if one was.
    #[must_use]
    pub fn missing(&self) -> Option<Missing> {
        match self {
            Self::CreateUser { password: None, .. } | Self::ChangePassword { new: None, .. } => {
                Some(Missing::New)
            }
            Self::Login { password: None, .. } => Some(Missing::Present),
            _ => None,
        }
    }

    /// Puts in the password that [`Command::missing`] named.
    pub fn supply(&mut self, given: Password) {
        match self {
            Self::CreateUser { password, .. }
            | Self::Login { password, .. }
            | Self::ChangePassword { new: password, .. } => *password = Some(given),
            _ => {}
        }
    }

    /// Puts in the password that the account has now, for a change of it.
    pub fn supply_old(&mut self, given: Password) {
        if let Self::ChangePassword { old, .. } = self {
            *old = Some(given);
        }
    }

    /// Whether it is a change of password without the present one, which a person at a terminal is asked for.
    #[must_use]
    pub fn lacks_old(&self) -> bool {
        matches!(self, Self::ChangePassword { old: None, .. })
    }
}
