//! What comes of a command, as values: `render` makes text of them and `json` objects.

use std::path::PathBuf;
use std::time::Duration;

use shoal_common::tracker_api::{FileEntry, GroupEntry, QuotaAnswer, SessionEntry, UserEntry};
use shoal_common::{FileName, GroupName, PeerId, Sha1, UserName};

use crate::command::{Direction, FileRef, Spec};
use crate::transfers::DownloadRow;

/// What came of a command.
#[derive(Debug, Clone)]
pub enum Output {
    /// An account was created.
    UserCreated {
        /// Its name.
        user: UserName,
        /// Whether the name may yet be lost.
        provisional: bool,
    },
    /// A session began.
    LoggedIn {
        /// Who is logged in.
        user: UserName,
        /// Whether the name may yet be lost.
        provisional: bool,
        /// The name that was typed, where the account goes by another now.
        typed: Option<UserName>,
        /// Files that are shared again.
        shares: usize,
        /// Downloads that go on.
        downloads: usize,
    },
    /// The session is over.
    LoggedOut {
        /// Who was logged in.
        user: UserName,
    },
    /// The clients on which the account is logged in.
    Sessions(Vec<SessionEntry>),
    /// The account's session on another client is over.
    SignedOut {
        /// Whose account.
        user: UserName,
        /// The client.
        peer: PeerId,
    },
    /// What the account, or a group, has and may have.
    Quota {
        /// The group, if one was named.
        group: Option<GroupName>,
        /// What it has and may have.
        quota: QuotaAnswer,
    },
    /// What the account shared on a client that is lost is taken back.
    ClientForgotten {
        /// The client.
        peer: PeerId,
        /// How many files it shared.
        files: u64,
    },
    /// Who is logged in, and where.
    WhoAmI(Box<WhoAmI>),
    /// The password is another now.
    PasswordChanged,
    /// A group was created.
    GroupCreated {
        /// Its name.
        group: GroupName,
        /// Whether the name may yet be lost.
        provisional: bool,
    },
    /// A join request was filed.
    JoinRequested(GroupName),
    /// A group was left.
    Left(GroupName),
    /// All groups.
    Groups(Vec<GroupEntry>),
    /// A group's members.
    Members {
        /// The group.
        group: GroupName,
        /// Its members.
        users: Vec<UserEntry>,
    },
    /// Who asks to be let into a group.
    Requests {
        /// The group.
        group: GroupName,
        /// Who asks.
        users: Vec<UserEntry>,
    },
    /// A join request was decided.
    Decided {
        /// The group.
        group: GroupName,
        /// Whose request.
        user: UserName,
        /// Whether they are a member now.
        accepted: bool,
    },
    /// A file is shared.
    Shared {
        /// With which group.
        group: GroupName,
        /// Under which name.
        file: FileName,
        /// Size in bytes.
        size: u64,
        /// SHA-1 of the whole file.
        sha1: Sha1,
    },
    /// A file is not shared any more.
    ShareStopped(FileRef),
    /// A group's files.
    Files {
        /// The group.
        group: GroupName,
        /// Its files.
        files: Vec<FileEntry>,
    },
    /// Who holds a file.
    Peers {
        /// The file.
        file: FileRef,
        /// The holders.
        peers: Vec<PeerRow>,
    },
    /// A download runs, or the file was there already.
    Download {
        /// The file.
        file: FileRef,
        /// Where it goes.
        path: PathBuf,
        /// Clients that share it whole now.
        sharers: usize,
        /// Whether it is complete already.
        complete: bool,
        /// What it waits for that is lacking here, if it cannot begin yet.
        waits: Option<String>,
    },
    /// All downloads.
    Downloads {
        /// The downloads.
        rows: Vec<DownloadRow>,
        /// Whether to tell everything.
        verbose: bool,
    },
    /// A download is paused.
    DownloadPaused(FileRef),
    /// A download goes on.
    DownloadResumed {
        /// The file.
        file: FileRef,
        /// Whether it begins anew, because nothing of it is there any more.
        anew: bool,
        /// What it waits for that is lacking here, if it cannot go on yet.
        waits: Option<String>,
    },
    /// A download is off the list.
    DownloadCancelled {
        /// The file.
        file: FileRef,
        /// Whether it was complete, so that the file stays.
        complete: bool,
    },
    /// A rate limit is in force.
    LimitSet {
        /// Which.
        direction: Direction,
        /// Bytes a second; `None` is no limit.
        rate: Option<u64>,
    },
    /// No download runs any more.
    Waited {
        /// How long it took.
        took: Duration,
    },
    /// All commands, or one.
    Help(Option<&'static Spec>),
    /// The client leaves.
    Quitting,
}

/// Who and where this client is.
#[derive(Debug, Clone)]
pub struct WhoAmI {
    /// Who is logged in.
    pub user: Option<UserName>,
    /// Whether the name may yet be lost.
    pub provisional: bool,
    /// This client's key.
    pub peer: PeerId,
    /// `ip:port` at which it serves.
    pub address: String,
    /// The tracker in use.
    pub tracker: Option<String>,
    /// Where it keeps what it remembers.
    pub data_dir: PathBuf,
}

/// Somebody who holds a file.
#[derive(Debug, Clone)]
pub struct PeerRow {
    /// Who is logged in there.
    pub user: UserName,
    /// Their client's key.
    pub peer: PeerId,
    /// `ip:port` of their client.
    pub address: String,
    /// How much of it they hold; `None` where that is not known here.
    pub percent: Option<u8>,
}
