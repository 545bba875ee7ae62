//! Hashes a file that is to be shared: one sequential read, its pieces' digests on one thread and the whole file's on
//! another. Blocking; refuses whatever would make the digests those of no file that ever was.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::SystemTime;

use rustix::fs::OFlags;
use sha1::Digest as _;
use shoal_common::layout::LayoutError;
use shoal_common::{FileDigest, FileHasher, Layout, Sha1};
use tokio_util::sync::CancellationToken;

/// Bytes read at once: a multiple of nothing in particular, large enough that calls cost nothing and small enough that
/// the second thread finds them in the cache.
const CHUNK: usize = 256 * 1024;
/// Chunks that may wait for the whole file's digest; bounds the memory to 4 MiB.
const CHUNKS: usize = 16;

/// A hashed file.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// How the file is cut.
    pub layout: Layout,
    /// The SHA-1 of each piece, in file order.
    pub pieces: Vec<Sha1>,
    /// The whole file's digest.
    pub digest: FileDigest,
    /// Tells later whether the file is still the one that was hashed.
    pub identity: FileIdentity,
}

/// What changes when somebody writes to a file or puts another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification.
    pub modified: SystemTime,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl FileIdentity {
    /// The identity of the file at `path` now. Blocking.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::from_metadata(&std::fs::metadata(path)?)
    }

    fn from_metadata(found: &Metadata) -> io::Result<Self> {
        Ok(Self { size: found.len(), modified: found.modified()?, device: found.dev(), inode: found.ino() })
    }
}

/// Why a file cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// A folder, a device or a pipe.
    #[error("{} is not a file; only files can be shared", .0.display())]
    NotAFile(PathBuf),
    /// It cannot be opened or read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Somebody wrote to it meanwhile, or replaced it.
    #[error("{} changed while it was being read; try again when nothing writes to it", .0.display())]
    Changed(PathBuf),
    /// It is too long.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The caller cancelled it.
    #[error("cancelled")]
    Cancelled,
}

/// Hashes the file at `path`. `progress` is called from time to time with the bytes done; it must not block. Blocking:
/// about half a second a gigabyte, two threads.
///
/// # Errors
/// See [`HashError`].
pub fn hash_file(
    path: &Path,
    mut progress: impl FnMut(u64),
    cancelled: &CancellationToken,
) -> Result<Hashed, HashError> {
    let unreadable = |error| HashError::Unreadable { path: path.to_owned(), error };
    // Opening a pipe must not wait for a writer.
    let nonblock = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
    let mut file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(HashError::NotAFile(path.to_owned()));
    }
    let identity = FileIdentity::from_metadata(&found).map_err(unreadable)?;
    let layout = Layout::for_size(identity.size)?;
    let (pieces, digest) = thread::scope(|scope| {
        let (full, chunks) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let whole = scope.spawn(move || hash_whole(&chunks));
        let pieces = hash_pieces(&mut file, &layout, &full, &mut progress, cancelled);
        drop(full);
        let digest = whole.join();
        pieces.map(|pieces| (pieces, digest))
    })
    .map_err(|stopped| match stopped {
        Stopped::Cancelled => HashError::Cancelled,
        Stopped::Short => HashError::Changed(path.to_owned()),
        Stopped::Failed(error) => unreadable(error),
    })?;
    let after = file.metadata().and_then(|found| FileIdentity::from_metadata(&found)).map_err(unreadable)?;
    let there = FileIdentity::of(path).map_err(|_| HashError::Changed(path.to_owned()))?;
    match digest {
        Ok(digest) if after == identity && there == identity => {
            Ok(Hashed { layout, pieces, digest, identity })
        }
        Ok(_) => Err(HashError::Changed(path.to_owned())),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

enum Stopped {
    Cancelled,
    /// The file ended before its size.
    Short,
    Failed(io::Error),
}

/// Reads the file, hashes its pieces and passes the chunks on.
fn hash_pieces(
    file: &mut File,
    layout: &Layout,
    chunks: &SyncSender<Arc<Vec<u8>>>,
    progress: &mut impl FnMut(u64),
    cancelled: &CancellationToken,
) -> Result<Vec<Sha1>, Stopped> {
    let mut spare: Vec<Arc<Vec<u8>>> = Vec::new();
    let mut pieces = Vec::with_capacity(layout.pieces() as usize);
    let mut done = 0;
    for piece in layout.iter() {
        let mut hasher = sha1::Sha1::new();
        let mut rest = layout.length(piece) as usize;
        while rest > 0 {
            if cancelled.is_cancelled() {
                return Err(Stopped::Cancelled);
            }
            let mut chunk = take_spare(&mut spare);
            let count = rest.min(CHUNK);
            // No one else holds a chunk that was taken from the spare ones.
            let bytes = Arc::make_mut(&mut chunk);
            bytes.resize(count, 0);
            file.read_exact(bytes).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Stopped::Short,
                _ => Stopped::Failed(error),
            })?;
            // The receiver ends only after the sender.
            let _ = chunks.send(chunk.clone());
            hasher.update(&chunk[..]);
            spare.push(chunk);
            rest -= count;
            done += count as u64;
            progress(done);
        }
        pieces.push(Sha1(hasher.finalize().into()));
    }
    Ok(pieces)
}

/// A chunk that the other thread is done with, or a new one.
fn take_spare(spare: &mut Vec<Arc<Vec<u8>>>) -> Arc<Vec<u8>> {
    let free = spare.iter().position(|chunk| Arc::strong_count(chunk) == 1);
    free.map_or_else(|| Arc::new(Vec::with_capacity(CHUNK)), |index| spare.swap_remove(index))
}

fn hash_whole(chunks: &Receiver<Arc<Vec<u8>>>) -> FileDigest {
    let mut hasher = FileHasher::default();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample_file;
    use std::io::Write;

    fn hash(path: &Path, progress: impl FnMut(u64)) -> Result<Hashed, HashError> {
        hash_file(path, progress, &CancellationToken::new())
    }

    #[test]
    fn digests_are_those_of_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0, 1, 65_536, 65_537, 10 * 65_536, 3_000_001] {
            let (bytes, content) = sample_file(size, 65_536, 3);
            std::fs::write(&path, &bytes).unwrap();
            let mut seen = 0;
            let hashed = hash(&path, |done| seen = done).unwrap();
            let crate::Verification::Sha1(pieces) = content.verification();
            assert_eq!((hashed.layout, hashed.digest), (*content.layout(), *content.digest()), "{size}");
            assert_eq!(hashed.pieces, **pieces);
            assert_eq!((seen, hashed.identity), (size as u64, FileIdentity::of(&path).unwrap()));
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| hash(path, |_| {}).unwrap_err();
        assert!(matches!(refused(folder.path()), HashError::NotAFile(_)));
        assert!(matches!(refused(Path::new("/dev/zero")), HashError::NotAFile(_)));
        assert!(matches!(refused(&folder.path().join("missing")), HashError::Unreadable { .. }));
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(refused(&pipe), HashError::NotAFile(_)));
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_refused() {
        type Change = fn(&Path);
        let shrink: Change = |path| File::options().write(true).open(path).unwrap().set_len(400_000).unwrap();
        let grow: Change =
            |path| File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
        let overwrite: Change = |path| {
            let file = File::options().write(true).open(path).unwrap();
            (&file).write_all(b"other").unwrap();
            // A clock of coarse ticks could give the same time again.
            file.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        };
        let replace: Change = |path| {
            let other = path.with_extension("other");
            std::fs::copy(path, &other).unwrap();
            std::fs::rename(other, path).unwrap();
        };
        let remove: Change = |path| std::fs::remove_file(path).unwrap();
        for change in [shrink, grow, overwrite, replace, remove] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            std::fs::write(&path, sample_file(1_000_000, 65_536, 3).0).unwrap();
            let mut once = true;
            let hashed = hash(&path, |_| {
                if std::mem::take(&mut once) {
                    change(&path);
                }
            });
            assert!(matches!(hashed, Err(HashError::Changed(_))), "{hashed:?}");
        }
    }

    #[test]
    fn it_can_be_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![0; 1_000_000]).unwrap();
        let cancelled = CancellationToken::new();
        let mut last = 0;
        let hashed = hash_file(
            &path,
            |done| {
                last = done;
                cancelled.cancel();
            },
            &cancelled,
        );
        assert!(matches!(hashed, Err(HashError::Cancelled)) && last < 500_000, "{last}");
    }
}
