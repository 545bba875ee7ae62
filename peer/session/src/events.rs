//! What happens between commands: shown by the prompt, or written as JSON lines.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use shoal_common::{FileName, GroupName, UserName};
use tokio::sync::broadcast;

use crate::text;

/// Events that a slow reader may lag behind before it loses the oldest.
const BACKLOG: usize = 1_024;

/// Something that a user may want to know without having asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A tracker does not answer, or the connection to it broke.
    TrackerLost {
        /// The tracker's address.
        tracker: String,
        /// What it does or did, to be read behind its address: `does not answer`.
        reason: String,
        /// The tracker that is tried now; the same one if there is no other.
        next: String,
    },
    /// No tracker answers at all. It is tried for as long as it takes.
    NoTracker,
    /// A tracker took over after another was lost.
    TrackerFound {
        /// The tracker's address.
        tracker: String,
    },
    /// A tracker's key is known from now on: it was met for the first time, or the other trackers say that it is another
    /// one than before, or that it is no tracker any more.
    TrackerKnown {
        /// The tracker's address.
        tracker: String,
        /// Its key; none for one that is no tracker any more.
        key: Option<String>,
        /// Whether the other trackers say so.
        vouched: bool,
    },
    /// The session is over without a `logout`.
    SessionEnded {
        /// Who was logged in.
        user: UserName,
        /// Why.
        reason: String,
    },
    /// The client goes on with the session that was kept over its restart.
    Resumed {
        /// Who is logged in again.
        user: UserName,
    },
    /// The session that was kept over the restart cannot be used.
    NotResumed {
        /// Where it is kept.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The user goes by another name from now on: another claim to the old one was first.
    Renamed {
        /// The old name.
        from: UserName,
        /// The new one.
        to: UserName,
    },
    /// A user asks to join a group of this user.
    JoinRequest {
        /// The group.
        group: GroupName,
        /// Who asks.
        user: UserName,
    },
    /// A group that this user asked to join let them in.
    Joined {
        /// The group.
        group: GroupName,
    },
    /// A file is not shared any more, or not shared again, because of what became of it.
    ShareLost {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// Where it was.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// What is wrong with it, and what to do.
        #[serde(rename = "reason")]
        problem: String,
    },
    /// A shared file was touched, and reading it takes a while. It is not shared meanwhile.
    ShareChecking {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// Where it is.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// How much of it was read; `None` before that begins.
        percent: Option<u8>,
        /// Other files that wait to be read.
        waiting: usize,
    },
    /// A file that was not shared for a while is shared again.
    ShareBack {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// Where it is.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
    },
    /// No one shares what is being downloaded.
    Waiting {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
    },
    /// A download waits for something that is lacking here; it goes on by itself.
    Short {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// What is lacking.
        reason: String,
    },
    /// A download is complete and checked.
    Complete {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// Where it is.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// How long that took since it was begun or resumed, in milliseconds; none for a file that was there.
        #[serde(skip_serializing_if = "Option::is_none")]
        took_ms: Option<u64>,
        /// Bytes per second that arrived meanwhile.
        #[serde(skip_serializing_if = "Option::is_none")]
        average: Option<u64>,
    },
    /// A download cannot go on by itself.
    Failed {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
        /// Why, and what to do.
        error: String,
    },
    /// The command that is run when a download is complete did not do its work.
    CommandFailed {
        /// In which group.
        group: GroupName,
        /// For which file.
        file: FileName,
        /// What happened.
        reason: String,
    },
    /// A source was caught lying, and is not used any more.
    SourceBanned {
        /// In which group.
        group: GroupName,
        /// For which file.
        file: FileName,
        /// Who it was.
        source: String,
        /// What it did.
        reason: String,
    },
    /// A mirror that another member named is not used, because of where it lies.
    MirrorRefused {
        /// In which group.
        group: GroupName,
        /// For which file.
        file: FileName,
        /// Its host.
        mirror: String,
        /// Why, and what to do.
        reason: String,
    },
    /// No other peer that is online has the whole file, and this client stops sharing it.
    LastSharer {
        /// In which group.
        group: GroupName,
        /// Which file.
        file: FileName,
    },
    /// Whether others reach this client changed, or it is known now that they do not.
    Reachability {
        /// `ip:port` that others are given.
        address: String,
        /// Whether a tracker reached this client there; null where that is another machine's address, which nobody looks at.
        reached: Option<bool>,
        /// Whether the tracker relays between two clients that cannot connect.
        relays: bool,
    },
    /// Something is slower than usual for a reason that the user should know.
    Patience {
        /// The reason.
        reason: String,
    },
}

impl fmt::Display for Event {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrackerLost { .. }
            | Self::NoTracker
            | Self::TrackerFound { .. }
            | Self::TrackerKnown { .. }
            | Self::Reachability { .. } => self.of_trackers(f),
            Self::SessionEnded { user, reason } => write!(f, "{user} is logged out: {reason}"),
            Self::Resumed { user } => write!(f, "logged in again as {user}"),
            Self::NotResumed { file, reason } => {
                write!(f, "not logged in again: {} {reason}", file.display())
            }
            Self::Renamed { from, to } => {
                write!(f, "{from} was taken by an earlier claim; this account goes on as {to}")
            }
            Self::JoinRequest { group, user } => {
                let (of, who) = (text::quoted(group.as_str()), text::quoted(user.as_str()));
                write!(f, "{user} asks to join {group}; accept_request {of} {who} lets them in")
            }
            Self::Joined { group } => write!(f, "you are a member of {group} now"),
            Self::ShareLost { group, file, path, problem } => {
                write!(f, "{file} ({}) is not shared in {group}: {problem}", shown(path))
            }
            Self::ShareChecking { group, file, path, percent, waiting } => {
                let mut far =
                    percent.map_or_else(|| "not begun yet".to_owned(), |percent| format!("{percent}% read"));
                if *waiting > 0 {
                    far = format!("{far}, {} more to check", text::count(*waiting, "file"));
                }
                write!(
                    f,
                    "{file} ({}) was touched: checking it before it is shared again in {group} ({far})",
                    shown(path)
                )
            }
            Self::ShareBack { group, file, path } => {
                write!(f, "{file} ({}) is shared again in {group}", shown(path))
            }
            Self::Waiting { group, file } => {
                write!(f, "nobody shares {file} of {group} at present; waiting for a sharer")
            }
            Self::Short { group, file, reason } => {
                write!(f, "[D] [{group}] {file}: waiting: {reason}; it goes on by itself")
            }
            Self::Complete { group, file, path, size, took_ms, average } => {
                write!(f, "[C] [{group}] {file}: {} verified", text::size(*size))?;
                if let (Some(ms), Some(average)) = (took_ms, average) {
                    let took = text::duration(Duration::from_millis(*ms));
                    write!(f, " in {took} ({}/s)", text::size(*average))?;
                }
                write!(f, ", at {}", shown(path))
            }
            Self::Failed { group, file, error } => write!(f, "[F] [{group}] {file}: {error}"),
            Self::CommandFailed { group, file, reason } => {
                write!(f, "the command on completion failed for {file} of {group}: {reason}")
            }
            Self::SourceBanned { group, file, source, reason } => {
                write!(f, "{source} is not used any more for {file} of {group}: {reason}")
            }
            Self::MirrorRefused { group, file, mirror, reason } => {
                write!(f, "{mirror} is not used for {file} of {group}: it {reason}")
            }
            Self::LastSharer { group, file } => {
                write!(f, "you are the only one who shares {file} of {group}; it will be unavailable")
            }
            Self::Patience { reason } => f.write_str(reason),
        }
    }
}

impl Event {
    /// What happened to trackers, in a line for people.
    fn of_trackers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrackerLost { tracker, reason, next } if tracker == next => {
                write!(f, "tracker {tracker} {reason}; trying again")
            }
            Self::TrackerLost { tracker, reason, next } => {
                write!(f, "tracker {tracker} {reason}; trying {next}")
            }
            Self::NoTracker => f.write_str("no tracker answers; trying until one does, transfers go on"),
            Self::TrackerFound { tracker } => write!(f, "tracker {tracker} answers"),
            Self::TrackerKnown { tracker, key: None, .. } => {
                write!(f, "the tracker at {tracker} is not used any more: the others say that it was removed")
            }
            Self::TrackerKnown { tracker, key: Some(key), vouched: false } => {
                write!(f, "the tracker at {tracker} is now known by its key {key}")
            }
            Self::TrackerKnown { tracker, key: Some(key), vouched: true } => {
                write!(
                    f,
                    "the tracker at {tracker} is now known by another key, {key}: the others vouch for it"
                )
            }
            Self::Reachability { address, reached: Some(true), .. } => {
                write!(f, "others reach this client at {address}")
            }
            Self::Reachability { address, reached, relays } => {
                write!(f, "{}", text::unreached(address, reached.is_none(), *relays))
            }
            _ => Ok(()),
        }
    }
}

/// A path as it may be shown: a file's name may hold anything.
fn shown(path: &Path) -> String {
    text::printable(&path.to_string_lossy())
}

/// A path as text; what is no UTF-8 in it is replaced.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Where events are sent. Cheap to clone; there need not be a listener.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    /// Sends an event to those that listen.
    pub fn emit(&self, event: Event) {
        tracing::info!(?event, "event");
        let _ = self.0.send(event);
    }

    /// All events from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
