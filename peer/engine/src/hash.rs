//! Hashes a file that is to be shared, or that was touched since. Blocking. Fails if the file changes while it is being read.
//!
//! The file is read once, in order. One thread computes the SHA-1 of the whole file, which is serial; the other computes the
//! pieces' SHA-1, several at a time, and the BLAKE3.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::StatFs;
use shoal_common::layout::LayoutError;
use shoal_common::{Blake3, Blake3Hasher, FileDigest, Layout, ListingError, Sha1};
use shoal_sha1::{Hasher, LANES, update_all};
use tokio_util::sync::CancellationToken;

use crate::regular::{self, NotRegular, OpenError};

/// Bytes read at once: a multiple of nothing in particular, large enough that calls cost nothing and small enough that
/// the second thread finds them in the cache.
const CHUNK: usize = 256 * 1024;
/// Chunks that may wait for the whole file's digest; bounds their memory to 4 MiB.
const CHUNKS: usize = 16;
/// Pieces that are hashed abreast hold no more than this in memory.
const ABREAST_BYTES: usize = 4 * 1024 * 1024;

/// File systems whose inode numbers are made up in memory: MSDOS (FAT), exFAT and FUSE, by statfs(2).
const PASSING_INODES: [u32; 3] = [0x4d44, 0x2011_bab0, 0x6573_5546];

/// A hashed file.
#[derive(Debug, Clone)]
pub struct Hashed {
    /// How the file is cut.
    pub layout: Layout,
    /// The SHA-1 of each piece, in file order.
    pub pieces: Vec<Sha1>,
    /// The whole file's digest.
    pub digest: FileDigest,
    /// Shows later whether the file is still the one that was hashed.
    pub identity: FileIdentity,
}

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification. Any program can set it.
    pub modified: SystemTime,
    /// Time of the last change of content or metadata. Only the system sets it. `None` where it was not recorded.
    pub changed: Option<SystemTime>,
    /// Device number.
    pub device: u64,
    /// Inode number; 0 where it does not last.
    pub inode: u64,
}

impl FileIdentity {
    /// The identity of the file at `path` now. Blocking.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = Self::from_metadata(&std::fs::metadata(path)?)?;
        Ok(found.on(rustix::fs::statfs(path).ok().as_ref()))
    }

    /// The identity of an open file now. Blocking.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn of_open(file: &File) -> io::Result<Self> {
        let found = Self::from_metadata(&file.metadata()?)?;
        Ok(found.on(rustix::fs::fstatfs(file).ok().as_ref()))
    }

    /// Without the inode number where it does not last: such a file system makes one up whenever it comes to know the file.
    pub(crate) fn on(self, system: Option<&StatFs>) -> Self {
        // One that cannot be asked counts as ordinary.
        let passing = system.is_some_and(|system| {
            u32::try_from(system.f_type).is_ok_and(|kind| PASSING_INODES.contains(&kind))
        });
        if passing { Self { inode: 0, ..self } } else { self }
    }

    pub(crate) fn from_metadata(found: &Metadata) -> io::Result<Self> {
        Ok(Self {
            size: found.len(),
            modified: found.modified()?,
            changed: changed(found),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Whether what was `found` later is this file, untouched. Device numbers are not compared: a drive gets another one
    /// each time that it is mounted.
    #[must_use]
    pub fn is_still(&self, found: &Self) -> bool {
        let changed = self.changed.is_none() || self.changed == found.changed;
        let inode = self.inode == 0 || found.inode == 0 || self.inode == found.inode;
        changed && inode && (self.size, self.modified) == (found.size, found.modified)
    }
}

/// Times out of the range of the system's clock count as not known.
fn changed(found: &Metadata) -> Option<SystemTime> {
    let nanos = Duration::from_nanos(found.ctime_nsec().try_into().ok()?);
    let seconds = Duration::from_secs(found.ctime().unsigned_abs());
    let whole =
        if found.ctime() < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole?.checked_add(nanos)
}

/// Why a file cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// A folder, a device, a socket or a pipe.
    #[error("{0}; only files can be shared")]
    NotAFile(#[from] NotRegular),
    /// The system makes it up when it is read: there is no content that could be served later.
    #[error(
        "{} says that it has {size} bytes, and reading gives another number, as with files that the system makes up; \
         copy it to a folder of yours and share the copy", .path.display()
    )]
    MadeUp {
        /// The file.
        path: PathBuf,
        /// The size that the system names, in bytes.
        size: u64,
    },
    /// It cannot be opened or read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It was written to or replaced meanwhile.
    #[error("{} changed while it was being read; try again when nothing writes to it", .0.display())]
    Changed(PathBuf),
    /// It is too long.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A path of a folder that cannot be shared.
    #[error("{} cannot be shared: {problem}; rename it, or move it out of the folder", .path.display())]
    Name {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The folder's files make no listing.
    #[error("{} cannot be shared: {error}", .path.display())]
    Listing {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        error: ListingError,
    },
    /// The caller cancelled it.
    #[error("cancelled")]
    Cancelled,
}

/// Hashes the file at `path`. `progress` is called from time to time with the bytes done; it must not block. Blocking:
/// about 0.9 seconds per gigabyte on two threads (docs/figures.md).
///
/// # Errors
/// See [`HashError`].
pub fn hash_file(
    path: &Path,
    mut progress: impl FnMut(u64),
    cancelled: &CancellationToken,
) -> Result<Hashed, HashError> {
    let unreadable = |error| HashError::Unreadable { path: path.to_owned(), error };
    let mut file = regular::open(path)
        .map_err(|error| match error {
            OpenError::NotRegular(found) => HashError::NotAFile(found),
            OpenError::Io(error) => unreadable(error),
        })?
        .0;
    let identity = FileIdentity::of_open(&file).map_err(unreadable)?;
    if !regular::gives_its_size(&file, identity.size).map_err(unreadable)? {
        let now = FileIdentity::of_open(&file).map_err(unreadable)?;
        return Err(match now.size == identity.size {
            true => HashError::MadeUp { path: path.to_owned(), size: identity.size },
            false => HashError::Changed(path.to_owned()),
        });
    }
    let layout = Layout::for_size(identity.size)?;
    let (pieces, digest) = hash_open(&mut file, path, &layout, &mut progress, cancelled)?;
    let after = FileIdentity::of_open(&file).map_err(unreadable)?;
    let there = FileIdentity::of(path).map_err(|_| HashError::Changed(path.to_owned()))?;
    if after == identity && there == identity {
        Ok(Hashed { layout, pieces, digest, identity })
    } else {
        Err(HashError::Changed(path.to_owned()))
    }
}

/// Hashes an open file, from its start. Whether it was written to meanwhile is for the caller to see.
pub(crate) fn hash_open(
    file: &mut File,
    path: &Path,
    layout: &Layout,
    progress: &mut impl FnMut(u64),
    cancelled: &CancellationToken,
) -> Result<(Vec<Sha1>, FileDigest), HashError> {
    let (pieces, digest) = thread::scope(|scope| {
        let (full, chunks) = sync_channel::<Arc<Vec<u8>>>(CHUNKS);
        let whole = scope.spawn(move || hash_whole(&chunks));
        let reading = Reading {
            file,
            whole: full,
            blake3: Blake3Hasher::default(),
            progress,
            cancelled,
            spare: Vec::new(),
            done: 0,
        };
        let pieces = reading.hash_pieces(layout);
        let sha1 = whole.join();
        pieces.map(|(pieces, blake3)| (pieces, sha1.map(|sha1| FileDigest { sha1, blake3 })))
    })
    .map_err(|stopped| match stopped {
        Stopped::Cancelled => HashError::Cancelled,
        Stopped::Short => HashError::Changed(path.to_owned()),
        Stopped::Failed(error) => HashError::Unreadable { path: path.to_owned(), error },
    })?;
    match digest {
        Ok(digest) => Ok((pieces, digest)),
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
struct Reading<'a, P> {
    file: &'a mut File,
    /// To the thread that hashes the whole file.
    whole: SyncSender<Arc<Vec<u8>>>,
    blake3: Blake3Hasher,
    progress: &'a mut P,
    cancelled: &'a CancellationToken,
    spare: Vec<Arc<Vec<u8>>>,
    done: u64,
}

impl<P: FnMut(u64)> Reading<'_, P> {
    fn hash_pieces(mut self, layout: &Layout) -> Result<(Vec<Sha1>, Blake3), Stopped> {
        let mut digests = Vec::with_capacity(layout.pieces() as usize);
        let abreast = (ABREAST_BYTES / layout.piece_length() as usize).clamp(1, LANES);
        let mut pieces = layout.iter().peekable();
        while pieces.peek().is_some() {
            let lengths = pieces.by_ref().take(abreast).map(|piece| layout.length(piece) as usize);
            if abreast == 1 {
                for length in lengths {
                    digests.push(self.hash_piece(length)?);
                }
            } else {
                let chunks: Result<Vec<_>, _> = lengths.map(|length| self.read_piece(length)).collect();
                let chunks = chunks?;
                digests.extend(hash_abreast(&chunks));
                self.spare.extend(chunks.into_iter().flatten());
            }
        }
        Ok((digests, self.blake3.finish()))
    }

    /// A piece too long to be held in memory.
    fn hash_piece(&mut self, mut length: usize) -> Result<Sha1, Stopped> {
        let mut hasher = Hasher::default();
        while length > 0 {
            let chunk = self.read_chunk(length)?;
            hasher.update(&chunk);
            length -= chunk.len();
            self.spare.push(chunk);
        }
        Ok(Sha1(hasher.finish()))
    }

    fn read_piece(&mut self, mut length: usize) -> Result<Vec<Arc<Vec<u8>>>, Stopped> {
        let mut chunks = Vec::new();
        while length > 0 {
            let chunk = self.read_chunk(length)?;
            length -= chunk.len();
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    /// The next bytes of the file, at most `most`; what goes over the whole file has taken them.
    fn read_chunk(&mut self, most: usize) -> Result<Arc<Vec<u8>>, Stopped> {
        if self.cancelled.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let mut chunk = take_spare(&mut self.spare);
        // A spare chunk has no other owner.
        let bytes = Arc::make_mut(&mut chunk);
        bytes.resize(most.min(CHUNK), 0);
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Stopped::Short,
            _ => Stopped::Failed(error),
        })?;
        // The receiver ends only after the sender.
        let _ = self.whole.send(chunk.clone());
        self.blake3.update(&chunk);
        self.done += chunk.len() as u64;
        (self.progress)(self.done);
        Ok(chunk)
    }
}

/// The digests of pieces, each given as its chunks.
fn hash_abreast(pieces: &[Vec<Arc<Vec<u8>>>]) -> impl Iterator<Item = Sha1> + use<> {
    let mut hashers = vec![Hasher::default(); pieces.len()];
    for index in 0..pieces.iter().map(Vec::len).max().unwrap_or(0) {
        let lanes = hashers.iter_mut().zip(pieces);
        let lanes = lanes.filter_map(|(hasher, chunks)| Some((hasher, &chunks.get(index)?[..])));
        update_all(&mut lanes.collect::<Vec<_>>());
    }
    hashers.into_iter().map(|hasher| Sha1(hasher.finish()))
}

/// A chunk that the other thread is done with, or a new one.
fn take_spare(spare: &mut Vec<Arc<Vec<u8>>>) -> Arc<Vec<u8>> {
    let free = spare.iter().position(|chunk| Arc::strong_count(chunk) == 1);
    free.map_or_else(|| Arc::new(Vec::with_capacity(CHUNK)), |index| spare.swap_remove(index))
}

fn hash_whole(chunks: &Receiver<Arc<Vec<u8>>>) -> Sha1 {
    let mut hasher = Hasher::default();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk);
    }
    Sha1(hasher.finish())
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
            let crate::Verification::Sha1(pieces) = content.verification() else { unreachable!() };
            assert_eq!(
                (hashed.layout, hashed.digest.into()),
                (content.layout().clone(), *content.digest()),
                "{size}"
            );
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
            file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
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
    fn a_file_whose_time_was_put_back_is_not_the_one_that_was_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 1_000]).unwrap();
        let before = FileIdentity::of(&path).unwrap();
        // The system's clock for files ticks some hundred times per second.
        let mut now = before;
        while now.changed == before.changed {
            std::fs::write(&path, vec![2; 1_000]).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(before.modified).unwrap();
            now = FileIdentity::of(&path).unwrap();
        }
        assert_eq!((now.size, now.modified, now.inode), (before.size, before.modified, before.inode));
        assert!(!before.is_still(&now) && before.is_still(&before));
        let elsewhere = FileIdentity { device: before.device + 1, ..before };
        assert!(before.is_still(&elsewhere), "another number of the same drive");
        assert!(
            FileIdentity { changed: None, ..before }.is_still(&now),
            "not recorded by an earlier version"
        );
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
