//! The client without a terminal: accounts, groups, shares and downloads as methods of [`Client`], whose results are
//! serialisable values, and events beside them. The prompt, scripts and tests call it; it never prints.

mod accounts;
mod background;
mod client;
mod downloads;
mod error;
mod file_ref;
mod groups;
mod hashing;
mod names;
mod results;
mod shares;
mod sharing;
mod store;
mod transfers;
pub mod wake;

pub use client::{Client, ClientConfig};
pub use error::{ClientError, StartError};
pub use file_ref::{Direction, FileRef};
pub use hashing::Hashing;
pub use names::Names;
pub use results::{
    ClientForgotten, GroupCreated, LoggedIn, LoggedOut, PeerRow, SharedFile, UserCreated, WhoAmI,
};
pub use shares::ShareError;
pub use transfers::{Begun, DownloadRow, Resumed, RowState, Sources, TransferError};
