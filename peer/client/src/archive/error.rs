//! Why a client does not move.

use std::io;
use std::path::PathBuf;

use shoal_common::passphrase::PassphraseError;
use shoal_common::size_text;
use shoal_net::IdentityError;

use crate::store::StoreError;

/// Why an export or import did not come about, or a client does not start after one.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The client of this folder went elsewhere.
    #[error(
        "this client was exported to {export}, and may run on another machine now: its key is for one at a time. If that export was \
         never imported and never will be, remove {} and start again", .mark.display()
    )]
    Moved {
        /// The export.
        export: String,
        /// What to remove.
        mark: PathBuf,
    },
    /// An import was cut off.
    #[error("an import into {} did not come to its end; run it again", .0.display())]
    Unfinished(PathBuf),
    /// There is no client to export.
    #[error("there is no client in {}; name its folder with --data", .0.display())]
    NoClient(PathBuf),
    /// There is one where an export should come out.
    #[error("{} has a client already; give another folder: --data DIR", .0.display())]
    Taken(PathBuf),
    /// There is a file where the export should go.
    #[error("{} exists already; name another file, or remove it", .0.display())]
    Exists(PathBuf),
    /// It has too much.
    #[error("the export would be longer than {}; take back some shares", size_text(*.0))]
    TooLarge(u64),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another kind of file.
    #[error("{} is no export of Shoal; shoal export makes one", .0.display())]
    NotExport(PathBuf),
    /// Of a later version.
    #[error("{} was made by a later version of Shoal; update Shoal here first", .0.display())]
    Later(PathBuf),
    /// It does not open.
    #[error("{}: {error}{}", .path.display(), advice(.error))]
    Sealed {
        /// The export.
        path: PathBuf,
        /// Why not.
        error: PassphraseError,
    },
    /// It opens, and no client made what is in it.
    #[error("{} cannot be used: {what}; make another export", .path.display())]
    Damaged {
        /// The export.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn advice(error: &PassphraseError) -> &'static str {
    match error {
        PassphraseError::Cut { .. } | PassphraseError::Damaged => "; copy it again, or make another export",
        PassphraseError::Wrong | PassphraseError::Length => "; type it again",
        PassphraseError::Memory => "",
    }
}
