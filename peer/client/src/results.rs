//! What comes of a command, as values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use shoal_common::{FileName, GroupName, PeerId, Sha1, UserName};

/// An account was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserCreated {
    /// Its name.
    pub user: UserName,
    /// Whether the name may yet be lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
}

/// A session began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedIn {
    /// Who is logged in.
    pub user: UserName,
    /// Whether the name may yet be lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
    /// The name that was typed, where the account goes by another now.
    #[serde(skip)]
    pub typed: Option<UserName>,
    /// Files that are shared again.
    pub shares: usize,
    /// Downloads that go on.
    #[serde(rename = "downloads_resumed")]
    pub downloads: usize,
}

/// A session is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedOut {
    /// Who was logged in.
    pub user: UserName,
    /// The client, if it is another one than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// The session was kept over restarts, and no tracker was told that it is over: a copy of it is still good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untold: bool,
}

/// What the account shared on a client that is lost is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientForgotten {
    /// The client.
    pub peer: PeerId,
    /// How many files it shared.
    pub files: u64,
}

/// Who and where this client is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhoAmI {
    /// Who is logged in.
    pub user: Option<UserName>,
    /// Whether the name may yet be lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
    /// This client's key.
    pub peer: PeerId,
    /// `ip:port` at which it serves.
    pub address: String,
    /// `ip:port` that others are given: behind a router, the router's. Null while no tracker said so.
    pub given_out: Option<String>,
    /// Whether that is where this client comes from, and so looked at by the tracker.
    #[serde(skip)]
    pub proven: bool,
    /// Whether a tracker reached this client there. Null while it is not known.
    pub reached: Option<bool>,
    /// Whether the tracker relays between two clients that cannot connect.
    pub relays: bool,
    /// The tracker in use.
    pub tracker: Option<String>,
    /// Where it keeps what it remembers.
    #[serde(serialize_with = "lossy")]
    pub data_dir: PathBuf,
}

impl WhoAmI {
    /// Whether what others are given is where a tracker looks, or has not looked yet.
    #[must_use]
    pub fn reached_there(&self) -> bool {
        self.proven
    }
}

/// A group was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupCreated {
    /// Its name.
    pub group: GroupName,
    /// Whether the name may yet be lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
}

/// A file is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedFile {
    /// With which group.
    pub group: GroupName,
    /// Under which name.
    pub file: FileName,
    /// Size in bytes.
    pub size: u64,
    /// SHA-1 of the whole file; of a folder's listing.
    pub sha1: Sha1,
    /// Files of a folder; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// Links, pipes, sockets and devices of a folder, which are not shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<usize>,
    /// Mirrors that other members' clients do not go to unless their users allow it, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub private_mirrors: Vec<String>,
}

/// A client that holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerRow {
    /// Who is logged in there.
    pub user: UserName,
    /// The client's key.
    pub peer: PeerId,
    /// `ip:port` of the client.
    pub address: String,
    /// How much of the file it holds; `None` where that is not known here.
    pub percent: Option<u8>,
    /// Over which way this client asks it for the file: `lan`, `direct`, `reversed` or `relayed`; null unless it is connected.
    pub way: Option<&'static str>,
    /// Whether it is this client.
    #[serde(rename = "self", skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// What a client has carried since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Since when.
    pub uptime: Duration,
    /// Bytes of pieces that others got.
    pub uploaded: u64,
    /// Bytes that came from others, whatever became of them.
    pub downloaded: u64,
}

/// Which pieces of a file are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceMap {
    /// How many pieces the file has.
    pub count: u32,
    /// Bytes of a piece; the last one may be shorter.
    pub size: u32,
    /// A bit per piece, the first in the highest bit of the first byte.
    pub have: Vec<u8>,
}

/// A source of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceEntry {
    /// The user who holds it; `None` for a mirror.
    pub user: Option<UserName>,
    /// `ip:port`, or a mirror's address; empty if it is not known any more.
    pub address: String,
    /// Bytes per second now.
    pub rate: u64,
    /// Bytes that came from it in this run.
    pub fetched: u64,
    /// How much of the file it holds, in whole percent.
    pub percent: u8,
    /// `active`, `idle`, `waiting`, `gone` or `banned`.
    pub state: &'static str,
    /// Why it is gone or banned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A file that this client shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShareRow {
    /// With which group.
    pub group: GroupName,
    /// Under which name.
    pub file: FileName,
    /// Where it is.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is served now.
    pub state: ShareState,
}

/// Whether a share is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// It is.
    Served,
    /// It is not: it is gone, was changed, or is being looked at.
    Away,
}

/// A path as text; what is no UTF-8 in it is replaced.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
