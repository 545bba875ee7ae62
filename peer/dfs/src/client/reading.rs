//! The local file of a PUT: a regular one, of the size that reading gives, and unchanged while it is stored.
//!
//! Files that the system makes up when they are read, such as those in `/proc`, name a size that is not theirs, and give
//! something else each time. Such a file is read once, into memory, and what came is stored.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use shoal_engine::regular;

use super::StoreError;
use super::unfinished::Fingerprint;

/// Most bytes that are taken of a file that the system makes up: the longest are tables of kernel symbols and maps of memory, of
/// a few MiB.
const MAX_MADE_UP: u64 = 64 * 1024 * 1024;

/// A file that is to be stored.
#[derive(Debug)]
pub(super) struct Reading {
    path: PathBuf,
    pub(super) file: File,
    pub(super) fingerprint: Fingerprint,
    /// Whether it is a copy in memory, which nobody changes.
    copied: bool,
}

impl Reading {
    /// Opens the file. Blocking.
    ///
    /// # Errors
    /// When it is no regular file, cannot be read, or does not end.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let unreadable = |error| StoreError::not_read(path, error);
        let (file, found) = regular::open(path).map_err(unreadable)?;
        let fingerprint = Fingerprint::of(&found);
        let read = |error: io::Error| unreadable(error.into());
        if regular::gives_its_size(&file, found.len()).map_err(read)? {
            return Ok(Self { path: path.to_owned(), file, fingerprint, copied: false });
        }
        if file.metadata().map_err(read)?.len() != found.len() {
            return Err(StoreError::Changed(path.to_owned()));
        }
        let copy = copy(file).map_err(read)?;
        let Some(copy) = copy else {
            return Err(StoreError::Endless { path: path.to_owned(), size: found.len(), most: MAX_MADE_UP });
        };
        let fingerprint = Fingerprint::of(&copy.metadata().map_err(read)?);
        Ok(Self { path: path.to_owned(), file: copy, fingerprint, copied: true })
    }

    /// Whether nobody has written to it, nor put another in its place, since it was opened. Blocking.
    pub(super) fn is_unchanged(&self) -> bool {
        self.copied
            || std::fs::metadata(&self.path).is_ok_and(|now| Fingerprint::of(&now) == self.fingerprint)
    }
}

/// All that reading gives, in memory; `None` if that is too much.
fn copy(file: File) -> io::Result<Option<File>> {
    let memory = rustix::fs::memfd_create("shoal-put", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    let count = io::copy(&mut file.take(MAX_MADE_UP + 1), &mut memory)?;
    memory.flush()?;
    Ok((count <= MAX_MADE_UP).then_some(memory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_is_as_long_as_reading_gives() {
        let reading = Reading::open(Path::new("/proc/self/maps")).unwrap();
        let mut bytes = vec![0; usize::try_from(reading.fingerprint.size).unwrap()];
        reading.file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(reading.is_unchanged() && String::from_utf8(bytes).unwrap().contains("[stack]"));
    }

    #[test]
    fn a_file_that_was_written_to_or_replaced_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let reading = Reading::open(&path).unwrap();
        assert!(reading.is_unchanged());
        std::fs::write(folder.path().join("other"), "two").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(!reading.is_unchanged());
        std::fs::remove_file(&path).unwrap();
        assert!(!reading.is_unchanged());
    }
}
