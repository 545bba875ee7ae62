//! Renaming without ever replacing a file.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::{is, is_refused};

/// Gives a file the name `to`, unless there is something of that name. Where the file system does not know that rename, a
/// hard link does the same; where it does not know those either, the name is taken by an empty file, which is then replaced.
/// That leaves a race: what another program writes into the empty file in that moment is lost. A crash in that moment leaves
/// an empty file.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something; else what the system says. Then `from` is as before.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Err(error) if is_refused(&error) => link(from, to),
        renamed => renamed,
    }
}

/// As [`rename_new`], for a folder. Where the file system does not know that rename, an empty folder of that name is replaced.
///
/// # Errors
/// As [`rename_new`]; also `NotADirectory` and `DirectoryNotEmpty` when there is something.
pub fn rename_new_folder(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        // A folder takes the place of nothing but an empty folder.
        Err(error) if is_refused(&error) => fs::rename(from, to),
        renamed => renamed,
    }
}

/// As [`rename_new`], by names in open folders.
pub(crate) fn rename_new_at((from, name): (&OwnedFd, &str), (to, new): (&OwnedFd, &str)) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE).map_err(io::Error::from) {
        Err(error) if is_refused(&error) => {}
        renamed => return renamed,
    }
    match rustix::fs::linkat(from, name, to, new, AtFlags::empty()).map_err(io::Error::from) {
        Ok(()) => return Ok(rustix::fs::unlinkat(from, name, AtFlags::empty())?),
        Err(error) if is_refused(&error) || is(&error, Errno::ACCESS) || is(&error, Errno::MLINK) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    drop(rustix::fs::openat(to, new, flags, Mode::from_raw_mode(0o600))?);
    Ok(rustix::fs::renameat(from, name, to, new)?)
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // An answer that was lost on the way: NFS asks again and finds its own link.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same(from, to) => {}
        Err(error) if is_refused(&error) || is(&error, Errno::ACCESS) || is(&error, Errno::MLINK) => {
            return take_name(from, to);
        }
        linked => linked?,
    }
    if let Err(error) = fs::remove_file(from) {
        // It is in place: that is what was asked for.
        tracing::warn!("cannot remove {}, which is {} now: {error}", from.display(), to.display());
    }
    Ok(())
}

/// Makes an empty file under a name that must be free, and renames over that one.
fn take_name(from: &Path, to: &Path) -> io::Result<()> {
    drop(File::options().write(true).create_new(true).mode(0o600).open(to)?);
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((of(one), of(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_renaming_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for rename in [rename_new, link, take_name] {
            fs::write(&from, "new").unwrap();
            fs::write(&to, "old").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((fs::read(&from).unwrap(), fs::read(&to).unwrap()), (b"new".into(), b"old".into()));
            fs::remove_file(&to).unwrap();
            rename(&from, &to).unwrap();
            assert!(!from.exists());
            assert_eq!(fs::read(&to).unwrap(), b"new");
            // Nothing is left where there is nothing to rename.
            fs::remove_file(&to).unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert!(!to.exists());
        }
        // A link that exists because its answer was lost.
        fs::write(&from, "new").unwrap();
        fs::hard_link(&from, &to).unwrap();
        link(&from, &to).unwrap();
        assert!(!from.exists() && to.exists());
    }
}
