//! What requests hold.

use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// Who is to be logged in.
#[derive(Deserialize, ToSchema)]
pub struct Login {
    /// The account.
    pub(crate) user: String,
    /// Its password.
    #[schema(value_type = String, format = Password)]
    pub(crate) password: Zeroizing<String>,
    /// Whether the session outlives a restart of the client.
    #[serde(default)]
    pub(crate) keep: bool,
    /// Whether the account is created first.
    #[serde(default)]
    pub(crate) create: bool,
    /// The code that an operator gave, where one is needed for an account.
    #[serde(default)]
    pub(crate) invite: Option<String>,
}

/// A new password.
#[derive(Deserialize, ToSchema)]
pub struct NewPassword {
    /// The present one; without it the session is proof enough.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub(crate) old: Option<Zeroizing<String>>,
    /// The new one.
    #[schema(value_type = String, format = Password)]
    pub(crate) new: Zeroizing<String>,
}

/// A group that is to be created.
#[derive(Deserialize, ToSchema)]
pub struct NewGroup {
    /// Its name.
    pub(crate) group: String,
}

/// What is decided about a join request.
#[derive(Deserialize, ToSchema)]
pub struct Decision {
    /// Whether the user becomes a member.
    pub(crate) accept: bool,
}

/// A file that is to be shared where it is.
#[derive(Deserialize, ToSchema)]
pub struct NewShare {
    /// Its whole path on this machine.
    #[schema(value_type = String)]
    pub(crate) path: std::path::PathBuf,
}

/// A file that is to be downloaded.
#[derive(Deserialize, ToSchema)]
pub struct NewDownload {
    /// The group.
    pub(crate) group: String,
    /// The file.
    pub(crate) file: String,
    /// The whole path of the folder that it goes into; the download folder without it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) folder: Option<std::path::PathBuf>,
    /// Whether a file of that name is replaced; of a folder, whether different files are.
    #[serde(default)]
    pub(crate) overwrite: bool,
    /// Which files of a folder are fetched: paths, folders and patterns; all without it.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    /// Which of them are not.
    #[serde(default)]
    pub(crate) skip: Vec<String>,
    /// Other names for files of a folder, by their paths.
    #[serde(default)]
    pub(crate) renames: std::collections::BTreeMap<String, String>,
    /// Whether files of a folder are executable that were where they were shared.
    #[serde(default)]
    pub(crate) keep_modes: bool,
}

/// Rate limits. What is left out stays.
#[derive(Deserialize, ToSchema)]
pub struct NewLimits {
    /// Bytes per second that uploads take at most; 0 for no limit.
    #[serde(default)]
    pub(crate) up: Option<u64>,
    /// Bytes per second that downloads take at most; 0 for no limit.
    #[serde(default)]
    pub(crate) down: Option<u64>,
    /// The windows of the week in which other limits hold, all of them.
    #[serde(default)]
    pub(crate) schedule: Option<Vec<NewWindow>>,
}

/// A time of the week in which other limits hold, in local time.
#[derive(Deserialize, ToSchema)]
pub struct NewWindow {
    /// The days on which it begins: `mon-fri`, `sat,sun` or `daily`.
    pub(crate) days: String,
    /// When it begins: `08:00`.
    pub(crate) from: String,
    /// When it ends, `18:00`; if that is not later, on the next day.
    pub(crate) to: String,
    /// Bytes per second that uploads take at most, 0 for no limit; null for what holds outside of it.
    #[serde(default)]
    pub(crate) up: Option<u64>,
    /// The same for downloads.
    #[serde(default)]
    pub(crate) down: Option<u64>,
}

/// How a download is to be treated. What is left out stays.
#[derive(Deserialize, ToSchema)]
pub struct DownloadChange {
    /// `high`, `normal` or `low`.
    #[serde(default)]
    pub(crate) priority: Option<String>,
    /// Bytes per second that it takes at most; 0 for no limit of its own.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
    /// `first` or `last` among those of its priority.
    #[serde(default)]
    pub(crate) queue: Option<String>,
    /// Files of a folder that are fetched from now on: paths, folders and patterns.
    #[serde(default)]
    pub(crate) add: Vec<String>,
    /// And those that are not, of all of them.
    #[serde(default)]
    pub(crate) drop: Vec<String>,
}

/// Where a finished download is moved to.
#[derive(Deserialize, ToSchema)]
pub struct Move {
    /// The folder's whole path.
    #[schema(value_type = String)]
    pub(crate) folder: std::path::PathBuf,
}

/// Settings. What is left out stays.
#[derive(Deserialize, ToSchema)]
pub struct NewSettings {
    /// Where downloads go, as a whole path; an empty text is the user's own download folder.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) download_folder: Option<std::path::PathBuf>,
    /// How many downloads are fetched at a time; 0 for no bound.
    #[serde(default)]
    pub(crate) active_downloads: Option<usize>,
}
