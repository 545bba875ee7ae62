//! What is served: one file, or the files of a folder by name. In folder mode the kernel itself keeps every path inside
//! (`openat2` with `RESOLVE_BENEATH`): neither `..` nor a symbolic link leads out. Blocking.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use shoal_common::FileName;
use shoal_engine::regular;

use crate::server::opened::Opened;

/// Entries of a folder that are listed at most.
const MAX_ENTRIES: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(super) enum Catalog {
    /// One file, under its own name.
    File { path: PathBuf, name: FileName },
    /// A folder.
    Folder { root: OwnedFd, path: PathBuf },
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    File(Opened),
    Folder(Vec<Entry>),
    Nothing,
    /// The one file that is served was moved or deleted.
    Lost,
}

/// An entry of a folder: a regular file with its size, or another folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: FileName,
    /// `None`: a folder.
    pub(super) size: Option<u64>,
}

impl Catalog {
    /// The file at `path`.
    pub(super) fn file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let full = path.canonicalize().with_context(|| format!("cannot serve {shown}"))?;
        if full.is_dir() {
            bail!("cannot serve {shown}: it is a folder; use --root for a folder's files");
        }
        let text = path.file_name().and_then(|name| name.to_str());
        let text = text.with_context(|| format!("cannot serve {shown}: its name is not UTF-8 text"))?;
        let name = FileName::refer(text).with_context(|| format!("cannot serve {shown}"))?;
        let catalog = Self::File { path: full, name };
        catalog.only_file().map(|_| catalog)
    }

    /// The folder at `path`.
    pub(super) fn folder(path: &Path) -> Result<Self> {
        let shown = path.display();
        let full = path.canonicalize().with_context(|| format!("cannot serve {shown}"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&full, flags, Mode::empty())
            .with_context(|| format!("cannot serve the folder {shown}"))?;
        Ok(Self::Folder { root, path: full })
    }

    /// What it is called.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::File { name, .. } => name.to_string(),
            Self::Folder { path, .. } => path.display().to_string(),
        }
    }

    /// The file, if it is only one.
    pub(super) fn only_file(&self) -> Result<Option<Opened>> {
        let Self::File { path, name } = self else { return Ok(None) };
        // Said before it is opened: a pipe would wait, and a device might do something.
        regular::check(path).with_context(|| format!("cannot serve {}", path.display()))?;
        match open_file(path, name) {
            Ok(Some(opened)) if opened.gives_its_size()? => Ok(Some(opened)),
            Ok(Some(opened)) => bail!(
                "cannot serve {}: it says that it has {} bytes, and reading gives another number, as with files that the \
                 system makes up; serve a copy of it",
                path.display(),
                opened.version().size
            ),
            Ok(None) => bail!("cannot serve {}: it is not a regular file", path.display()),
            Err(error) => Err(error).with_context(|| format!("cannot serve {}", path.display())),
        }
    }

    /// Whether what is served was moved or deleted. Blocking.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::File { path, name } if matches!(still(open_file(path, name)), Ok(None)))
    }

    /// What is at these decoded segments of a path.
    pub(super) fn find(&self, segments: &[String]) -> io::Result<Found> {
        match self {
            Self::File { path, name } => match segments {
                [] => {
                    let opened = still(open_file(path, name))?;
                    let entry =
                        |opened: Opened| Entry { name: name.clone(), size: Some(opened.version().size) };
                    Ok(Found::Folder(opened.map(entry).into_iter().collect()))
                }
                [one] if one == name.as_str() => {
                    Ok(still(open_file(path, name))?.map_or(Found::Lost, Found::File))
                }
                _ => Ok(Found::Nothing),
            },
            Self::Folder { root, path } => find_beneath(root, path, segments),
        }
    }
}

/// A file that is gone is an answer, not an error.
fn still(opened: io::Result<Option<Opened>>) -> io::Result<Option<Opened>> {
    match opened {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other,
    }
}

fn open_file(path: &Path, name: &FileName) -> io::Result<Option<Opened>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    // Opening a pipe must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    Opened::new(File::from(file), name.clone(), path.to_owned())
}

fn find_beneath(root: &OwnedFd, path: &Path, segments: &[String]) -> io::Result<Found> {
    let inner: PathBuf = if segments.is_empty() { PathBuf::from(".") } else { segments.iter().collect() };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(root, &inner, flags, Mode::empty(), resolve) {
        Ok(opened) => File::from(opened),
        // The answer does not tell what is missing from what is forbidden or outside.
        Err(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::LOOP
            | Errno::ACCESS
            | Errno::NAMETOOLONG
            | Errno::NXIO,
        ) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    if opened.metadata()?.is_dir() {
        return list(&opened).map(Found::Folder);
    }
    let Some(name) = segments.last().and_then(|name| FileName::refer(name).ok()) else {
        return Ok(Found::Nothing);
    };
    Ok(Opened::new(opened, name, path.join(inner))?.map_or(Found::Nothing, Found::File))
}

/// Files and folders in name order; hidden ones and links are not listed.
fn list(folder: &File) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)?.take(MAX_ENTRIES) {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let Ok(name) = FileName::refer(name) else { continue };
        let Ok(found) = rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                entries.push(Entry { name, size: Some(u64::try_from(found.st_size).unwrap_or(0)) });
            }
            FileType::Directory => entries.push(Entry { name, size: None }),
            _ => {}
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(catalog: &Catalog, path: &str) -> Found {
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        catalog.find(&segments).unwrap()
    }

    #[test]
    fn a_folder_is_never_left() {
        let folder = tempfile::tempdir().unwrap();
        let (root, secret) = (folder.path().join("root"), folder.path().join("outside/secret"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        std::fs::write(&secret, "x").unwrap();
        std::fs::write(root.join("sub/in"), "inside").unwrap();
        std::fs::write(root.join(".hidden"), "x").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link(&secret, "out");
        link(secret.parent().unwrap(), "outdir");
        link(Path::new("sub/in"), "within");
        link(&Path::new("/proc/self/root").join(secret.strip_prefix("/").unwrap()), "magic");
        link(Path::new("../outside/secret"), "dots");
        for way in ["out", "outdir/secret", "magic", "dots"] {
            assert_eq!(std::fs::read(root.join(way)).unwrap(), b"x", "{way} leads nowhere");
        }
        let catalog = Catalog::folder(&root).unwrap();
        for path in
            ["out", "outdir", "outdir/secret", "magic", "dots", "..", "sub/../../x", "none", "sub/in/x"]
        {
            assert!(matches!(find(&catalog, path), Found::Nothing), "{path}");
        }
        for path in ["sub/in", "within"] {
            assert!(matches!(find(&catalog, path), Found::File(file) if file.version().size == 6), "{path}");
        }
        let Found::Folder(entries) = find(&catalog, "") else { unreachable!() };
        assert_eq!(entries, [Entry { name: FileName::create("sub").unwrap(), size: None }]);
    }

    #[test]
    fn special_files_are_not_served() {
        let root = tempfile::tempdir().unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join("pipe"), FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(find(&Catalog::folder(root.path()).unwrap(), "pipe"), Found::Nothing));
        assert!(Catalog::file(&root.path().join("pipe")).is_err());
        assert!(Catalog::file(root.path()).is_err());
        assert!(Catalog::file(&root.path().join("missing")).unwrap_err().to_string().contains("missing"));
    }
}
