//! What a download fetches, and where it goes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_common::{Blake3, Digests, Layout, Listing, PieceIndex, Sha1};

/// The content of a file, as known before the download: its layout, and what its bytes are checked by.
#[derive(Debug, Clone)]
pub struct Content {
    layout: Layout,
    verification: Verification,
    digest: Digests,
    /// Whether the whole file's SHA-1 is computed although none is known.
    wants_sha1: bool,
    /// The files that the content is, if it is a folder.
    folder: Option<Arc<Listing>>,
    /// How its files are put in place.
    placing: Placing,
}

/// How the files of a folder are put in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placing {
    /// Other paths than in the listing, by the numbers of the files. Each leads to a place beneath the folder.
    pub names: Arc<HashMap<usize, String>>,
    /// Whether files are executable that were where they were shared.
    pub keeps_modes: bool,
}

/// What each piece is checked by before it counts.
#[derive(Debug, Clone)]
pub enum Verification {
    /// The SHA-1 of each piece, in file order.
    Sha1(Arc<[Sha1]>),
    /// Nothing: only the whole file can be checked, if a digest of it is known. Pieces count as they come, and a resumed
    /// download relies on those of the last checkpoint.
    Unchecked,
    /// Pieces are sealed, and authentic once a source has opened them: sources hand over no others. What was written and
    /// is in doubt is checked by sealing it again.
    Aead(Arc<dyn SealedPieces>),
}

/// The pieces of a file that is sealed piece by piece.
pub trait SealedPieces: fmt::Debug + Send + Sync {
    /// Names the sealed content: another content's name differs.
    fn identity(&self) -> [u8; 32];

    /// Whether these are the bytes of that piece. Called on blocking threads.
    fn is_right(&self, piece: PieceIndex, bytes: &[u8]) -> bool;
}

/// A list of digests that does not have one digest per piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{digests} piece digests for a file of {pieces} pieces")]
pub struct ContentError {
    /// Pieces of the layout.
    pub pieces: u32,
    /// Digests given.
    pub digests: usize,
}

impl Content {
    /// Content whose pieces are checked by their SHA-1.
    ///
    /// # Errors
    /// When there is not one digest per piece.
    pub fn new(
        layout: Layout,
        pieces: Arc<[Sha1]>,
        digest: impl Into<Digests>,
    ) -> Result<Self, ContentError> {
        if pieces.len() != layout.pieces() as usize {
            return Err(ContentError { pieces: layout.pieces(), digests: pieces.len() });
        }
        Ok(Self::of(layout, Verification::Sha1(pieces), digest.into()))
    }

    /// The files of a folder, in the order of its listing, whose pieces are checked by their SHA-1. Each file is checked by its
    /// own digests once it is whole.
    ///
    /// # Errors
    /// When there is not one digest per piece.
    pub fn folder(layout: Layout, pieces: Arc<[Sha1]>, listing: Arc<Listing>) -> Result<Self, ContentError> {
        Ok(Self { folder: Some(listing), ..Self::new(layout, pieces, Digests::default())? })
    }

    /// The same content, whose files are put in place like this.
    #[must_use]
    pub fn placed(self, placing: Placing) -> Self {
        Self { placing, ..self }
    }

    pub(crate) fn placing(&self) -> &Placing {
        &self.placing
    }

    /// Content without piece digests; of the whole file some, all or none are known.
    #[must_use]
    pub fn unchecked(layout: Layout, digest: Digests) -> Self {
        Self::of(layout, Verification::Unchecked, digest)
    }

    /// Content whose pieces its sources open and authenticate.
    #[must_use]
    pub fn sealed(layout: Layout, pieces: Arc<dyn SealedPieces>, digest: impl Into<Digests>) -> Self {
        Self::of(layout, Verification::Aead(pieces), digest.into())
    }

    fn of(layout: Layout, verification: Verification, digest: Digests) -> Self {
        Self { layout, verification, digest, wants_sha1: false, folder: None, placing: Placing::default() }
    }

    /// The same content, whose SHA-1 is computed at the end even if none is known: someone asked for it.
    #[must_use]
    pub fn wanting_sha1(self, wanted: bool) -> Self {
        Self { wants_sha1: wanted, ..self }
    }

    /// How the file is cut.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the files are, if it is a folder.
    #[must_use]
    pub fn listing(&self) -> Option<&Arc<Listing>> {
        self.folder.as_ref()
    }

    /// What each piece is checked by.
    #[must_use]
    pub fn verification(&self) -> &Verification {
        &self.verification
    }

    /// What the whole file is checked by.
    #[must_use]
    pub fn digest(&self) -> &Digests {
        &self.digest
    }

    /// Whether the whole file's SHA-1 is computed: no digest is that nobody knows or asked for.
    #[must_use]
    pub fn computes_sha1(&self) -> bool {
        self.wants_sha1 || self.digest.sha1.is_some()
    }

    /// Whether pieces can be checked.
    pub(crate) fn is_checked(&self) -> bool {
        !matches!(self.verification, Verification::Unchecked)
    }

    /// Whether the engine hashes each piece before it counts.
    pub(crate) fn hashes_pieces(&self) -> bool {
        matches!(self.verification, Verification::Sha1(_))
    }

    /// Whether a piece with that digest is right, as far as it can be checked.
    pub(crate) fn matches(&self, piece: PieceIndex, sha1: &Sha1) -> bool {
        match &self.verification {
            Verification::Sha1(digests) => digests.get(piece.as_usize()) == Some(sha1),
            Verification::Unchecked | Verification::Aead(_) => true,
        }
    }
}

/// Longest name of a file in bytes, on every common file system.
const NAME_MAX: usize = 255;
/// Longest suffix of a file of ours, in bytes: `.pstate~`.
const LONGEST_SUFFIX: usize = 8;
/// Hex digits that stand in for the rest of a name that is too long for a suffix: 64 bits, which no two names share.
const DIGEST_DIGITS: usize = 16;

/// Where a finished file goes. While it is incomplete, its bytes are in `<path>.part` and what is known of them in
/// `<path>.pstate`, both in the same folder. Of a folder the incomplete files are in the folder `<path>.part`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    overwrite: Overwrite,
}

/// What happens to a file that is already at the final path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The download fails: at its start, or at its end if the file appeared meanwhile.
    Refuse,
    /// It is replaced atomically, after the last check. Pieces of it that are right are used.
    Replace,
}

impl Target {
    /// A target at exactly this path: a file name in an existing folder.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, overwrite: Overwrite) -> Self {
        Self { path: path.into(), overwrite }
    }

    /// The final path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What happens to a file that is already there.
    #[must_use]
    pub fn overwrite(&self) -> Overwrite {
        self.overwrite
    }

    /// Where the bytes are until the download is complete.
    #[must_use]
    pub fn part_path(&self) -> PathBuf {
        self.beside(".part")
    }

    /// Where the verified pieces are remembered until the download is complete.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.beside(".pstate")
    }

    /// Where the content is described until the download is complete.
    #[must_use]
    pub fn info_path(&self) -> PathBuf {
        self.beside(".pinfo")
    }

    /// Where a new state is written before it takes the old one's place.
    pub(crate) fn new_state_path(&self) -> PathBuf {
        self.beside(".pstate~")
    }

    /// The folder that all of them are in.
    pub(crate) fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// The path of a file of ours beside the target: its name and a suffix. Where that would be longer than file systems
    /// take, the name is cut and a digest of all of it stands in for the rest.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.len() + LONGEST_SUFFIX <= NAME_MAX {
            let mut path: OsString = self.path.as_os_str().to_owned();
            path.push(suffix);
            return PathBuf::from(path);
        }
        let digest = Blake3::of(name).to_string();
        let text = String::from_utf8_lossy(name);
        let mut end = (NAME_MAX - LONGEST_SUFFIX - DIGEST_DIGITS - 1).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.path.with_file_name(format!("{}~{}{suffix}", &text[..end], &digest[..DIGEST_DIGITS]))
    }
}
