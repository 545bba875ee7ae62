//! A file as it was when it was opened. Reading fails as soon as the file has changed since.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shoal_common::FileName;
use shoal_engine::{Content, Partial, regular};

use crate::held::Held;

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Size in bytes.
    pub(super) size: u64,
    /// Time of the last modification, in nanoseconds since 1970.
    pub(super) modified: u128,
    /// Inode number.
    pub(super) inode: u64,
}

impl Version {
    fn of(found: &Metadata) -> io::Result<Self> {
        let since = found.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Self { size: found.len(), modified: since.as_nanos(), inode: found.ino() })
    }

    /// The `ETag` of this version; a strong one.
    pub(super) fn etag(&self) -> String {
        format!("\"{:x}-{:x}-{:x}\"", self.inode, self.size, self.modified)
    }

    /// The `Last-Modified` date, to the second.
    pub(super) fn last_modified(&self) -> SystemTime {
        let seconds = u64::try_from(self.modified / 1_000_000_000).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// An open file of a certain version.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    name: FileName,
    /// The key in the digest store: its full path.
    key: PathBuf,
    version: Version,
    /// What is there of it, if it is still being downloaded.
    part: Option<Box<Part>>,
}

/// An unfinished download.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// What it will be.
    pub(super) content: Content,
    /// The parts that are there for good.
    pub(super) held: Held,
}

impl Opened {
    /// Takes an open file; `None` if it is not a regular one.
    pub(super) fn new(file: File, name: FileName, key: PathBuf) -> io::Result<Option<Self>> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(None);
        }
        let version = Version::of(&found)?;
        Ok(Some(Self { file, name, key, version, part: None }))
    }

    /// Takes the open file of an unfinished download.
    pub(super) fn unfinished(
        file: File,
        name: FileName,
        key: PathBuf,
        partial: &Partial,
    ) -> io::Result<Self> {
        let content = partial.content().clone();
        let version = Version { size: content.layout().size(), ..Version::of(&file.metadata()?)? };
        let held = Held::pieces(content.layout(), partial.durable());
        Ok(Self { file, name, key, version, part: Some(Box::new(Part { content, held })) })
    }

    /// What is there, if the file is still being downloaded.
    pub(super) fn part(&self) -> Option<&Part> {
        self.part.as_deref()
    }

    /// Whether both are one file on the disk.
    pub(super) fn is_same_file(&self, other: &File) -> io::Result<bool> {
        let (one, other) = (self.file.metadata()?, other.metadata()?);
        Ok(one.ino() == other.ino() && one.dev() == other.dev())
    }

    /// Whether reading gives as many bytes as the size says. A file that has another size by now passes: it is being
    /// written to. Blocking.
    pub(super) fn gives_its_size(&self) -> io::Result<bool> {
        let gives = regular::gives_its_size(&self.file, self.version.size)?;
        Ok(gives || self.file.metadata()?.len() != self.version.size)
    }

    pub(super) fn name(&self) -> &FileName {
        &self.name
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// A path that leads to this very file, whatever happens to its name.
    pub(super) fn fd_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Reads up to `most` bytes at `offset`. Of an unfinished download only held parts may be read. Blocking.
    ///
    /// # Errors
    /// When the file ends there, or is not the version any more that was opened.
    pub(super) fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(most);
        loop {
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // After the read: a change before it shows, one after it did not touch these bytes.
        if self.part.is_none() && Version::of(&self.file.metadata()?)? != self.version {
            return Err(io::Error::other("the file changed while it was being served"));
        }
        Ok(bytes.into())
    }
}
