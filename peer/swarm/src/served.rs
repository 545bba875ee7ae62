//! A file that is served: where its pieces are read from, and whether it is still the file that was shared. Reading
//! blocks; the writers of connections call it off the reactor.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_console::descriptors;
use shoal_engine::folder::SharedFolder;
use shoal_engine::hash::FileIdentity;
use shoal_engine::{Lack, PieceReadError, PieceReader};
use tokio::sync::watch;

use shoal_common::budget::Budget;

/// What is served under a [`super::FileKey`].
#[derive(Debug, Clone)]
pub struct Served {
    /// How the file is cut.
    pub layout: Layout,
    /// Where its bytes are.
    pub body: Body,
}

/// Where the bytes of a served file are.
#[derive(Debug, Clone)]
pub enum Body {
    /// The whole file, as it was when it was hashed or downloaded.
    File {
        /// Where it lies.
        path: PathBuf,
        /// What it must still be, whenever a piece is read.
        identity: FileIdentity,
    },
    /// The whole files of a folder, as they were when they were hashed or downloaded.
    Folder(SharedFolder),
    /// A download that is not finished.
    Partial {
        /// Reads its verified pieces.
        reader: PieceReader,
        /// Which they are.
        verified: watch::Receiver<Arc<Bitfield>>,
    },
}

/// Why a piece of a served file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFailure {
    /// It is not the file that was shared any more.
    #[error("the file changed, or is not there any more")]
    Changed,
    /// The piece is not here.
    #[error("the piece is not here")]
    Missing,
    /// This process or the machine lacks something for a moment: the file is still what was shared.
    #[error("the file cannot be read now: {0}")]
    Busy(io::Error),
    /// The disk failed.
    #[error("cannot read the file: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        match Lack::of(&error) {
            Some(Lack::Descriptors | Lack::Memory) => Self::Busy(error),
            _ => Self::Io(error),
        }
    }
}

/// A [`Body`] with its open file.
#[derive(Debug)]
pub(super) struct Source {
    layout: Layout,
    body: Body,
    /// Kept open while a requester has the file open.
    open: Mutex<Option<Kept>>,
}

/// Files that are kept open in this process.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A file that is kept open, and counted.
#[derive(Debug)]
struct Kept(Arc<File>);

impl Kept {
    /// Keeps a file open, unless so many are that others would lack descriptors: then it is opened for each read.
    fn new(file: &Arc<File>) -> Option<Self> {
        let kept = Self(file.clone());
        let most = Budget::of(descriptors::limit()).shared_files;
        (KEPT.fetch_add(1, Ordering::Relaxed) < most).then_some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source {
    pub(super) fn new(served: Served) -> Self {
        Self { layout: served.layout, body: served.body, open: Mutex::default() }
    }

    /// What is served.
    pub(super) fn served(&self) -> Served {
        Served { layout: self.layout.clone(), body: self.body.clone() }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether it is a download that is not finished.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self.body, Body::Partial { .. })
    }

    /// Fills `into` with bytes of a piece from `offset` in it. Blocking. What was read counts only if the file is
    /// afterwards still the one that was shared.
    pub(super) fn read(&self, piece: PieceIndex, offset: u32, into: &mut [u8]) -> Result<(), ReadFailure> {
        match &self.body {
            Body::Partial { reader, .. } => reader.read(piece, offset, into).map_err(|error| match error {
                PieceReadError::Missing | PieceReadError::Range => ReadFailure::Missing,
                PieceReadError::Io(error) => error.into(),
            }),
            Body::Folder(folder) => {
                let at = self.layout.offset(piece) + u64::from(offset);
                folder.read(&self.layout, at, into)?.ok_or(ReadFailure::Changed)
            }
            Body::File { path, identity } => {
                let file = self.file(path, identity)?;
                let at = self.layout.offset(piece) + u64::from(offset);
                file.read_exact_at(into, at).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => ReadFailure::Changed,
                    _ => error.into(),
                })?;
                unchanged(FileIdentity::of(path), identity)
            }
        }
    }

    /// Closes the file until it is read again.
    pub(super) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn file(&self, path: &Path, identity: &FileIdentity) -> Result<Arc<File>, ReadFailure> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept(file)) = &*open {
            return Ok(file.clone());
        }
        // Looked at before it is opened: what stands there now may be a pipe, which would block.
        unchanged(FileIdentity::of(path), identity)?;
        // And it may be there only now.
        let nonblock = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(gone)?;
        unchanged(FileIdentity::of_open(&file), identity)?;
        let file = Arc::new(file);
        *open = Kept::new(&file);
        Ok(file)
    }
}

fn unchanged(found: io::Result<FileIdentity>, expected: &FileIdentity) -> Result<(), ReadFailure> {
    match found {
        Ok(found) if expected.is_still(&found) => Ok(()),
        Ok(_) => Err(ReadFailure::Changed),
        Err(error) => Err(gone(error)),
    }
}

fn gone(error: io::Error) -> ReadFailure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadFailure::Changed,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Fixture {
        _folder: tempfile::TempDir,
        path: PathBuf,
        source: Source,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
        fs::write(&path, &bytes).unwrap();
        let identity = FileIdentity::of(&path).unwrap();
        let layout = Layout::new(200_000, 65_536).unwrap();
        let source = Source::new(Served { layout, body: Body::File { path: path.clone(), identity } });
        Fixture { _folder: folder, path, source }
    }

    fn read(source: &Source) -> Result<Vec<u8>, ReadFailure> {
        let mut bytes = vec![0; 100];
        source.read(source.layout().piece(3).unwrap(), 5, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn pieces_are_read() {
        let fixture = fixture();
        let expected: Vec<u8> = (196_613..196_713u32).map(|n| n.to_le_bytes()[0]).collect();
        assert_eq!(read(&fixture.source).unwrap(), expected);
        fixture.source.close();
        assert_eq!(read(&fixture.source).unwrap(), expected);
    }

    #[test]
    fn a_changed_file_is_noticed_open_or_not() {
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |path| fs::write(path, b"short").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                let other = path.with_extension("other");
                fs::copy(path, &other).unwrap();
                fs::rename(other, path).unwrap();
            },
            |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"x", 0).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            for opened in [true, false] {
                let fixture = fixture();
                if opened {
                    read(&fixture.source).unwrap();
                }
                change(&fixture.path);
                let result = read(&fixture.source);
                assert!(matches!(result, Err(ReadFailure::Changed)), "{number} {opened}: {result:?}");
            }
        }
    }
}
