//! What answers about downloads hold.

use serde::Serialize;
use utoipa::ToSchema;

/// The downloads.
#[derive(ToSchema)]
pub struct Downloads {
    /// They, in the order in which they began.
    pub downloads: Vec<DownloadRow>,
}

/// What is said of a download wherever it is shown.
#[derive(ToSchema, Serialize)]
pub struct DownloadFields {
    /// D while it runs, C complete, F failed, P paused.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The group.
    pub group: String,
    /// The file.
    pub file: String,
    /// How much is there, in whole percent.
    pub percent: u8,
    /// Bytes per second now.
    pub rate: u64,
    /// Where it goes.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are verified and written.
    pub verified: u64,
    /// Time left at this rate; null while nothing moves.
    #[schema(required)]
    pub seconds_left: Option<u64>,
    /// What it does, waits for, or is limited by.
    pub activity: Option<String>,
    /// Its place in the queue while it waits for its turn, 1 for the next one.
    pub queued: Option<u64>,
    /// `high` or `low`, where it is not normal.
    pub priority: Option<String>,
    /// Its own limit in bytes per second.
    pub limit: Option<u64>,
    /// Present and true while a rate limit holds it up.
    pub speed_limited: Option<bool>,
    /// How many files of a folder are there.
    pub files: Option<FilesRow>,
}

/// How many files of a folder are there.
#[derive(ToSchema, Serialize)]
pub struct FilesRow {
    /// Whole and right, with their names; absent where that is not known now.
    pub done: Option<u64>,
    /// Those that are fetched.
    pub chosen: u64,
    /// All in the folder.
    pub all: u64,
}

/// What is in a folder.
#[derive(ToSchema)]
pub struct FolderFiles {
    /// The group.
    pub group: String,
    /// The folder.
    pub file: String,
    /// How many entries there are in all.
    pub total: u64,
    /// Bytes of all of them.
    pub size: u64,
    /// Those that were asked for.
    pub entries: Vec<FolderEntry>,
    /// From which one on more follow.
    pub next: Option<u64>,
}

/// A file or an empty folder of a folder.
#[derive(ToSchema)]
pub struct FolderEntry {
    /// Its path from the folder on; that of an empty folder ends in a slash.
    pub path: String,
    /// Its size in bytes; absent for an empty folder.
    pub size: Option<u64>,
    /// Its SHA-1.
    pub sha1: Option<String>,
    /// Present and true for a file that is executable where it was shared.
    pub executable: Option<bool>,
    /// Present and true for what the download of the folder leaves out.
    pub skipped: Option<bool>,
}

/// A download.
#[derive(ToSchema, Serialize)]
pub struct DownloadRow {
    /// What is said of it everywhere.
    #[serde(flatten)]
    pub fields: DownloadFields,
    /// Sources in use: their number.
    pub sources: u64,
}

/// A download in detail.
#[derive(ToSchema, Serialize)]
pub struct DownloadDetail {
    /// What is said of it everywhere.
    #[serde(flatten)]
    pub fields: DownloadFields,
    /// The pieces that are there; null where that cannot be told.
    #[schema(required)]
    pub pieces: Option<Pieces>,
    /// The sources of a download that runs.
    pub sources: Vec<SourceRow>,
}

/// Which pieces are there.
#[derive(ToSchema, Serialize)]
pub struct Pieces {
    /// How many the file has.
    pub count: u32,
    /// Bytes of a piece.
    pub size: u32,
    /// A bit per piece in base64, the first in the highest bit of the first byte.
    pub have: String,
}

/// A source of a download.
#[derive(ToSchema, Serialize)]
pub struct SourceRow {
    /// The user; null for a mirror.
    #[schema(required)]
    pub user: Option<String>,
    /// Where it is.
    pub address: String,
    /// Bytes per second now.
    pub rate: u64,
    /// Bytes that came from it.
    pub fetched: u64,
    /// How much of the file it holds.
    pub percent: u8,
    /// `active`, `idle`, `waiting`, `gone` or `banned`.
    pub state: String,
    /// Why it is gone or banned.
    pub reason: Option<String>,
}

/// A download began.
#[derive(ToSchema)]
pub struct Begun {
    /// True.
    pub ok: bool,
    /// The group.
    pub group: String,
    /// The file.
    pub file: String,
    /// Where it goes.
    pub path: String,
    /// Clients that share it whole now.
    pub sharers: u64,
    /// Whether it was there already.
    pub complete: bool,
    /// What it waits for that is lacking here.
    pub activity: Option<String>,
}

/// A download goes on.
#[derive(ToSchema)]
pub struct Resumed {
    /// True.
    pub ok: bool,
    /// Whether it begins again, because nothing of it is there.
    pub anew: bool,
    /// What it waits for that is lacking here.
    pub activity: Option<String>,
}

/// A download is off the list.
#[derive(ToSchema)]
pub struct Cancelled {
    /// True.
    pub ok: bool,
    /// Whether it was complete: then the file stays.
    pub complete: bool,
}

/// A download was moved.
#[derive(ToSchema)]
pub struct Moved {
    /// True.
    pub ok: bool,
    /// Where it is now.
    pub path: String,
}
