//! Folders that are shared: walked and hashed, looked at, compared with their listing, and read for others. Everything is
//! opened beneath the folder, and no link in it is followed. Blocking.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::StatFs;
use shoal_common::folder::{Entry, ListedFile, check_path};
use shoal_common::limits::MAX_FOLDER_ENTRIES;
use shoal_common::{FileDigest, FileHasher, Layout, Listing, ListingError, Sha1};
use shoal_disk::Tree;
use tokio_util::sync::CancellationToken;

use crate::hash::{FileIdentity, HashError, hash_open};

/// Threads that hash files at the same time; each of a large file has a second one.
const HASHERS: usize = 4;

/// A hashed folder.
#[derive(Debug, Clone)]
pub struct HashedFolder {
    /// What is in it.
    pub listing: Arc<Listing>,
    /// How its files are cut.
    pub layout: Layout,
    /// The SHA-1 of each piece of its files, in order.
    pub pieces: Vec<Sha1>,
    /// Shows later whether its files are still those that were hashed.
    pub identity: FolderIdentity,
    /// Links, pipes, sockets and devices that are not in the listing.
    pub left_out: usize,
}

/// What changes when a listed file of a folder is written to, replaced or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderIdentity {
    /// All of them in one: the size of all files, and digests of their identities in the place of times and inode. That of two
    /// different states of a folder is never the same.
    pub whole: FileIdentity,
    /// Each file's, in the order of the listing.
    pub files: Arc<[FileIdentity]>,
}

impl FolderIdentity {
    fn of(files: Vec<FileIdentity>, device: u64) -> Self {
        let nanos = |time: std::time::SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        let mut hasher = shoal_common::Blake3Hasher::default();
        let mut size = 0_u64;
        for file in &files {
            size = size.saturating_add(file.size);
            hasher.update(&file.size.to_le_bytes());
            hasher.update(&file.inode.to_le_bytes());
            hasher.update(&nanos(file.modified).to_le_bytes());
            hasher.update(&file.changed.map_or(0, nanos).to_le_bytes());
        }
        let digest = hasher.finish().0;
        let part = |at: usize| {
            let bytes = digest.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        // In the range of times that can be recorded.
        let modified = UNIX_EPOCH + Duration::from_nanos(part(0) >> 2);
        let changed = Some(UNIX_EPOCH + Duration::from_nanos(part(8) >> 2));
        let whole = FileIdentity { size, modified, changed, device, inode: part(16).max(1) };
        Self { whole, files: files.into() }
    }
}

/// A file found by a walk.
struct FoundFile {
    path: String,
    identity: FileIdentity,
    exec: bool,
    mtime_s: i64,
}

/// What a walk found.
struct Walked {
    files: Vec<FoundFile>,
    empty: Vec<String>,
    left_out: usize,
}

/// Walks through a folder and hashes its files. `progress` is called from time to time with the bytes done and the bytes in
/// all; it must not block.
///
/// # Errors
/// See [`HashError`]: also when a name cannot be shared, or a file changes meanwhile.
pub fn hash_folder(
    root: &Path,
    progress: impl Fn(u64, u64) + Sync,
    cancelled: &CancellationToken,
) -> Result<HashedFolder, HashError> {
    let unreadable = |error| HashError::Unreadable { path: root.to_owned(), error };
    let tree = Tree::open(root).map_err(unreadable)?;
    let system = rustix::fs::fstatfs(tree.folder()).ok();
    let device = tree.folder().metadata().map_err(unreadable)?.dev();
    let Walked { mut files, empty, left_out } = walk(root, system.as_ref(), cancelled)?;
    files.sort_unstable_by(|one, other| one.path.as_bytes().cmp(other.path.as_bytes()));
    let sizes: Vec<u64> = files.iter().map(|file| file.identity.size).collect();
    let layout = Layout::for_files(&sizes)?;
    let (done, total) = (AtomicU64::new(0), layout.size());
    let add = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let hashed = in_parallel(files.len(), |number| {
        let found = files.get(number).ok_or(HashError::Cancelled)?;
        let hashing = Hashing { root, tree: &tree, system: system.as_ref(), add: &add, cancelled };
        hashing.file(&found.path, &found.identity, layout.piece_length())
    })?;
    let mut pieces = Vec::with_capacity(layout.pieces() as usize);
    let mut entries: Vec<Entry> = empty.into_iter().map(|path| Entry { path, file: None }).collect();
    let mut identities = Vec::with_capacity(files.len());
    for (found, (of_file, digest)) in files.into_iter().zip(hashed) {
        pieces.extend(of_file);
        identities.push(found.identity);
        let FileDigest { sha1, blake3 } = digest;
        let (size, exec, mtime_s) = (found.identity.size, found.exec, found.mtime_s);
        entries
            .push(Entry { path: found.path, file: Some(ListedFile { size, sha1, blake3, exec, mtime_s }) });
    }
    let no_listing = |error| HashError::Listing { path: root.to_owned(), error };
    let listing = Arc::new(Listing::new(entries).map_err(no_listing)?);
    let identity = FolderIdentity::of(identities, device);
    if look(root, &listing).map_err(unreadable)?.whole != identity.whole {
        return Err(HashError::Changed(root.to_owned()));
    }
    Ok(HashedFolder { listing, layout, pieces, identity, left_out })
}

/// The identity of a folder's listed files now.
///
/// # Errors
/// When one of them is not there, is no file, or cannot be looked at.
pub fn look(root: &Path, listing: &Listing) -> io::Result<FolderIdentity> {
    let tree = Tree::open(root)?;
    let system = rustix::fs::fstatfs(tree.folder()).ok();
    let device = tree.folder().metadata()?.dev();
    let of_file = |(path, _): (&str, &ListedFile)| {
        let file = tree.read(path)?;
        let found = file.metadata()?;
        if found.is_file() { identity(&found, system.as_ref()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let files: io::Result<Vec<FileIdentity>> = listing.files().map(of_file).collect();
    Ok(FolderIdentity::of(files?, device))
}

/// Reads a folder's listed files; gives whether they are what the listing says, and their identity. `progress` as for
/// [`hash_folder`].
///
/// # Errors
/// See [`HashError`].
pub fn compare(
    root: &Path,
    listing: &Listing,
    progress: impl Fn(u64, u64) + Sync,
    cancelled: &CancellationToken,
) -> Result<(bool, FolderIdentity), HashError> {
    let unreadable = |error| HashError::Unreadable { path: root.to_owned(), error };
    let seen = look(root, listing).map_err(unreadable)?;
    let same_size = |(seen, (_, listed)): (&FileIdentity, (&str, &ListedFile))| seen.size == listed.size;
    if !seen.files.iter().zip(listing.files()).all(same_size) {
        return Ok((false, seen));
    }
    let tree = Tree::open(root).map_err(unreadable)?;
    let system = rustix::fs::fstatfs(tree.folder()).ok();
    let (done, total) = (AtomicU64::new(0), seen.whole.size);
    let add = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
    let same = in_parallel(seen.files.len(), |number| {
        let file = listing.file(number).zip(seen.files.get(number));
        let Some(((path, listed), identity)) = file else { return Ok(false) };
        let hashing = Hashing { root, tree: &tree, system: system.as_ref(), add: &add, cancelled };
        let piece_length = Layout::for_size(identity.size)?.piece_length();
        Ok(hashing.file(path, identity, piece_length)?.1 == listed.digest())
    })?;
    if look(root, listing).map_err(unreadable)?.whole != seen.whole {
        return Err(HashError::Changed(root.to_owned()));
    }
    Ok((same.into_iter().all(|same| same), seen))
}

/// A shared folder as it was when it was last known to be right, to be read for others. Cheap to clone. It keeps nothing open.
#[derive(Debug, Clone)]
pub struct SharedFolder {
    /// Where it is.
    pub root: PathBuf,
    /// What is in it.
    pub listing: Arc<Listing>,
    /// What each of its files must still be.
    pub files: Arc<[FileIdentity]>,
}

impl SharedFolder {
    /// Fills `into` with the content, cut as `layout` says, from `offset` on, which must be of one piece. `None` if the file is
    /// not what it was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, layout: &Layout, offset: u64, into: &mut [u8]) -> io::Result<Option<()>> {
        let stretch = layout.stretches(offset..offset.saturating_add(1)).next();
        let Some(stretch) = stretch else { return Ok(None) };
        let (file, expected) = (self.listing.file(stretch.file), self.files.get(stretch.file));
        let Some(((path, _), expected)) = file.zip(expected) else { return Ok(None) };
        let is_gone = |error: &io::Error| {
            let gone = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR, rustix::io::Errno::LOOP];
            gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        };
        let opened = Tree::open(&self.root).and_then(|tree| tree.read(path));
        let opened = match opened {
            Err(error) if is_gone(&error) => return Ok(None),
            opened => opened?,
        };
        let found = opened.metadata()?;
        if !found.is_file() {
            return Ok(None);
        }
        match opened.read_exact_at(into, stretch.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let is_still =
            |found: &Metadata| FileIdentity::from_metadata(found).map(|now| expected.is_still(&now));
        Ok((is_still(&found)? && is_still(&opened.metadata()?)?).then_some(()))
    }
}

fn identity(found: &Metadata, system: Option<&StatFs>) -> io::Result<FileIdentity> {
    Ok(FileIdentity::from_metadata(found)?.on(system))
}

/// Finds all files of a folder. Links are not followed, and other file systems are looked into.
fn walk(root: &Path, system: Option<&StatFs>, cancelled: &CancellationToken) -> Result<Walked, HashError> {
    let mut walked = Walked { files: Vec::new(), empty: Vec::new(), left_out: 0 };
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        if cancelled.is_cancelled() {
            return Err(HashError::Cancelled);
        }
        let at = root.join(&folder);
        let unreadable = |error| HashError::Unreadable { path: at.clone(), error };
        let mut entries = 0;
        for entry in std::fs::read_dir(&at).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            entries += 1;
            let name = entry.file_name();
            let refused = |problem: String| HashError::Name { path: at.join(&name), problem };
            let Some(text) = name.to_str() else {
                return Err(refused("its name is not UTF-8".to_owned()));
            };
            let path = if folder.is_empty() { text.to_owned() } else { format!("{folder}/{text}") };
            let kind = entry.file_type().map_err(unreadable)?;
            if !kind.is_dir() && !kind.is_file() {
                walked.left_out += 1;
                continue;
            }
            check_path(&path).map_err(|problem| refused(format!("its path {problem}")))?;
            if kind.is_dir() {
                folders.push(path);
            } else {
                let found = entry.metadata().map_err(unreadable)?;
                let exec = found.permissions().mode() & 0o100 != 0;
                let identity = identity(&found, system).map_err(unreadable)?;
                walked.files.push(FoundFile { path, identity, exec, mtime_s: found.mtime() });
            }
            if walked.files.len() + folders.len() + walked.empty.len() > MAX_FOLDER_ENTRIES {
                return Err(HashError::Listing { path: root.to_owned(), error: ListingError::TooMany });
            }
        }
        if entries == 0 && !folder.is_empty() {
            walked.empty.push(folder);
        }
    }
    Ok(walked)
}

/// Calls `work` for each number on several threads; gives the results in order, or the first error.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, HashError> + Sync,
) -> Result<Vec<T>, HashError> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, HASHERS);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || failed().is_some() {
                return done;
            }
            match work(number) {
                Ok(result) => done.push((number, result)),
                Err(error) => {
                    failed().get_or_insert(error);
                }
            }
        }
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(worker)).collect();
        let mut all = worker();
        for other in workers {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    if let Some(error) = failed().take() {
        return Err(error);
    }
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

fn unreadable(path: &Path, error: io::Error) -> HashError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => HashError::Changed(path.to_owned()),
        _ => HashError::Unreadable { path: path.to_owned(), error },
    }
}

/// Hashes an open file of that size; gives the digests of its pieces and its own. Whether it was written to meanwhile is for the
/// caller to see. `add` takes the bytes that were done.
pub(crate) fn hash_one(
    file: &mut File,
    path: &Path,
    (size, piece_length): (u64, u32),
    add: &impl Fn(u64),
    cancelled: &CancellationToken,
) -> Result<(Vec<Sha1>, FileDigest), HashError> {
    if size > u64::from(piece_length) {
        let layout = Layout::new(size, piece_length)?;
        let mut before = 0;
        let mut progress = |done| {
            add(done - before);
            before = done;
        };
        return hash_open(file, path, &layout, &mut progress, cancelled);
    }
    if cancelled.is_cancelled() {
        return Err(HashError::Cancelled);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // A byte more shows that it has grown.
    file.take(size + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 != size {
        return Err(HashError::Changed(path.to_owned()));
    }
    let mut hasher = FileHasher::default();
    hasher.update(&bytes);
    let digest = hasher.finish();
    add(size);
    Ok((if bytes.is_empty() { Vec::new() } else { vec![digest.sha1] }, digest))
}

/// What hashing the files of a folder needs.
struct Hashing<'a, A> {
    root: &'a Path,
    tree: &'a Tree,
    system: Option<&'a StatFs>,
    /// Takes the bytes that were done.
    add: &'a A,
    cancelled: &'a CancellationToken,
}

impl<A: Fn(u64)> Hashing<'_, A> {
    /// Hashes a file that must be the one that was found; gives the digests of its pieces and its own.
    fn file(
        &self,
        path: &str,
        expected: &FileIdentity,
        piece_length: u32,
    ) -> Result<(Vec<Sha1>, FileDigest), HashError> {
        let whole = self.root.join(path);
        let mut file = self.tree.read(path).map_err(|error| unreadable(&whole, error))?;
        self.must_be(&file, path, expected)?;
        let hashed = hash_one(&mut file, &whole, (expected.size, piece_length), self.add, self.cancelled)?;
        self.must_be(&file, path, expected)?;
        Ok(hashed)
    }

    fn must_be(&self, file: &File, path: &str, expected: &FileIdentity) -> Result<(), HashError> {
        let found = file.metadata().and_then(|found| identity(&found, self.system));
        if found.is_ok_and(|found| found == *expected) {
            Ok(())
        } else {
            Err(HashError::Changed(self.root.join(path)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn hash(root: &Path) -> Result<HashedFolder, HashError> {
        hash_folder(root, |_, _| {}, &CancellationToken::new())
    }

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/empty")).unwrap();
        fs::write(at("a"), b"").unwrap();
        fs::write(at("b/large"), vec![7; 200_000]).unwrap();
        fs::write(at("b-"), b"small").unwrap();
        fs::set_permissions(at("b-"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/etc", at("link")).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        folder
    }

    #[test]
    fn a_folder_is_listed_and_hashed() {
        let folder = sample();
        let hashed = hash(folder.path()).unwrap();
        let paths: Vec<_> = hashed.listing.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!((paths, hashed.left_out), (vec!["a", "b-", "b/empty", "b/large"], 2));
        assert_eq!((hashed.layout.size(), hashed.layout.pieces(), hashed.layout.files()), (200_005, 5, 3));
        assert_eq!(hashed.listing.check_pieces(&hashed.layout, &hashed.pieces), Ok(()));
        let large = hashed.listing.file(2).unwrap().1;
        assert_eq!((large.sha1, large.exec), (Sha1::of(&[7; 200_000]), false));
        assert!(hashed.listing.file(1).unwrap().1.exec);
        let cut = [7; 200_000].chunks(65_536).map(Sha1::of).collect::<Vec<_>>();
        assert_eq!(hashed.pieces[1..], cut);
        let seen = Mutex::new(0);
        let report = |done, total| *seen.lock().unwrap() = (done == total).into();
        let (same, identity) =
            compare(folder.path(), &hashed.listing, report, &CancellationToken::new()).unwrap();
        assert!(same && identity == hashed.identity && *seen.lock().unwrap() == 1);
    }

    #[test]
    fn every_change_shows_and_is_not_served() {
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |root| fs::write(root.join("b-"), b"SMALL").unwrap(),
            |root| fs::remove_file(root.join("b-")).unwrap(),
            |root| {
                fs::copy(root.join("b-"), root.join("other")).unwrap();
                fs::rename(root.join("other"), root.join("b-")).unwrap();
            },
            |root| {
                fs::remove_file(root.join("b-")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", root.join("b-")).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let folder = sample();
            let HashedFolder { listing, layout, identity, .. } = hash(folder.path()).unwrap();
            let files = identity.files.clone();
            let shared = SharedFolder { root: folder.path().to_owned(), listing: listing.clone(), files };
            let read = |offset| {
                let mut bytes = [0; 4];
                Ok::<_, io::Error>(shared.read(&layout, offset, &mut bytes)?.map(|()| bytes))
            };
            assert_eq!(read(1).unwrap().unwrap(), *b"mall");
            change(folder.path());
            assert_eq!(read(1).unwrap(), None, "{number}");
            assert_eq!(read(5 + 65_536).unwrap().unwrap(), [7; 4], "the others are served");
            assert!(
                look(folder.path(), &listing).ok().is_none_or(|now| !identity.whole.is_still(&now.whole))
            );
            let compared = compare(folder.path(), &listing, |_, _| {}, &CancellationToken::new());
            assert_eq!(compared.is_ok_and(|(same, _)| same), number == 2, "{number}");
        }
    }

    #[test]
    fn names_that_cannot_be_shared_are_named() {
        let folder = sample();
        fs::write(folder.path().join("b/new\nline"), b"").unwrap();
        let error = hash(folder.path()).unwrap_err().to_string();
        assert!(error.contains("control character") && error.contains("rename it"), "{error}");
    }
}
