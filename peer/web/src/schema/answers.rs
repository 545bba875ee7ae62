//! What answers hold.

use utoipa::ToSchema;

/// Why a request was not carried out.
#[derive(ToSchema)]
pub struct Problem {
    /// False.
    pub ok: bool,
    /// Why, and what to do.
    pub error: String,
    /// The same for programs. It stays when the text changes.
    pub code: Option<String>,
}

/// It was done.
#[derive(ToSchema)]
pub struct Done {
    /// True.
    pub ok: bool,
}

/// Who and where the client is.
#[derive(ToSchema)]
pub struct Session {
    /// Who is logged in; null when nobody is.
    #[schema(required)]
    pub user: Option<String>,
    /// Present and true where the user's name may yet be lost.
    pub provisional: Option<bool>,
    /// The client's key.
    pub peer: String,
    /// Where others reach it.
    pub address: String,
    /// Where others are told to reach it: behind a router, at the router. Null while no tracker said so.
    #[schema(required)]
    pub given_out: Option<String>,
    /// Whether a tracker reached it there; null while that is not known.
    #[schema(required)]
    pub reached: Option<bool>,
    /// Whether the tracker relays between two clients that cannot connect.
    pub relays: bool,
    /// The tracker in use.
    #[schema(required)]
    pub tracker: Option<String>,
    /// Where it keeps what it remembers.
    pub data_dir: String,
}

/// A session began.
#[derive(ToSchema)]
pub struct LoggedIn {
    /// True.
    pub ok: bool,
    /// Who is logged in.
    pub user: String,
    /// Present and true where that name may yet be lost.
    pub provisional: Option<bool>,
    /// Files that are shared again.
    pub shares: u64,
    /// Downloads that go on.
    pub downloads_resumed: u64,
    /// Whether the session outlives a restart of the client.
    pub kept: bool,
}

/// A session is over.
#[derive(ToSchema)]
pub struct LoggedOut {
    /// True.
    pub ok: bool,
    /// Who was logged in.
    pub user: String,
    /// Present and true where no tracker was told that a kept session is over.
    pub untold: Option<bool>,
}

/// The password is another one.
#[derive(ToSchema)]
pub struct PasswordChanged {
    /// True.
    pub ok: bool,
    /// Whether the session outlived restarts; it does no longer.
    pub was_kept: bool,
}

/// The clients on which the account is logged in.
#[derive(ToSchema)]
pub struct Sessions {
    /// They.
    pub sessions: Vec<SessionRow>,
}

/// A client on which the account is logged in.
#[derive(ToSchema)]
pub struct SessionRow {
    /// Its key.
    pub peer: String,
    /// Where others reach it.
    pub address: String,
    /// Whether it is this client.
    #[schema(rename = "self")]
    pub own: bool,
}

/// All groups in the network.
#[derive(ToSchema)]
pub struct Groups {
    /// They.
    pub groups: Vec<GroupRow>,
}

/// A group.
#[derive(ToSchema)]
pub struct GroupRow {
    /// Its name.
    pub group: String,
    /// Present and true where the name may yet be lost.
    pub provisional: Option<bool>,
    /// Who owns it.
    pub owner: String,
    /// Whether the user is a member.
    pub member: bool,
}

/// A group was created.
#[derive(ToSchema)]
pub struct GroupCreated {
    /// True.
    pub ok: bool,
    /// Its name.
    pub group: String,
    /// Present and true where the name may yet be lost.
    pub provisional: Option<bool>,
}

/// A group's members.
#[derive(ToSchema)]
pub struct Members {
    /// Their names.
    pub members: Vec<String>,
}

/// Who asks to join a group.
#[derive(ToSchema)]
pub struct Requests {
    /// Their names.
    pub requests: Vec<String>,
}

/// A group's files.
#[derive(ToSchema)]
pub struct Files {
    /// The group.
    pub group: String,
    /// They.
    pub files: Vec<FileRow>,
}

/// A file of a group.
#[derive(ToSchema)]
pub struct FileRow {
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-1 of the whole file.
    pub sha1: String,
    /// Clients that share it whole now.
    pub sharers: u32,
    /// Whether this client shares it.
    pub shared_here: bool,
    /// The state of this client's download of it, if there is one: D, C, F or P.
    pub download: Option<String>,
}

/// A file is shared.
#[derive(ToSchema)]
pub struct SharedFile {
    /// True.
    pub ok: bool,
    /// With which group.
    pub group: String,
    /// Under which name.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-1 of the whole file.
    pub sha1: String,
}

/// Who holds a file.
#[derive(ToSchema)]
pub struct Peers {
    /// They, this client first.
    pub peers: Vec<PeerRow>,
}

/// A client that holds a file.
#[derive(ToSchema)]
pub struct PeerRow {
    /// Who is logged in there.
    pub user: String,
    /// The client's key.
    pub peer: String,
    /// Where it is.
    pub address: String,
    /// How much of the file it holds; null where that is not known here.
    #[schema(required)]
    pub percent: Option<u8>,
    /// Over which way this client asks it for the file: `lan`, `direct`, `reversed` or `relayed`; null where it does not.
    #[schema(required)]
    pub way: Option<String>,
    /// Present and true for this client.
    #[schema(rename = "self")]
    pub own: Option<bool>,
}

/// What this client shares.
#[derive(ToSchema)]
pub struct Shares {
    /// It.
    pub shares: Vec<ShareRow>,
}

/// A file that this client shares.
#[derive(ToSchema)]
pub struct ShareRow {
    /// With which group.
    pub group: String,
    /// Under which name.
    pub file: String,
    /// Where it is.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// `served`, or `away`: gone, changed, or being looked at.
    pub state: String,
}

/// Rate limits.
#[derive(ToSchema)]
pub struct Limits {
    /// Present and true after a change.
    pub ok: Option<bool>,
    /// Bytes per second that uploads take at most; 0 for no limit.
    pub up: u64,
    /// Bytes per second that downloads take at most; 0 for no limit.
    pub down: u64,
    /// The same now, by the schedule.
    pub up_now: u64,
    /// The same now, by the schedule.
    pub down_now: u64,
    /// The windows of the week in which other limits hold.
    pub schedule: Vec<WindowRow>,
    /// The day and time by which the schedule goes: the machine's.
    pub clock: String,
}

/// A time of the week in which other limits hold, in local time.
#[derive(ToSchema)]
pub struct WindowRow {
    /// The days on which it begins.
    pub days: String,
    /// When it begins.
    pub from: String,
    /// When it ends.
    pub to: String,
    /// Bytes per second that uploads take at most, 0 for no limit; null for what holds outside of it.
    #[schema(required)]
    pub up: Option<u64>,
    /// The same for downloads.
    #[schema(required)]
    pub down: Option<u64>,
}

/// Settings.
#[derive(ToSchema)]
pub struct Settings {
    /// Present and true after a change.
    pub ok: Option<bool>,
    /// Where downloads go.
    #[schema(required)]
    pub download_folder: Option<String>,
    /// How many downloads are fetched at a time; 0 for no bound.
    pub active_downloads: u64,
    /// The command that is run when a download is complete. It is set by `shoal set`, never here.
    #[schema(required)]
    pub on_complete: Option<String>,
}

/// The folders that a page may reach.
#[derive(ToSchema)]
pub struct Roots {
    /// They.
    pub roots: Vec<RootRow>,
    /// Whether paths in requests are limited to them: not on the Unix socket.
    pub limited: bool,
}

/// A folder that a page may reach.
#[derive(ToSchema)]
pub struct RootRow {
    /// Its path.
    pub path: String,
    /// `given` (`--web-root`), `download_folder` or `shared`.
    pub why: String,
}

/// What is in a folder, sorted by name, 10,000 entries at most. What is hidden, a link, or neither a folder nor a file is left out.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, ToSchema)]
pub struct Listing {
    /// Its path.
    pub path: String,
    /// Names of the folders in it.
    pub folders: Vec<String>,
    /// The files in it.
    pub files: Vec<Listed>,
    /// Whether there is more than is given.
    pub more: bool,
}

/// A file of a folder.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, ToSchema)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

/// Why downloads and shares are not well.
#[derive(ToSchema)]
pub struct Explanations {
    /// What is the matter with each.
    pub explanations: Vec<ExplanationRow>,
}

/// Why something is as it is, and what to do next.
#[derive(ToSchema)]
pub struct ExplanationRow {
    /// `client`, `download` or `share`.
    pub kind: String,
    /// The group, where it is about a file.
    pub group: Option<String>,
    /// The file, where it is about one.
    pub file: Option<String>,
    /// The cause, for programs; docs/explain.md lists them.
    pub cause: String,
    /// `well`, `unsafe`, `slow` or `stuck`.
    pub level: String,
    /// One plain sentence.
    pub text: String,
    /// The next step.
    pub next: String,
    /// The words of the command that does it, if one does.
    pub command: Option<Vec<String>>,
}
