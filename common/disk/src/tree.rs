//! Files beneath a folder, by paths that come from others. A link on the way is never followed, whoever made it and whenever:
//! what is opened lies in the folder. `openat2` (Linux 5.6) resolves a path in one step; where it is not to be had, each name
//! is opened by itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::is_refused;
use crate::lost::Lost;

/// Never a link at the end, never a wait for a pipe, and not for other programs.
const ALWAYS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// An open folder. It stays the same one when it is renamed.
#[derive(Debug)]
pub struct Tree(File);

impl Tree {
    /// Opens a folder. Links on the way to it are followed: its user named it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self(File::from(opened)))
    }

    /// The folder itself, to be locked or looked at.
    #[must_use]
    pub fn folder(&self) -> &File {
        &self.0
    }

    /// Opens a file or folder for reading. `path` is relative, with `/` between the names.
    ///
    /// # Errors
    /// What the system says; ELOOP where there is a link on the way.
    pub fn read(&self, path: &str) -> io::Result<File> {
        self.resolve(path, OFlags::RDONLY, Mode::empty())
    }

    /// Opens a file for reading and writing, and makes it if there is none, with the folders above it.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn write(&self, path: &str) -> io::Result<File> {
        let open = || self.resolve(path, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o666));
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some((above, _)) = path.rsplit_once('/') {
                    self.make_folder(above)?;
                }
                open()
            }
            opened => opened,
        }
    }

    /// Makes a folder and those above it, where there are none.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn make_folder(&self, path: &str) -> io::Result<()> {
        let mut at = self.0.as_fd().try_clone_to_owned()?;
        for name in path.split('/') {
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = step(&at, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        }
        Ok(())
    }

    /// Makes an empty file where nothing is, with the folders above it.
    ///
    /// # Errors
    /// As [`Tree::read`]; [`io::ErrorKind::AlreadyExists`] when there is something.
    pub fn make_empty(&self, path: &str) -> io::Result<()> {
        self.make_above(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.resolve(path, flags, Mode::from_raw_mode(0o666)).map(drop)
    }

    /// Moves a file to another folder, with the folders above it, unless something is there.
    ///
    /// # Errors
    /// As [`Tree::read`]; [`io::ErrorKind::AlreadyExists`] when there is something. The file is where it was then.
    pub fn rename_new(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        to.make_above(name)?;
        let ((from, from_name), (to, to_name)) = (self.above(from)?, to.above(name)?);
        crate::rename::rename_new_at((&from, from_name), (&to, to_name))
    }

    /// As [`Tree::rename_new`]; a file that is there is replaced.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn rename_over(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        to.make_above(name)?;
        let ((from, from_name), (to, to_name)) = (self.above(from)?, to.above(name)?);
        Ok(rustix::fs::renameat(&from, from_name, &to, to_name)?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        Ok(rustix::fs::unlinkat(&above, name, rustix::fs::AtFlags::empty())?)
    }

    fn make_above(&self, path: &str) -> io::Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(above, _)| self.make_folder(above))
    }

    /// The folder that a path's last name is in, open, and that name.
    fn above<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (folder, name) = match path.rsplit_once('/') {
            None => (self.0.as_fd().try_clone_to_owned()?, path),
            Some((above, name)) => {
                (self.resolve(above, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?.into(), name)
            }
        };
        match name {
            "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
            _ => Ok((folder, name)),
        }
    }

    /// Makes all that was written to the file system durable, names too: one call for any number of files.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::syncfs(&self.0).map_err(io::Error::from) {
            Err(error) if is_refused(&error) => {
                Lost::FileSync.warn(|| error.to_string());
                rustix::fs::sync();
                Ok(())
            }
            synced => synced,
        }
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.0, path, flags | ALWAYS, mode, resolve).map_err(io::Error::from) {
            Err(error) if is_refused(&error) => self.by_steps(path, flags, mode),
            opened => Ok(File::from(opened?)),
        }
    }

    fn by_steps(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
        let mut at = self.0.as_fd().try_clone_to_owned()?;
        let (above, last) = path.rsplit_once('/').map_or((None, path), |(above, last)| (Some(above), last));
        for name in above.into_iter().flat_map(|above| above.split('/')) {
            at = step(&at, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        }
        Ok(File::from(step(&at, last, flags, mode)?))
    }
}

/// Opens one name of a folder, which leads nowhere else.
fn step(at: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    match name {
        "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(rustix::fs::openat(at, name, flags | ALWAYS, mode)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Both ways to resolve a path.
    fn ways(beneath: &Tree, path: &str) -> [io::Result<File>; 2] {
        let (flags, mode) = (OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o600));
        [beneath.resolve(path, flags, mode), beneath.by_steps(path, flags, mode)]
    }

    #[test]
    fn nothing_outside_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("folder")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("new"), root.join("dangling")).unwrap();
        let beneath = Tree::open(&root).unwrap();
        let absolute = outside.join("file").display().to_string();
        for path in
            ["folder/file", "folder/new", "link", "dangling", "../outside/file", "a/../../x", "", &absolute]
        {
            for opened in ways(&beneath, path) {
                assert!(opened.is_err(), "{path}");
            }
            assert!(beneath.write(path).is_err() && beneath.read(path).is_err(), "{path}");
        }
        assert!(beneath.make_folder("folder/new").is_err() && beneath.make_folder("../new").is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"kept");
    }

    #[test]
    fn files_move_to_another_folder_and_replace_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other, outside) =
            (dir.path().join("one"), dir.path().join("other"), dir.path().join("out"));
        for folder in [&one, &other, &outside] {
            std::fs::create_dir(folder).unwrap();
        }
        std::os::unix::fs::symlink(&outside, other.join("link")).unwrap();
        let (from, to) = (Tree::open(&one).unwrap(), Tree::open(&other).unwrap());
        from.write("a/file").unwrap().write_all(b"new").unwrap();
        from.rename_new("a/file", &to, "deep/er/file").unwrap();
        assert_eq!(std::fs::read(other.join("deep/er/file")).unwrap(), b"new");
        from.write("a/file").unwrap().write_all(b"newer").unwrap();
        let taken = from.rename_new("a/file", &to, "deep/er/file").unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(to.make_empty("deep/er/file").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for path in ["link/file", "../out/file", "deep/../../out/file"] {
            assert!(from.rename_new("a/file", &to, path).is_err() && to.make_empty(path).is_err(), "{path}");
            assert!(from.rename_over("a/file", &to, path).is_err() && to.remove(path).is_err(), "{path}");
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        from.rename_over("a/file", &to, "deep/er/file").unwrap();
        assert_eq!(std::fs::read(other.join("deep/er/file")).unwrap(), b"newer");
        to.make_empty("new/empty").unwrap();
        to.remove("new/empty").unwrap();
        assert!(other.join("new").is_dir() && !other.join("new/empty").exists());
    }

    #[test]
    fn files_are_made_with_their_folders_and_found_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        let beneath = Tree::open(&old).unwrap();
        beneath.write("a/b/c").unwrap().write_all(b"content").unwrap();
        beneath.make_folder("a/empty").unwrap();
        std::fs::rename(&old, &new).unwrap();
        let mut text = String::new();
        beneath.read("a/b/c").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        for opened in ways(&beneath, "a/b/c") {
            assert_eq!(opened.unwrap().metadata().unwrap().len(), 7);
        }
        beneath.sync().unwrap();
        assert!(new.join("a/empty").is_dir() && !old.exists());
        assert_eq!(beneath.read("a/none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
