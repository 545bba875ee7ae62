//! What goes wrong on the disk, in words for the user.

use std::io;
use std::path::{Path, PathBuf};

use shoal_common::size_text;

use crate::shortage::Shortage;

/// What went wrong on the disk. Each says what to do; a download that failed with one can be started again.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is a file at the destination, and it is not to be replaced.
    #[error("{} exists already; choose another destination", .0.display())]
    Exists(PathBuf),
    /// The destination is no place for a file.
    #[error("{} is a folder or a special file; choose a file name", .0.display())]
    NotAFile(PathBuf),
    /// The file system does not take the name.
    #[error(
        "{} is no name that the file system of {} takes; choose another",
        .0.file_name().unwrap_or_default().display(),
        .0.parent().unwrap_or(.0).display()
    )]
    Name(PathBuf),
    /// The folder of the destination cannot be used.
    #[error("cannot write to the folder {}: {error}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No space, or no quota.
    #[error("no space for {} ({}); make room and try again", .path.display(), need(*.bytes, *.lacking))]
    Full {
        /// The partial file.
        path: PathBuf,
        /// Size of the whole file.
        bytes: u64,
        /// Bytes that are lacking; 0 if that is not known.
        lacking: u64,
    },
    /// The partial file is not where it was: its drive was unmounted, or it was moved.
    #[error("{} is not there any more; mount its drive or put it back, and try again", .0.display())]
    Gone(PathBuf),
    /// Another download, of this process or another, goes to the same place.
    #[error("{} is being downloaded already", .0.display())]
    Locked(PathBuf),
    /// The partial file there is another content's.
    #[error("{} is an unfinished download of other content; cancel that download or move the file away", .0.display())]
    OtherContent(PathBuf),
    /// A file there has the name of ours and was not made by us.
    #[error("{} is in the way and not an unfinished download; move it away", .0.display())]
    Foreign(PathBuf),
    /// Files in the folder at the destination are different, and are not to be replaced.
    #[error(
        "{} exists and is a different file{}; choose another destination, leave it out (--skip), or give --overwrite to \
         replace it when the new one is whole",
        .path.display(), and_others(*.others)
    )]
    Different {
        /// One of them.
        path: PathBuf,
        /// How many more there are.
        others: usize,
    },
    /// The folder at the destination is another one.
    #[error(
        "{} exists already; choose another destination, or give --overwrite to put the folder's files into it: it has none \
         of them", .0.display()
    )]
    OtherFolder(PathBuf),
    /// The folder at the destination is on another file system than the folder that it is in.
    #[error("{} exists already; choose another destination, such as a folder in it: a drive is mounted there", .0.display())]
    Mounted(PathBuf),
    /// The file system does not take the name of a file of a folder.
    #[error(
        "{name} is no name that the file system of {} takes; give it another (--rename), leave it out (--skip), or choose \
         another destination", .path.display()
    )]
    Unnamable {
        /// The folder.
        path: PathBuf,
        /// The file.
        name: String,
    },
    /// The file system takes two files of a folder for one.
    #[error(
        "{} is on a file system that takes {one} and {other} for the same name; give one another name (--rename), leave it \
         out (--skip), or choose a destination on another one",
        .path.display()
    )]
    Collision {
        /// The partial folder.
        path: PathBuf,
        /// One of the files.
        one: String,
        /// The other.
        other: String,
    },
    /// Anything else.
    #[error("cannot {action} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl DiskError {
    /// What is lacking, if that may pass by itself.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let folder = |path: &'_ Path| path.parent().unwrap_or(path).to_owned();
        match self {
            Self::Folder { path, error } => Shortage::of(error, path),
            Self::Full { path, lacking, .. } => Some(Shortage::space(&folder(path), *lacking)),
            Self::Gone(path) => Some(Shortage::partial(path)),
            Self::Io { path, error, .. } => Shortage::of(error, &folder(path)),
            Self::Exists(_)
            | Self::NotAFile(_)
            | Self::Name(_)
            | Self::Different { .. }
            | Self::OtherFolder(_)
            | Self::Mounted(_)
            | Self::Unnamable { .. }
            | Self::Collision { .. }
            | Self::Locked(_)
            | Self::OtherContent(_)
            | Self::Foreign(_) => None,
        }
    }
}

/// How many more there are, in words.
fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", and so is another".to_owned(),
        _ => format!(", and so are {others} others"),
    }
}

/// What a file needs in words.
fn need(bytes: u64, lacking: u64) -> String {
    match lacking {
        0 => format!("{} in all", size_text(bytes)),
        _ => format!("{} in all, {} are lacking", size_text(bytes), size_text(lacking)),
    }
}
