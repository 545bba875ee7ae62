//! The state of a partial file's pieces, in one file beside it. It begins with a checkpoint: which content this is and which
//! of its pieces are durable, with a checksum. A new checkpoint is written to another file, synced and renamed over the old.
//! A list follows, appended without sync, that names each piece before it is written. After a crash the listed pieces are
//! hashed. After a power loss, pieces that neither names are fetched again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use shoal_common::limits::MAX_PIECES;
use shoal_common::{Bitfield, Blake3, PieceIndex};

use crate::content::{Content, Target, Verification};
use crate::disk::{DiskError, io_error, open_error, read_small};

/// Begins every state file; the number is the format's version.
const MAGIC: &[u8; 16] = b"shoal-partial 1\n";
const DIGEST: usize = 32;
const ENTRY: usize = 4;
/// Longest state file that is read: a checkpoint of the most pieces, and each of them in the list twice.
pub(super) const MAX_STATE: u64 = 64 * 1024 + 2 * (MAX_PIECES as u64) * (ENTRY as u64);

/// What a state file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// There is none.
    Absent,
    /// The file is not a state file.
    Foreign,
    /// It is one, and damaged: nothing it says can be relied on.
    Torn,
    /// It is another content's.
    OtherContent,
    /// It is this content's.
    Known {
        /// Pieces that are durable.
        durable: Bitfield,
        /// Pieces that were about to be written after that, in that order.
        listed: Vec<PieceIndex>,
    },
}

impl Saved {
    /// Reads the state file at `path`.
    pub(super) fn read(path: &Path, content: &Content) -> Result<Self, DiskError> {
        Ok(read_small(path, MAX_STATE)?.map_or(Self::Absent, |bytes| Self::parse(&bytes, content)))
    }

    /// Whether the file at `path` is a state file, whatever it says.
    pub(super) fn is_ours(path: &Path) -> Result<bool, DiskError> {
        let start = read_small(path, MAGIC.len() as u64)?;
        Ok(start.is_some_and(|start| MAGIC.starts_with(&start)))
    }

    /// Reads the bytes of a state file.
    pub(super) fn parse(bytes: &[u8], content: &Content) -> Self {
        let layout = content.layout();
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            // A file cut off within its first bytes is one that was being written when the power went.
            return if MAGIC.starts_with(bytes) { Self::Torn } else { Self::Foreign };
        };
        let Some((identity, rest)) = rest.split_at_checked(DIGEST) else { return Self::Torn };
        if identity != identity_of(content).0 {
            return Self::OtherContent;
        }
        let field = layout.pieces().div_ceil(8) as usize;
        let Some((durable, rest)) = rest.split_at_checked(field) else { return Self::Torn };
        let Some((checksum, list)) = rest.split_at_checked(DIGEST) else { return Self::Torn };
        if checksum != Blake3::of(&bytes[..bytes.len() - rest.len()]).0 {
            return Self::Torn;
        }
        let Ok(durable) = Bitfield::from_bytes(layout, durable) else { return Self::Torn };
        // The list has no checksum: each piece in it is hashed anyway, so damage costs time and nothing else.
        let listed =
            list.as_chunks::<ENTRY>().0.iter().filter_map(|entry| layout.piece(u32::from_le_bytes(*entry)));
        Self::Known { durable, listed: listed.collect() }
    }
}

/// The state file of a running download.
#[derive(Debug)]
pub(crate) struct Journal {
    content: Content,
    info_path: PathBuf,
    path: PathBuf,
    new_path: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    /// Pieces in the list, in that order; among them those that the next checkpoint covers.
    listed: Vec<PieceIndex>,
}

impl Journal {
    /// Writes a first checkpoint that names `durable`, and a list of `listed`.
    pub(super) fn create(
        target: &Target,
        content: &Content,
        durable: &Bitfield,
        listed: &[PieceIndex],
    ) -> Result<Self, DiskError> {
        let (path, new_path) = (target.state_path(), target.new_state_path());
        let file = replace(&path, &new_path, content, durable, listed)?;
        let current = Mutex::new(Current { file, listed: listed.to_vec() });
        Ok(Self { content: content.clone(), info_path: target.info_path(), path, new_path, current })
    }

    /// Names a piece that is about to be written.
    pub(crate) fn list(&self, piece: PieceIndex) -> Result<(), DiskError> {
        let mut current = self.current();
        current.listed.push(piece);
        let written = current.file.write_all(&piece.get().to_le_bytes());
        written.map_err(|error| self.error(error))
    }

    /// Writes a checkpoint. The caller guarantees that the pieces in `durable` are durable.
    pub(crate) fn checkpoint(&self, durable: &Bitfield) -> Result<(), DiskError> {
        let mut current = self.current();
        let listed: Vec<_> = current.listed.iter().copied().filter(|&piece| !durable.has(piece)).collect();
        let file = replace(&self.path, &self.new_path, &self.content, durable, &listed)?;
        *current = Current { file, listed };
        Ok(())
    }

    /// Casts doubt on every piece: after the next start all of them are hashed.
    pub(crate) fn doubt(&self) -> Result<(), DiskError> {
        let mut current = self.current();
        let all: Vec<_> = self.content.layout().iter().collect();
        let none = Bitfield::none(self.content.layout());
        let file = replace(&self.path, &self.new_path, &self.content, &none, &all)?;
        *current = Current { file, listed: all };
        Ok(())
    }

    /// Removes the state file.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.new_path);
        let _ = std::fs::remove_file(&self.info_path);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the state of a download");
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, error: io::Error) -> DiskError {
        write_error(&self.path, &self.content, error)
    }
}

/// Writes a new state file and puts it in the old one's place; the file, open for appending.
fn replace(
    path: &Path,
    new_path: &Path,
    content: &Content,
    durable: &Bitfield,
    listed: &[PieceIndex],
) -> Result<File, DiskError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&identity_of(content).0);
    bytes.extend_from_slice(&durable.to_bytes());
    bytes.extend_from_slice(&Blake3::of(&bytes).0);
    bytes.extend(listed.iter().flat_map(|piece| piece.get().to_le_bytes()));
    match std::fs::remove_file(new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open_error(new_path, error)),
        _ => {}
    }
    let nofollow = i32::from_ne_bytes(OFlags::NOFOLLOW.bits().to_ne_bytes());
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .custom_flags(nofollow)
        .open(new_path)
        .map_err(|error| open_error(new_path, error))?;
    let written = file.write_all(&bytes).and_then(|()| shoal_disk::sync_data(&file));
    let written = written.and_then(|()| std::fs::rename(new_path, path));
    if let Err(error) = written {
        // The old one stays; half of a new one is of no use.
        let _ = std::fs::remove_file(new_path);
        return Err(write_error(path, content, error));
    }
    Ok(file)
}

fn write_error(path: &Path, content: &Content, error: io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DiskError::Full { path: path.to_owned(), bytes: content.layout().size(), lacking: 0 }
        }
        _ => io_error("write", path, error),
    }
}

/// The identity of a content: size, layout, piece digests and the whole file's digests.
fn identity_of(content: &Content) -> Blake3 {
    let layout = content.layout();
    let mut bytes = layout.size().to_le_bytes().to_vec();
    bytes.extend_from_slice(&layout.piece_length().to_le_bytes());
    let digest = content.digest();
    bytes.extend(digest.sha1.iter().flat_map(|digest| digest.0));
    bytes.extend(digest.blake3.iter().flat_map(|digest| digest.0));
    bytes.extend(digest.sha256.iter().flat_map(|digest| digest.0));
    // Absent, they leave the identity as it was before they were known.
    bytes.extend(digest.sha512.iter().flat_map(|digest| digest.0));
    bytes.extend(digest.sha384.iter().flat_map(|digest| digest.0));
    bytes.extend(digest.sha224.iter().flat_map(|digest| digest.0));
    bytes.extend(digest.md5.iter().flat_map(|digest| digest.0));
    // The same pieces under other names are another folder.
    bytes.extend(content.listing().iter().flat_map(|listing| Blake3::of(&listing.encode()).0));
    match content.verification() {
        Verification::Sha1(digests) => digests.iter().for_each(|digest| bytes.extend_from_slice(&digest.0)),
        Verification::Unchecked => bytes.extend_from_slice(b"unchecked"),
        Verification::Aead(pieces) => bytes.extend_from_slice(&pieces.identity()),
    }
    Blake3::of(&bytes)
}
