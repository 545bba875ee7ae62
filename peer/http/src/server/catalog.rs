//! What is served: one file, or the files of a folder by name. In folder mode the kernel itself keeps every path inside
//! (`openat2` with `RESOLVE_BENEATH`): neither `..` nor a symbolic link leads out. An unfinished download is served under
//! the name that it will have, and its own files are not. Blocking.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use shoal_common::FileName;
use shoal_common::names::is_same;
use shoal_engine::{Overwrite, Partial, Target, regular};

use crate::server::opened::Opened;

/// How the files of an unfinished download end.
const UNFINISHED: [&str; 6] = [".part", ".pstate", ".pstate~", ".pinfo", ".pinfo~", ".pfrom"];
/// Entries of a folder that are listed at most.
const MAX_ENTRIES: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(super) enum Catalog {
    /// One file, under its own name. `part`: its unfinished download was asked for, although it may be there, too.
    File { path: PathBuf, name: FileName, part: bool },
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
    /// It is still being downloaded.
    pub(super) unfinished: bool,
}

impl Catalog {
    /// The file at `path`.
    pub(super) fn file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let path = &regular::found(path);
        let (path, part) = match final_path(path) {
            Some(path) => (path, true),
            None => (path.to_owned(), false),
        };
        let full = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) if part || !path.exists() && open_unfinished(&path)?.is_some() => {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                folder.canonicalize().with_context(|| format!("cannot serve {shown}"))?.join(name)
            }
            _ => path.canonicalize().with_context(|| format!("cannot serve {shown}"))?,
        };
        if full.is_dir() {
            bail!("cannot serve {shown}: it is a folder; use --root for a folder's files");
        }
        let text = path.file_name().and_then(|name| name.to_str());
        let text = text.with_context(|| format!("cannot serve {shown}: its name is not UTF-8 text"))?;
        let name = FileName::refer(text).with_context(|| format!("cannot serve {shown}"))?;
        let catalog = Self::File { path: full, name, part };
        catalog.only_file().map(|_| catalog)
    }

    /// The folder at `path`.
    pub(super) fn folder(path: &Path) -> Result<Self> {
        let shown = path.display();
        let full = regular::found(path);
        let full = full.canonicalize().with_context(|| format!("cannot serve {shown}"))?;
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
        let Self::File { path, name, part } = self else { return Ok(None) };
        if let Ok(Some(opened)) = find_file(path, name, *part)
            && opened.part().is_some()
        {
            return Ok(Some(opened));
        }
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
        matches!(self, Self::File { path, name, part } if matches!(find_file(path, name, *part), Ok(None)))
    }

    /// Bytes that are there and bytes in all, of the one file that is still being downloaded. Blocking.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let Self::File { path, name, part } = self else { return None };
        let opened = find_file(path, name, *part).ok()??;
        opened.part().map(|part| (part.held.bytes(), part.held.size()))
    }

    /// What is at these decoded segments of a path.
    pub(super) fn find(&self, segments: &[String]) -> io::Result<Found> {
        match self {
            Self::File { path, name, part } => match segments {
                [] => {
                    let opened = find_file(path, name, *part)?;
                    let entry = |opened: Opened| Entry {
                        name: name.clone(),
                        size: Some(opened.version().size),
                        unfinished: opened.part().is_some(),
                    };
                    Ok(Found::Folder(opened.map(entry).into_iter().collect()))
                }
                [one] if is_same(one, name.as_str()) => {
                    Ok(find_file(path, name, *part)?.map_or(Found::Lost, Found::File))
                }
                _ => Ok(Found::Nothing),
            },
            Self::Folder { root, path } => {
                let found = find_beneath(root, path, segments)?;
                if !matches!(found, Found::Nothing) || segments.iter().all(|segment| segment.is_ascii()) {
                    return Ok(found);
                }
                // The names may be written in another normal form on the disk.
                let full = segments.iter().fold(path.clone(), |path, segment| path.join(segment));
                let full = regular::found(&full);
                let other = full.strip_prefix(path).ok().and_then(|inner| {
                    inner.iter().map(|part| part.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
                });
                other
                    .filter(|other| other != segments)
                    .map_or(Ok(found), |other| find_beneath(root, path, &other))
            }
        }
    }
}

/// The file, or its unfinished download. A download that is finished at this moment is at neither place only once.
fn find_file(path: &Path, name: &FileName, part_first: bool) -> io::Result<Option<Opened>> {
    let unfinished = || open_unfinished(path);
    let first = if part_first { unfinished()? } else { None };
    for _ in 0..2 {
        if first.is_some() {
            break;
        }
        if let Some(opened) = still(open_file(path, name))? {
            return Ok(Some(opened));
        }
        if let Some(opened) = unfinished()? {
            return Ok(Some(opened));
        }
    }
    Ok(first)
}

/// Where the file will be of which this is the partial file; `None` if it is none of ours.
fn final_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(".part").filter(|name| !name.is_empty())?;
    let path = path.with_file_name(name);
    open_unfinished(&path).ok().flatten().map(|_| path)
}

fn open_unfinished(path: &Path) -> io::Result<Option<Opened>> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Some(File::from(rustix::fs::open(path, flags, Mode::empty())?)))
    };
    unfinished(path, path, |path| absent(open(path)))
}

/// The unfinished download to `path`. What is read of its state is of the partial file that is open if that one is still
/// in its place afterwards: another download's would have taken that first.
fn unfinished(
    path: &Path,
    key: &Path,
    open: impl Fn(&Path) -> io::Result<Option<File>>,
) -> io::Result<Option<Opened>> {
    let Some(name) = path.file_name().and_then(|name| FileName::refer(name.to_str()?).ok()) else {
        return Ok(None);
    };
    let target = Target::new(path, Overwrite::Refuse);
    let regular = |path: PathBuf| {
        let opened = open(&path)?;
        Ok::<_, io::Error>(opened.filter(|file| file.metadata().is_ok_and(|found| found.is_file())))
    };
    let (Some(part), Some(info), Some(state)) =
        (regular(target.part_path())?, regular(target.info_path())?, regular(target.state_path())?)
    else {
        return Ok(None);
    };
    let Some(partial) = Partial::read(info, state)? else { return Ok(None) };
    let opened = Opened::unfinished(part, name, key.to_owned(), &partial)?;
    let in_place = match regular(target.part_path())? {
        Some(again) => opened.is_same_file(&again)?,
        None => false,
    };
    Ok(Some(opened).filter(|_| in_place))
}

/// `None` for what cannot be opened because it is not there, or something else is.
fn absent(opened: io::Result<Option<File>>) -> io::Result<Option<File>> {
    match opened {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) =>
        {
            Ok(None)
        }
        opened => opened,
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
    let unfinished = |inner: &Path| unfinished(inner, &path.join(inner), |inner| open_beneath(root, inner));
    // One more time: a download may be finished at this moment.
    for _ in 0..2 {
        if let Some(opened) = open_beneath(root, &inner)? {
            return found_beneath(opened, path, &inner, segments, unfinished);
        }
        if !segments.is_empty()
            && let Some(opened) = unfinished(&inner)?
        {
            return Ok(Found::File(opened));
        }
    }
    Ok(Found::Nothing)
}

/// Opens what is at a path inside the folder; `None` if nothing is.
fn open_beneath(root: &OwnedFd, inner: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(root, inner, flags, Mode::empty(), resolve) {
        // An old kernel, or a container that does not know this call.
        Err(error) if shoal_disk::is_refused(&error.into()) => open_and_compare(root, inner, flags),
        opened => opened,
    };
    match opened {
        Ok(opened) => Ok(Some(File::from(opened))),
        // The answer does not tell what is missing from what is forbidden or outside.
        Err(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::LOOP
            | Errno::ACCESS
            | Errno::NAMETOOLONG
            | Errno::NXIO,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As `openat2` does, without it: finds what is there, then asks the system where that is. Only what is inside is opened, and
/// it is the very thing that was found, whatever happens to the path meanwhile.
fn open_and_compare(root: &OwnedFd, inner: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let found = rustix::fs::openat(root, inner, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = |opened: &OwnedFd| format!("/proc/self/fd/{}", opened.as_raw_fd());
    let place = |opened: &OwnedFd| {
        let path = rustix::fs::readlink(link(opened), Vec::new())?;
        Ok::<_, Errno>(PathBuf::from(OsString::from_vec(path.into_bytes())))
    };
    if !place(&found)?.starts_with(place(root)?) {
        return Err(Errno::XDEV);
    }
    rustix::fs::open(link(&found), flags, Mode::empty())
}

fn found_beneath(
    opened: File,
    path: &Path,
    inner: &Path,
    segments: &[String],
    unfinished: impl Fn(&Path) -> io::Result<Option<Opened>>,
) -> io::Result<Found> {
    if opened.metadata()?.is_dir() {
        let mut entries = list(&opened)?;
        show_unfinished(&mut entries, |name| unfinished(&inner.join(name.as_str())));
        return Ok(Found::Folder(entries));
    }
    // The files of an unfinished download are no files of their own.
    if let Some(owner) = segments.last().and_then(|name| owner_of(name))
        && unfinished(&inner.with_file_name(owner))?.is_some()
    {
        return Ok(Found::Nothing);
    }
    let Some(name) = segments.last().and_then(|name| FileName::refer(name).ok()) else {
        return Ok(Found::Nothing);
    };
    Ok(Opened::new(opened, name, path.join(inner))?.map_or(Found::Nothing, Found::File))
}

/// The file that a file of an unfinished download belongs to, by its name.
fn owner_of(name: &str) -> Option<&str> {
    UNFINISHED.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|owner| !owner.is_empty())
}

/// Puts the file that is being downloaded in the place of the files of its download.
fn show_unfinished(entries: &mut Vec<Entry>, open: impl Fn(&FileName) -> io::Result<Option<Opened>>) {
    let owners = entries.iter().filter_map(|entry| entry.name.as_str().strip_suffix(".part"));
    let owners: Vec<FileName> = owners.filter_map(|owner| FileName::refer(owner).ok()).collect();
    for owner in owners {
        let Ok(Some(opened)) = open(&owner) else { continue };
        entries.retain(|entry| owner_of(entry.name.as_str()) != Some(owner.as_str()));
        if entries.iter().all(|entry| entry.name != owner) {
            entries.push(Entry { name: owner, size: Some(opened.version().size), unfinished: true });
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
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
                let size = Some(u64::try_from(found.st_size).unwrap_or(0));
                entries.push(Entry { name, size, unfinished: false });
            }
            FileType::Directory => entries.push(Entry { name, size: None, unfinished: false }),
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
        assert_eq!(
            entries,
            [Entry { name: FileName::create("sub").unwrap(), size: None, unfinished: false }]
        );
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
