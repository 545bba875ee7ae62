//! Files and folders below a folder, reached without ever leaving it: no `..`, and no link that leads out. What was found is held
//! open, so that nothing that happens to the path afterwards changes what it is.
//!
//! The kernel looks the path up as a whole (`openat2`, `RESOLVE_BENEATH`). Where it does not know that call, or a container's filter
//! refuses it, the path is walked one component at a time, and links are not followed at all.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::is_refused;

/// Tries where the kernel could not be sure, because something was renamed meanwhile.
const TRIES: usize = 32;
/// The mode of folders that are made; the umask takes from it.
const FOLDER_MODE: u32 = 0o777;
/// What the kernel says at the end of the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// Something that was found, held open without being opened for reading: not even a pipe or device notices.
#[derive(Debug)]
pub struct Held(OwnedFd);

/// A folder, and everything below it.
#[derive(Debug)]
pub struct Beneath(Held);

impl Beneath {
    /// That folder, whatever its path leads to. Links in the path are followed.
    ///
    /// # Errors
    /// What the system says, also where it is no folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(Held(rustix::fs::open(folder, flags, Mode::empty())?)))
    }

    /// What is at a path below. An empty path is the folder itself.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] where the path is absolute, has `..`, or a link in it leads out; else what the system says.
    pub fn find(&self, below: &Path) -> io::Result<Held> {
        let below = plain(below)?;
        resolve(self.0.0.as_fd(), &below, OFlags::empty()).map(Held)
    }

    /// The folder at a path below; what is lacking of it is made.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn make_folder(&self, below: &Path) -> io::Result<Held> {
        let below = plain(below)?;
        match resolve(self.0.0.as_fd(), &below, OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(Held),
        }
        let mut folder = resolve(self.0.0.as_fd(), Path::new(""), OFlags::DIRECTORY)?;
        for part in below.iter().map(Path::new) {
            folder = match resolve(folder.as_fd(), part, OFlags::DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(FOLDER_MODE)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    resolve(folder.as_fd(), part, OFlags::DIRECTORY)?
                }
                // A link within the folder, seen from there only.
                Err(_) => resolve(self.0.0.as_fd(), &below, OFlags::DIRECTORY)?,
                Ok(next) => next,
            };
        }
        Ok(Held(folder))
    }
}

impl Held {
    /// What is at a path; links in it are followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// A path that leads to what is held and to nothing else, for as long as this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Where it is now, without links.
    ///
    /// # Errors
    /// When it has no name any more.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        let bytes = rustix::fs::readlinkat(CWD, self.path(), Vec::new())?.into_bytes();
        if bytes.ends_with(DELETED) && self.look()?.st_nlink == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(OsString::from_vec(bytes).into())
    }

    /// Whether that path, of which the last part is not followed, leads to it now.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (held, there) = (self.look()?, rustix::fs::lstat(path)?);
        Ok((held.st_dev, held.st_ino) == (there.st_dev, there.st_ino))
    }

    /// Whether it is a regular file.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_file(&self) -> io::Result<bool> {
        Ok(FileType::from_raw_mode(self.look()?.st_mode) == FileType::RegularFile)
    }

    /// Whether it is a folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_folder(&self) -> io::Result<bool> {
        Ok(FileType::from_raw_mode(self.look()?.st_mode) == FileType::Directory)
    }

    /// The folder that is held, to be listed.
    ///
    /// # Errors
    /// What the system says.
    pub fn entries(&self) -> io::Result<rustix::fs::Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.0, ".", flags, Mode::empty())?;
        Ok(rustix::fs::Dir::new(folder)?)
    }

    /// What has that name in the folder that is held; a link is looked at itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn entry(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Bytes that are free for this user on the drive of what is held; `None` where the file system does not say.
    ///
    /// # Errors
    /// What the system says.
    pub fn free(&self) -> io::Result<Option<u64>> {
        let system = rustix::fs::fstatvfs(&self.0)?;
        Ok((system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize)))
    }

    /// A new file in the folder that is held, under a name that must be free.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// Gives a file of the folder that is held another name there, which must be free.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when it is not; else what the system says.
    pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            Err(error) if is_refused(&error.into()) => {
                let folder = self.path();
                crate::rename_new(&folder.join(from), &folder.join(to))
            }
            renamed => Ok(renamed?),
        }
    }

    /// Removes a file of the folder that is held.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn look(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.0)?)
    }
}

impl From<File> for Held {
    fn from(file: File) -> Self {
        Self(file.into())
    }
}

/// The path, if it can only lead down.
fn plain(below: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in below.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return Err(outside()),
        }
    }
    Ok(plain)
}

fn resolve(folder: BorrowedFd<'_>, below: &Path, kind: OFlags) -> io::Result<OwnedFd> {
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(folder, below, flags, Mode::empty(), how) {
            Ok(found) => return Ok(found),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::XDEV) => return Err(outside()),
            // Each time anew: a file may be refused for reasons of its own, and no such answer opens any way around.
            Err(error) if is_refused(&error.into()) || error == Errno::TOOBIG => {
                return walk(folder, below, kind);
            }
            Err(error) => return Err(error.into()),
        }
    }
    walk(folder, below, kind)
}

/// The same without the kernel's help: no link is followed.
fn walk(folder: BorrowedFd<'_>, below: &Path, kind: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(folder, ".", flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut parts = below.iter().filter(|part| *part != ".").peekable();
    while let Some(part) = parts.next() {
        let folder = if parts.peek().is_some() { OFlags::DIRECTORY } else { kind };
        let next = rustix::fs::openat(&at, part, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
            FileType::Symlink => return Err(outside()),
            FileType::Directory => {}
            _ if folder.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR.into()),
            _ => {}
        }
        at = next;
    }
    Ok(at)
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the path leads out of the folder")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Resolve = fn(BorrowedFd<'_>, &Path, OFlags) -> io::Result<OwnedFd>;
    const WAYS: [Resolve; 2] = [resolve, walk];

    struct Fixture {
        dir: tempfile::TempDir,
        root: Beneath,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/sub/deep")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("out/secret"), "secret").unwrap();
        fs::write(dir.path().join("root/sub/file"), "content").unwrap();
        let at = |name: &str| dir.path().join("root").join(name);
        symlink("../out", at("relative")).unwrap();
        symlink(dir.path().join("out"), at("absolute")).unwrap();
        symlink("../out/secret", at("leaf")).unwrap();
        symlink("sub", at("inner")).unwrap();
        symlink("/proc/self/cwd", at("magic")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = Beneath::open(&dir.path().join("root")).unwrap();
        Fixture { dir, root }
    }

    #[test]
    fn nothing_outside_is_reached_by_either_way() {
        let fixture = fixture();
        for resolve in WAYS {
            for below in ["relative/secret", "absolute/secret", "leaf", "magic/x", "loop", "relative"] {
                let found = resolve(fixture.root.0.0.as_fd(), Path::new(below), OFlags::empty());
                assert!(found.is_err(), "{below}: {found:?}");
            }
            let found =
                resolve(fixture.root.0.0.as_fd(), Path::new("sub/file"), OFlags::empty()).map(Held).unwrap();
            assert!(found.is_file().unwrap());
            assert_eq!(fs::read(found.path()).unwrap(), b"content");
        }
        for below in ["../out/secret", "sub/../../out/secret", "/etc/passwd"] {
            let refused = fixture.root.find(Path::new(below)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{below}");
            assert!(fixture.root.make_folder(Path::new(below)).is_err(), "{below}");
        }
        assert!(
            fixture.root.find(Path::new("./sub/./file")).is_ok() && fixture.root.find(Path::new("")).is_ok()
        );
        assert!(fixture.root.make_folder(Path::new("relative/new")).is_err());
        assert!(!fixture.dir.path().join("out/new").exists());
    }

    #[test]
    fn folders_are_made_and_what_is_held_stays_what_it_is() {
        let fixture = fixture();
        let root = fixture.dir.path().join("root");
        let held = fixture.root.make_folder(Path::new("new/one")).unwrap();
        assert_eq!(held.real_path().unwrap(), fs::canonicalize(root.join("new/one")).unwrap());
        // Its place is taken by a link that leads out.
        fs::rename(root.join("new"), root.join("moved")).unwrap();
        symlink("../out", root.join("new")).unwrap();
        fs::create_dir(fixture.dir.path().join("out/one")).unwrap();
        drop(held.create(OsStr::new("a")).unwrap());
        held.rename_new(OsStr::new("a"), OsStr::new("b")).unwrap();
        assert!(root.join("moved/one/b").exists() && !fixture.dir.path().join("out/one/b").exists());
        drop(held.create(OsStr::new("c")).unwrap());
        assert!(held.is_at(&root.join("moved/one")).unwrap() && !held.is_at(&root.join("new/one")).unwrap());
        let taken = held.rename_new(OsStr::new("c"), OsStr::new("b")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        held.remove(OsStr::new("b")).unwrap();
        held.remove(OsStr::new("c")).unwrap();
        fs::remove_dir(root.join("moved/one")).unwrap();
        assert!(held.real_path().is_err() && held.create(OsStr::new("d")).is_err());
    }

    #[test]
    fn a_link_that_is_swapped_in_all_the_time_leads_nowhere_else() {
        let fixture = fixture();
        let root = fixture.dir.path().join("root");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::rename(root.join("sub"), root.join("away")).unwrap();
                    symlink("../out", root.join("sub")).unwrap();
                    fs::remove_file(root.join("sub")).unwrap();
                    fs::rename(root.join("away"), root.join("sub")).unwrap();
                }
            });
            for _ in 0..2_000 {
                for name in ["sub/file", "sub/secret"] {
                    if let Ok(found) = fixture.root.find(Path::new(name)) {
                        assert_eq!(fs::read(found.path()).unwrap(), b"content");
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
