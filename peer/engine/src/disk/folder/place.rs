//! The folder itself: files go there, under their names, once they are right and durable. What somebody has there already is
//! taken as it is, and never replaced unasked.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use shoal_disk::Tree;

use crate::content::{Overwrite, Target};
use crate::hash::FileIdentity;

/// The coarsest times of a file system: a change within this time of another may not show.
const GRANULARITY: Duration = Duration::from_secs(2);

/// Behind the name of an empty file until it takes another one's place.
const DRAFT: &str = ".shoal-empty~";

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    overwrite: Overwrite,
    keeps_modes: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Open, once it is there.
    tree: Option<Arc<Tree>>,
    /// The files that are there and right, as they looked then.
    files: HashMap<usize, FileIdentity>,
}

impl Place {
    /// The place of a target; `keeps_modes`: files are made executable that were where they were shared.
    pub(super) fn of(target: &Target, keeps_modes: bool) -> Self {
        let (path, overwrite) = (target.path().to_owned(), target.overwrite());
        Self { path, overwrite, keeps_modes, inner: Mutex::default() }
    }

    /// Whether different files may be replaced.
    pub(super) fn replaces(&self) -> bool {
        self.overwrite == Overwrite::Replace
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder, open, if it is there.
    pub(super) fn tree(&self) -> io::Result<Option<Arc<Tree>>> {
        let mut inner = self.inner();
        if inner.tree.is_none() {
            match std::fs::symlink_metadata(&self.path) {
                Ok(found) if found.is_dir() => inner.tree = Some(Arc::new(Tree::open(&self.path)?)),
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(inner.tree.clone())
    }

    /// The folder, made if there is none.
    pub(super) fn made(&self) -> io::Result<Arc<Tree>> {
        if let Some(tree) = self.tree()? {
            return Ok(tree);
        }
        match std::fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.tree()?.ok_or(io::ErrorKind::NotFound.into())
    }

    /// Whether the file of that number is there and right.
    pub(super) fn has(&self, file: usize) -> bool {
        self.inner().files.contains_key(&file)
    }

    /// What is there under that name is right.
    pub(super) fn is_right(&self, file: usize, looks: FileIdentity) {
        self.inner().files.insert(file, looks);
    }

    /// Opens a file that is there and right; an error if it is not what it was.
    pub(super) fn open(&self, file: usize, name: &str) -> io::Result<Opened> {
        let (tree, looks) = {
            let inner = self.inner();
            (inner.tree.clone(), inner.files.get(&file).cloned())
        };
        let (Some(tree), Some(looks)) = (tree, looks) else { return Err(io::ErrorKind::NotFound.into()) };
        let opened = Opened { file: tree.read(name)?, looks };
        opened.check()?;
        Ok(opened)
    }

    /// Looks at what is there under a name, without reading it.
    pub(super) fn look(&self, name: &str) -> io::Result<Option<File>> {
        let Some(tree) = self.tree()? else { return Ok(None) };
        match tree.read(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Gives a file of another folder, which is durable there, its name here.
    pub(super) fn put(&self, from: &Tree, file: usize, name: &str, exec: bool) -> io::Result<()> {
        let to = self.made()?;
        if exec && self.keeps_modes {
            make_executable(&from.read(name)?)?;
        }
        match from.rename_new(name, &to, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.replaces() => {
                let there = to.read(name)?.metadata()?;
                if !there.is_file() {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                from.rename_over(name, &to, name)?;
            }
            renamed => renamed?,
        }
        let looks = FileIdentity::of_open(&to.read(name)?)?;
        self.is_right(file, looks);
        Ok(())
    }

    /// Makes an empty file, unless there is one.
    pub(super) fn put_empty(&self, file: usize, name: &str, exec: bool) -> io::Result<()> {
        let to = self.made()?;
        match to.make_empty(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = to.read(name)?;
                match there.metadata()? {
                    found if found.is_file() && found.len() == 0 => {}
                    // Not emptied: it may have another name elsewhere.
                    found if found.is_file() && self.replaces() => {
                        let empty = format!("{name}{DRAFT}");
                        match to.make_empty(&empty) {
                            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                            _ => to.rename_over(&empty, &to, name)?,
                        }
                    }
                    _ => return Err(error),
                }
            }
            made => made?,
        }
        let opened = to.read(name)?;
        if exec && self.keeps_modes {
            make_executable(&opened)?;
        }
        self.is_right(file, FileIdentity::of_open(&opened)?);
        Ok(())
    }

    /// A file that was there already is right: it stays, and becomes executable where that was asked for.
    pub(super) fn keep(&self, file: usize, opened: &File, exec: bool) -> io::Result<()> {
        if exec && self.keeps_modes {
            make_executable(opened)?;
        }
        self.is_right(file, FileIdentity::of_open(opened)?);
        Ok(())
    }
}

/// A file that is there and right, open.
pub(super) struct Opened {
    pub(super) file: File,
    looks: FileIdentity,
}

impl Opened {
    /// Fails if the file is not what it was.
    pub(super) fn check(&self) -> io::Result<()> {
        let same = self.looks.is_still(&FileIdentity::of_open(&self.file)?);
        if same { Ok(()) } else { Err(io::Error::other("the file was changed")) }
    }
}

/// Whether nothing of a file changed since `checkpoint`.
pub(super) fn is_untouched(file: &File, checkpoint: SystemTime) -> io::Result<bool> {
    let looks = FileIdentity::of_open(file)?;
    let before = |time: SystemTime| time.checked_add(GRANULARITY).is_some_and(|later| later <= checkpoint);
    Ok(before(looks.modified) && looks.changed.is_some_and(before))
}

/// Whoever may read it may execute it.
fn make_executable(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    let mode = found.mode() & 0o7777;
    let more = mode | (mode & 0o444) >> 2;
    if more != mode {
        match file.set_permissions(std::fs::Permissions::from_mode(more)) {
            // A file system without modes.
            Err(error) if !shoal_disk::is_refused(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
