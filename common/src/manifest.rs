//! What the trackers keep of a shared file: enough to fetch and check it, but not its content.

use minicbor::{Decode, Encode};

use crate::digest::{Blake3, FileDigest, FileHasher, Sha1};
use crate::folder::{FolderRecord, Listing, ListingError};
use crate::ids::{Fid, Gid};
use crate::layout::{Layout, LayoutError};
use crate::limits::{MAX_LISTING_BYTES, MAX_MIRROR_BYTES, MAX_MIRRORS, MAX_PIECES};
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
    /// What there is to know of a folder; `None` for a file. A folder's size is that of all its files, its digests are those of
    /// its listing, and its piece list has the pieces of the listing and then those of the files.
    #[n(7)]
    pub folder: Option<FolderRecord>,
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
    /// A folder that has mirrors, no listing, or one that is too long.
    #[error(
        "the folder's listing must have from 1 byte to 32 MiB, its version a number from 1, and it no mirrors"
    )]
    Folder,
    /// A listing that is none, or not this folder's.
    #[error(transparent)]
    Listing(#[from] ListingError),
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
            folder: None,
        };
        (manifest, list)
    }

    /// The manifest of a folder with that listing, whose files were cut by `layout` and have these pieces, and its piece list
    /// in wire form. `version` is its number and what all versions have in common.
    ///
    /// # Errors
    /// When the listing is too long, or there are too many pieces.
    pub fn of_folder(
        name: FileName,
        listing: &Listing,
        (layout, pieces): (&Layout, &[Sha1]),
        (version, lineage): (u32, [u8; 16]),
    ) -> Result<(Self, Vec<u8>), ManifestError> {
        let bytes = listing.encode();
        let length = u32::try_from(bytes.len()).map_err(|_| ListingError::TooLong)?;
        let mut hasher = FileHasher::default();
        hasher.update(&bytes);
        let digest = hasher.finish();
        let of_listing = bytes.chunks(layout.piece_length() as usize).map(Sha1::of);
        let list: Vec<u8> = of_listing.chain(pieces.iter().copied()).flat_map(|sha1| sha1.0).collect();
        let files = u32::try_from(layout.files()).unwrap_or(u32::MAX);
        let folder = FolderRecord {
            listing: digest.blake3,
            listing_bytes: length,
            files,
            pieces: layout.pieces(),
            lineage,
            version,
        };
        let manifest = Self {
            name,
            size: layout.size(),
            piece_length: layout.piece_length(),
            sha1: digest.sha1,
            blake3: digest.blake3,
            piece_list: Blake3::of(&list),
            mirrors: Vec::new(),
            folder: Some(folder),
        };
        manifest.validate()?;
        Ok((manifest, list))
    }

    /// The file's layout. A folder's is known with its listing: see [`Manifest::read_listing`].
    ///
    /// # Errors
    /// When size or piece length break a limit, or it is a folder.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        if self.folder.is_some() {
            return Err(LayoutError::Folder);
        }
        Layout::new(self.size, self.piece_length)
    }

    /// The layout of a folder's listing; `None` for a file.
    #[must_use]
    pub fn listing_layout(&self) -> Option<Layout> {
        let folder = self.folder.as_ref()?;
        Layout::new(folder.listing_bytes.into(), self.piece_length).ok()
    }

    /// Pieces in the piece list.
    ///
    /// # Errors
    /// When a limit is broken.
    pub fn pieces(&self) -> Result<u32, LayoutError> {
        let Some(folder) = &self.folder else { return Ok(self.layout()?.pieces()) };
        // The files' own limits show with the listing.
        Layout::new(self.size, self.piece_length)?;
        let listing = Layout::new(folder.listing_bytes.into(), self.piece_length)?.pieces();
        match folder.pieces {
            ..=MAX_PIECES => Ok(listing + folder.pieces),
            more => Err(LayoutError::TooManyPieces(more.into())),
        }
    }

    /// Reads a folder's listing, and checks that it is the one that this manifest describes. Gives it with the layout of the
    /// files.
    ///
    /// # Errors
    /// When it is no listing or another one, or this is not a folder.
    pub fn read_listing(&self, bytes: &[u8]) -> Result<(Listing, Layout), ListingError> {
        let folder = self.folder.as_ref().ok_or(ListingError::Other)?;
        if bytes.len() as u64 != u64::from(folder.listing_bytes) || Blake3::of(bytes) != folder.listing {
            return Err(ListingError::Other);
        }
        let listing = Listing::decode(bytes)?;
        let layout = listing.layout(self.piece_length)?;
        let same = (layout.size(), layout.pieces()) == (self.size, folder.pieces)
            && layout.files() == folder.files as usize;
        if same { Ok((listing, layout)) } else { Err(ListingError::Other) }
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
    pub fn validate(&self) -> Result<(), ManifestError> {
        let mirror = |url: &String| {
            url.len() <= MAX_MIRROR_BYTES
                && (url.starts_with("http://") || url.starts_with("https://"))
                && !url.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if self.mirrors.len() > MAX_MIRRORS || !self.mirrors.iter().all(mirror) {
            return Err(ManifestError::Mirrors);
        }
        if let Some(folder) = &self.folder {
            let length = (1..=MAX_LISTING_BYTES).contains(&folder.listing_bytes);
            // The digests of the item are those of its listing: it is bound by all that binds a file.
            if !length || folder.version == 0 || folder.listing != self.blake3 || !self.mirrors.is_empty() {
                return Err(ManifestError::Folder);
            }
        }
        self.pieces()?;
        Ok(())
    }

    /// Like [`validate`](Self::validate), for a file that is about to be shared, whose mirrors go to others.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn validate_new(&self) -> Result<(), ManifestError> {
        mirrors::check(&self.mirrors)?;
        self.validate()
    }

    /// Reads the piece list that this manifest names.
    ///
    /// # Errors
    /// When length or hash do not fit.
    pub fn read_piece_list(&self, list: &[u8]) -> Result<Vec<Sha1>, ManifestError> {
        let expected = self.pieces()? as usize * 20;
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
        if let Some(folder) = &self.folder {
            // A name has no such byte: no file's name continues like this.
            hasher.update(&[0]).update(&minicbor::to_vec(folder).unwrap_or_default());
        }
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

    fn folder() -> (Manifest, Vec<u8>, Listing) {
        let content = [b"x".repeat(70_000), b"y".to_vec()];
        let entry = |(path, bytes): (&str, &Vec<u8>)| {
            let mut hasher = FileHasher::default();
            hasher.update(bytes);
            let FileDigest { sha1, blake3 } = hasher.finish();
            let file = crate::ListedFile { size: bytes.len() as u64, sha1, blake3, exec: false, mtime_s: 0 };
            crate::folder::Entry { path: path.into(), file: Some(file) }
        };
        let listing = Listing::new(["a", "b/c"].into_iter().zip(&content).map(entry).collect()).unwrap();
        let layout = listing.usual_layout().unwrap();
        let pieces: Vec<Sha1> = content.iter().flat_map(|bytes| bytes.chunks(65_536).map(Sha1::of)).collect();
        let name = FileName::create("a.bin").unwrap();
        let (manifest, list) = Manifest::of_folder(name, &listing, (&layout, &pieces), (1, [7; 16])).unwrap();
        (manifest, list, listing)
    }

    #[test]
    fn a_folder_is_bound_by_its_manifest_and_is_no_file() {
        let (manifest, list, listing) = folder();
        assert_eq!(
            (manifest.size, manifest.pieces(), manifest.layout()),
            (70_001, Ok(4), Err(LayoutError::Folder))
        );
        assert_eq!(manifest.read_piece_list(&list).unwrap().len(), 4);
        let (read, layout) = manifest.read_listing(&listing.encode()).unwrap();
        assert_eq!((read, layout.pieces(), layout.files()), (listing, 3, 2));
        let damaged = |change: fn(&mut FolderRecord)| {
            let mut other = manifest.clone();
            change(other.folder.as_mut().unwrap());
            other
        };
        let (bytes, group) = (folder().2.encode(), Gid([1; 16]));
        for other in [
            damaged(|folder| folder.files = 3),
            damaged(|folder| folder.pieces = 2),
            damaged(|folder| folder.listing_bytes -= 1),
            damaged(|folder| folder.listing = Blake3([0; 32])),
            Manifest { size: 70_000, ..manifest.clone() },
            Manifest { piece_length: 131_072, ..manifest.clone() },
        ] {
            assert_eq!(other.read_listing(&bytes).unwrap_err(), ListingError::Other, "{other:?}");
            assert_ne!(other.fid(group), manifest.fid(group));
        }
        assert_ne!(damaged(|folder| folder.version = 2).fid(group), manifest.fid(group));
        for bad in [
            damaged(|folder| folder.listing_bytes = 0),
            damaged(|folder| folder.listing_bytes = MAX_LISTING_BYTES + 1),
            damaged(|folder| folder.version = 0),
            damaged(|folder| folder.pieces = MAX_PIECES + 1),
            damaged(|folder| folder.listing = Blake3([0; 32])),
            Manifest { mirrors: vec!["http://m/".into()], ..manifest.clone() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        // A version that knows no folders sees a file whose piece list is too long, under another id.
        let earlier = Manifest { folder: None, ..manifest.clone() };
        assert!(matches!(earlier.read_piece_list(&list), Err(ManifestError::PieceListLength { .. })));
        assert_ne!(earlier.fid(group), manifest.fid(group));
        let again: Manifest = minicbor::decode(&minicbor::to_vec(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
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
