//! Opens regular files only. A pipe, a socket, a device or a folder is refused by its type before it is opened: opening a
//! pipe waits for a writer, and opening a device may have an effect. Blocking.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use shoal_common::names::is_same;

/// Entries of a folder that are looked through for another form of a name. More take long, and nobody types names there.
const MAX_ENTRIES: usize = 100_000;

/// What is not a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// Something that the system has no common name for.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "something else",
        })
    }
}

/// A path that leads to something else than a regular file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is {kind} and not a regular file", .path.display())]
pub struct NotRegular {
    /// The path, as it was given.
    pub path: PathBuf,
    /// What is there.
    pub kind: Kind,
}

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is none.
    #[error(transparent)]
    NotRegular(#[from] NotRegular),
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The path as it is on the disk. Where no file has a name of the path as it was typed, one that is the same in another normal
/// form is meant: macOS writes names decomposed. A path that leads nowhere stays as it is.
#[must_use]
pub fn found(path: &Path) -> PathBuf {
    let is_plain = path.as_os_str().as_encoded_bytes().is_ascii();
    if is_plain || path.symlink_metadata().is_ok() {
        return path.to_owned();
    }
    let mut there = PathBuf::new();
    for part in path {
        let next = there.join(part);
        there = match part.to_str() {
            Some(name) if !name.is_ascii() && next.symlink_metadata().is_err() => {
                same_name(&there, name).map_or(next, |other| there.join(other))
            }
            _ => next,
        };
    }
    there
}

/// The first entry of a folder that has this name in another normal form.
fn same_name(folder: &Path, name: &str) -> Option<OsString> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).ok()?.take(MAX_ENTRIES);
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.find(|other| other.to_str().is_some_and(|other| is_same(name, other)))
}

/// Whether a path leads to a regular file. Links are followed.
///
/// # Errors
/// See [`OpenError`].
pub fn check(path: &Path) -> Result<Metadata, OpenError> {
    let found = std::fs::metadata(path)?;
    check_found(path, &found)?;
    Ok(found)
}

/// Opens a regular file for reading. It never blocks on a pipe or device.
///
/// # Errors
/// See [`OpenError`].
pub fn open(path: &Path) -> Result<(File, Metadata), OpenError> {
    check(path)?;
    // Something else may have taken its place meanwhile.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::from_ne_bytes(flags.bits().to_ne_bytes());
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    check_found(path, &found)?;
    Ok((file, found))
}

/// Whether reading gives as many bytes as the file's size says. Files that the system makes up when they are read, such as
/// those in `/proc` and `/sys`, say 0 or a page; a file that is being written to may give more, too.
///
/// # Errors
/// When the file cannot be read.
pub fn gives_its_size(file: &File, size: u64) -> io::Result<bool> {
    let mut byte = [0];
    let mut ends_at = |offset| read_at(file, &mut byte, offset).map(|count| count == 0);
    Ok(ends_at(size)? && (size == 0 || !ends_at(size - 1)?))
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn check_found(path: &Path, found: &Metadata) -> Result<(), NotRegular> {
    let kind = found.file_type();
    let kind = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => Kind::Folder,
        () if kind.is_fifo() => Kind::Pipe,
        () if kind.is_socket() => Kind::Socket,
        () if kind.is_char_device() || kind.is_block_device() => Kind::Device,
        () => Kind::Other,
    };
    Err(NotRegular { path: path.to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("pipe", at("link")).unwrap();
        for (path, kind) in [
            (folder.path().to_owned(), Kind::Folder),
            (at("pipe"), Kind::Pipe),
            (at("link"), Kind::Pipe),
            (at("socket"), Kind::Socket),
            ("/dev/null".into(), Kind::Device),
        ] {
            let refused = open(&path).unwrap_err();
            assert!(matches!(&refused, OpenError::NotRegular(found) if found.kind == kind), "{refused}");
        }
        assert!(matches!(open(&at("missing")), Err(OpenError::Io(_))));
        std::fs::write(at("file"), b"x").unwrap();
        assert_eq!(open(&at("file")).unwrap().1.len(), 1);
    }

    #[test]
    fn a_size_that_is_not_what_reading_gives_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0, 1, 5_000] {
            std::fs::write(&path, vec![7; size]).unwrap();
            let (file, _) = open(&path).unwrap();
            assert!(gives_its_size(&file, size as u64).unwrap());
            assert!(!gives_its_size(&file, size as u64 + 1).unwrap());
            assert!(size == 0 || !gives_its_size(&file, size as u64 - 1).unwrap());
        }
        let (file, found) = open(Path::new("/proc/self/status")).unwrap();
        assert!(!gives_its_size(&file, found.len()).unwrap());
    }
}
