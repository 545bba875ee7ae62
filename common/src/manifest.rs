//! What the trackers keep of a shared file: enough to fetch and check it, but not its content.

use minicbor::{Decode, Encode};

use crate::digest::{Blake3, FileDigest, Sha1};
use crate::ids::{Fid, Gid};
use crate::layout::{Layout, LayoutError};
use crate::limits::{MAX_MIRROR_BYTES, MAX_MIRRORS};
use crate::mirrors::{self, MirrorError};
use crate::names::FileName;

/// A file's metadata without its piece list, which is a blob of its own and named here by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// Under which name it is shared.
    #[n(0)]
    pub name: FileName,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// Piece length in bytes; see [`Layout`].
    #[n(2)]
    pub piece_length: u32,
    /// SHA-1 of the whole file.
    #[n(3)]
    pub sha1: Sha1,
    /// BLAKE3 of the whole file.
    #[n(4)]
    pub blake3: Blake3,
    /// BLAKE3 of the piece list: the pieces' SHA-1 digests, 20 bytes each, in order.
    #[n(5)]
    pub piece_list: Blake3,
    /// URLs of HTTP mirrors with the same content: in a client's call those of its own share, in a tracker's answer those
    /// of all sharers. Trackers keep them with each share, and here only what an earlier version put here.
    #[n(6)]
    pub mirrors: Vec<String>,
}

/// Why a manifest cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Size and piece length make no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The list does not have one digest of 20 bytes per piece.
    #[error("a piece list of {got} bytes where {expected} were expected")]
    PieceListLength {
        /// Bytes that the layout asks for.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The list does not have the hash that the manifest names.
    #[error("the piece list does not match its hash")]
    PieceListHash,
    /// Too many mirrors or one that is no HTTP URL.
    #[error("mirrors must be at most 16 http:// or https:// URLs of at most 2,048 bytes")]
    Mirrors,
    /// A URL that cannot be a mirror.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl Manifest {
    /// The manifest of a hashed file, and its piece list in wire form.
    #[must_use]
    pub fn new(
        name: FileName,
        layout: Layout,
        pieces: &[Sha1],
        digest: FileDigest,
        mirrors: Vec<String>,
    ) -> (Self, Vec<u8>) {
        let list: Vec<u8> = pieces.iter().flat_map(|sha1| sha1.0).collect();
        let manifest = Self {
            name,
            size: layout.size(),
            piece_length: layout.piece_length(),
            sha1: digest.sha1,
            blake3: digest.blake3,
            piece_list: Blake3::of(&list),
            mirrors,
        };
        (manifest, list)
    }

    /// The file's layout.
    ///
    /// # Errors
    /// When size or piece length break a limit.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(self.size, self.piece_length)
    }

    /// Both digests of the whole file.
    #[must_use]
    pub fn digest(&self) -> FileDigest {
        FileDigest { sha1: self.sha1, blake3: self.blake3 }
    }

    /// Checks everything that can be checked without the file.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn validate(&self) -> Result<Layout, ManifestError> {
        let mirror = |url: &String| {
            url.len() <= MAX_MIRROR_BYTES
                && (url.starts_with("http://") || url.starts_with("https://"))
                && !url.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if self.mirrors.len() > MAX_MIRRORS || !self.mirrors.iter().all(mirror) {
            return Err(ManifestError::Mirrors);
        }
        Ok(self.layout()?)
    }

    /// Like [`validate`](Self::validate), for a file that is about to be shared, whose mirrors go to others.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn validate_new(&self) -> Result<Layout, ManifestError> {
        mirrors::check(&self.mirrors)?;
        self.validate()
    }

    /// Reads the piece list that this manifest names.
    ///
    /// # Errors
    /// When length or hash do not fit.
    pub fn read_piece_list(&self, list: &[u8]) -> Result<Vec<Sha1>, ManifestError> {
        let expected = self.layout()?.pieces() as usize * 20;
        if list.len() != expected {
            return Err(ManifestError::PieceListLength { expected, got: list.len() });
        }
        if Blake3::of(list) != self.piece_list {
            return Err(ManifestError::PieceListHash);
        }
        let (digests, _) = list.as_chunks::<20>();
        Ok(digests.iter().copied().map(Sha1).collect())
    }

    /// The id of this content under this name in a group; mirrors play no part in it.
    #[must_use]
    pub fn fid(&self, group: Gid) -> Fid {
        let mut hasher = blake3::Hasher::new_derive_key("shoal 2026 file id");
        hasher.update(&group.0).update(&self.size.to_le_bytes()).update(&self.piece_length.to_le_bytes());
        hasher
            .update(&self.sha1.0)
            .update(&self.blake3.0)
            .update(&self.piece_list.0)
            .update(self.name.as_str().as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Fid(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Manifest, Vec<u8>) {
        let layout = Layout::for_size(100_000).unwrap();
        let digest = FileDigest { sha1: Sha1([1; 20]), blake3: Blake3([2; 32]) };
        Manifest::new(
            FileName::create("a.bin").unwrap(),
            layout,
            &[Sha1([3; 20]), Sha1([4; 20])],
            digest,
            vec![],
        )
    }

    #[test]
    fn piece_list_is_checked() {
        let (manifest, list) = sample();
        assert_eq!(manifest.read_piece_list(&list), Ok(vec![Sha1([3; 20]), Sha1([4; 20])]));
        assert_eq!(manifest.read_piece_list(&[0; 40]), Err(ManifestError::PieceListHash));
        assert_eq!(
            manifest.read_piece_list(&list[1..]),
            Err(ManifestError::PieceListLength { expected: 40, got: 39 })
        );
    }

    #[test]
    fn the_id_depends_on_group_name_and_content_alone() {
        let (manifest, _) = sample();
        let id = manifest.fid(Gid([1; 16]));
        assert_ne!(id, manifest.fid(Gid([2; 16])));
        assert_ne!(
            id,
            Manifest { name: FileName::create("b").unwrap(), ..manifest.clone() }.fid(Gid([1; 16]))
        );
        assert_ne!(id, Manifest { sha1: Sha1([9; 20]), ..manifest.clone() }.fid(Gid([1; 16])));
        assert_eq!(id, Manifest { mirrors: vec!["http://m/".into()], ..manifest }.fid(Gid([1; 16])));
    }

    #[test]
    fn bad_mirrors_are_refused() {
        let (manifest, _) = sample();
        for url in ["ftp://x/", "http://x/ y", "file:///etc/passwd", ""] {
            assert!(Manifest { mirrors: vec![url.into()], ..manifest.clone() }.validate().is_err(), "{url}");
        }
        assert!(Manifest { mirrors: vec!["https://x/y".into()], ..manifest }.validate().is_ok());
    }

    #[test]
    fn reads_back_and_takes_unknown_fields() {
        let (manifest, _) = sample();
        let bytes = minicbor::to_vec(&manifest).unwrap();
        assert_eq!(minicbor::decode::<Manifest>(&bytes).unwrap(), manifest);
        let mut later = bytes.clone();
        later[0] += 1; // one more entry of the map
        later.extend([99, 0x61, b'x']);
        later.splice(later.len() - 3..later.len() - 2, [0x18, 99]);
        assert_eq!(minicbor::decode::<Manifest>(&later).unwrap(), manifest);
    }
}
