//! The client without a terminal: accounts, groups, shares and downloads as methods of [`Client`], whose results are
//! serialisable values, and events beside them. The prompt, scripts and tests call it; it never prints.
//!
//! ```no_run
//! # async fn download() -> Result<(), Box<dyn std::error::Error>> {
//! use shoal_client::{Client, ClientConfig, DownloadOptions, FileRef};
//! use shoal_common::{FileName, GroupName, Password, TrackerInfo, UserName};
//!
//! let client = Client::start(ClientConfig {
//!     listen: "127.0.0.1:7001".parse()?,
//!     everywhere: false,
//!     trackers: TrackerInfo::parse("127.0.0.1 9001")?,
//!     data_dir: shoal_console::data_dir::DataDir::open("data".as_ref())?,
//!     upload_slots: 16,
//!     clock: shoal_client::wake::system_clock(),
//!     mirrors: shoal_http::mirror::Reach::Global,
//! })
//! .await?;
//! let mut events = client.events();
//! client.login(UserName::refer("ann")?, Password::new("secret".to_owned())).await?;
//!
//! let file = FileRef { group: GroupName::refer("films")?, file: FileName::refer("film.mkv")? };
//! let begun = client.download(file, "downloads".into(), DownloadOptions::default()).await?;
//! println!("{} from {} sharers", begun.path.display(), begun.sharers);
//! client.wait(None).await?;
//! while let Ok(event) = events.try_recv() {
//!     println!("{event:?}");
//! }
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod accounts;
pub mod archive;
mod background;
mod client;
mod downloads;
mod error;
mod explain;
mod file_ref;
mod files;
mod folders;
mod groups;
mod hashing;
mod kept;
mod membership;
mod names;
mod on_complete;
mod ordering;
mod pace;
mod priority;
mod reach;
mod results;
pub mod schedule;
mod shares;
mod sharing;
mod store;
mod taking;
mod transfers;
pub mod wake;

pub use client::{Client, ClientConfig};
pub use error::{ClientError, StartError};
pub use explain::{Cause, Explanation, Kind, Level, Next};
pub use file_ref::{Direction, FileRef};
pub use hashing::Hashing;
pub use names::Names;
pub use on_complete::CommandError;
pub use priority::{Priority, QueueEnd};
pub use results::{
    Carried, ClientForgotten, GroupCreated, LoggedIn, LoggedOut, PeerRow, PieceMap, ShareRow, ShareState,
    SharedFile, SourceEntry, UserCreated, WhoAmI,
};
pub use shares::ShareError;
pub use taking::{ChoiceError, DownloadOptions, FolderOptions, Rule};
pub use transfers::{
    Begun, DownloadRow, FilesChosen, FilesRow, FolderEntry, FolderFiles, MAX_ENTRIES, MoveError, Resumed,
    RowState, Sources, TransferError,
};
