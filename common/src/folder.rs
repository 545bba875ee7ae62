//! What a shared folder holds: the listing of its files, which travels between peers, and what its manifest says of it. Paths
//! in a listing come from others. They are checked here, once: a [`Listing`] has only paths that lead to a place beneath the
//! folder.

use std::collections::{HashMap, HashSet};

use minicbor::{Decode, Encode};
use unicode_normalization::UnicodeNormalization;

use crate::digest::{Blake3, FileDigest, FileHasher, Sha1};
use crate::layout::{Layout, LayoutError};
use crate::limits::{
    MAX_FILE_NAME_BYTES, MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES, MAX_FOLDER_PATH_BYTES, MAX_LISTING_BYTES,
};

/// What a manifest says of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FolderRecord {
    /// BLAKE3 of the encoded listing.
    #[n(0)]
    pub listing: Blake3,
    /// Length of the encoded listing in bytes.
    #[n(1)]
    pub listing_bytes: u32,
    /// Files, empty ones too.
    #[n(2)]
    pub files: u32,
    /// Pieces of all files, without those of the listing.
    #[n(3)]
    pub pieces: u32,
    /// Random, and the same for all versions of the folder.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub lineage: [u8; 16],
    /// The number of this version, from 1.
    #[n(5)]
    pub version: u32,
}

/// The files and empty folders of a folder, sorted by path. Every path is relative, and leads to a place beneath the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    entries: Vec<Entry>,
    /// Which of them are files.
    files: Vec<u32>,
}

/// A file, or an empty folder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its path from the folder, in UTF-8, with `/` between the names.
    #[n(0)]
    pub path: String,
    /// What is known of the file; `None` for an empty folder.
    #[n(1)]
    pub file: Option<ListedFile>,
}

/// What a listing says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ListedFile {
    /// Size in bytes.
    #[n(0)]
    pub size: u64,
    /// SHA-1 of the file.
    #[n(1)]
    pub sha1: Sha1,
    /// BLAKE3 of the file.
    #[n(2)]
    pub blake3: Blake3,
    /// Whether its owner may execute it.
    #[n(3)]
    pub exec: bool,
    /// Time of its last modification, in seconds since 1970.
    #[n(4)]
    pub mtime_s: i64,
}

impl ListedFile {
    /// Both digests of the file.
    #[must_use]
    pub fn digest(&self) -> FileDigest {
        FileDigest { sha1: self.sha1, blake3: self.blake3 }
    }
}

/// Why a listing is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Over the limit.
    #[error("its listing is longer than {MAX_LISTING_BYTES} bytes")]
    TooLong,
    /// Over the limit.
    #[error("it has more than {MAX_FOLDER_ENTRIES} files and folders; pack them into one file")]
    TooMany,
    /// It is no listing, or not the one way to write it.
    #[error("its listing is damaged")]
    Malformed,
    /// A path that must not be used.
    #[error("the path {0:?} in it {1}")]
    Path(String, PathProblem),
    /// Paths out of order, or one twice.
    #[error("the path {0:?} in it is out of order or there twice")]
    Order(String),
    /// Something is listed below a file, or below a folder that is said to be empty.
    #[error("the path {0:?} in it is a file and a folder")]
    Below(String),
    /// The digests of an empty file, or of a file of one piece, cannot be right.
    #[error("the digests of {0:?} in it contradict each other")]
    Digest(String),
    /// The files make no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The listing is not the one that the manifest describes.
    #[error("its listing is not the one that its manifest describes")]
    Other,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// Longer than [`MAX_FOLDER_PATH_BYTES`].
    #[error("is longer than {MAX_FOLDER_PATH_BYTES} bytes")]
    TooLong,
    /// Deeper than [`MAX_FOLDER_DEPTH`].
    #[error("is more than {MAX_FOLDER_DEPTH} folders deep")]
    TooDeep,
    /// A name in it is empty, `.` or `..`: the path is absolute, or leads elsewhere.
    #[error("does not stay within the folder")]
    Escapes,
    /// A name in it is longer than [`MAX_FILE_NAME_BYTES`].
    #[error("has a name of more than {MAX_FILE_NAME_BYTES} bytes")]
    LongName,
    /// A name in it has a control character or a backslash.
    #[error("has a control character or a backslash")]
    Character,
}

/// Checks a path of a listing.
///
/// # Errors
/// [`PathProblem`] says what is wrong.
pub fn check_path(path: &str) -> Result<(), PathProblem> {
    if path.len() > MAX_FOLDER_PATH_BYTES {
        return Err(PathProblem::TooLong);
    }
    let mut depth = 0;
    for name in path.split('/') {
        depth += 1;
        match name {
            "" | "." | ".." => return Err(PathProblem::Escapes),
            _ if name.len() > MAX_FILE_NAME_BYTES => return Err(PathProblem::LongName),
            _ if name.chars().any(|c| c.is_control() || c == '\\') => return Err(PathProblem::Character),
            _ if depth > MAX_FOLDER_DEPTH => return Err(PathProblem::TooDeep),
            _ => {}
        }
    }
    Ok(())
}

impl Listing {
    /// A listing of these entries, in any order.
    ///
    /// # Errors
    /// See [`ListingError`].
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ListingError> {
        entries.sort_unstable_by(|one, other| one.path.as_bytes().cmp(other.path.as_bytes()));
        Self::checked(entries)
    }

    fn checked(entries: Vec<Entry>) -> Result<Self, ListingError> {
        if entries.len() > MAX_FOLDER_ENTRIES {
            return Err(ListingError::TooMany);
        }
        let mut before: Option<&str> = None;
        for entry in &entries {
            check_path(&entry.path).map_err(|problem| ListingError::Path(entry.path.clone(), problem))?;
            if before.is_some_and(|before| before.as_bytes() >= entry.path.as_bytes()) {
                return Err(ListingError::Order(entry.path.clone()));
            }
            before = Some(&entry.path);
        }
        // What is listed has nothing below it: neither a file nor an empty folder.
        let listed: HashSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        for entry in &entries {
            let mut above = entry.path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if listed.contains(parent) {
                    return Err(ListingError::Below(parent.to_owned()));
                }
                above = parent;
            }
        }
        let empty = FileHasher::default().finish();
        for Entry { path, file } in &entries {
            if file.as_ref().is_some_and(|file| file.size == 0 && file.digest() != empty) {
                return Err(ListingError::Digest(path.clone()));
            }
        }
        let files = (0..).zip(&entries).filter(|(_, entry)| entry.file.is_some()).map(|(at, _)| at).collect();
        Ok(Self { entries, files })
    }

    /// Reads a listing from what [`Listing::encode`] gives; nothing else is one.
    ///
    /// # Errors
    /// See [`ListingError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ListingError> {
        if bytes.len() > MAX_LISTING_BYTES as usize {
            return Err(ListingError::TooLong);
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let count = decoder.array().ok().flatten().ok_or(ListingError::Malformed)?;
        if count > MAX_FOLDER_ENTRIES as u64 {
            return Err(ListingError::TooMany);
        }
        let entries: Result<Vec<Entry>, _> = (0..count).map(|_| decoder.decode()).collect();
        let listing = Self::checked(entries.map_err(|_| ListingError::Malformed)?)?;
        // One way to write it: what is signed for by its digest means one thing.
        if listing.encode() == bytes { Ok(listing) } else { Err(ListingError::Malformed) }
    }

    /// The listing as it travels between peers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(&self.entries).unwrap_or_default()
    }

    /// All entries, sorted by path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The files in the order of the layout, empty ones too.
    pub fn files(&self) -> impl Iterator<Item = (&str, &ListedFile)> {
        self.entries.iter().filter_map(|entry| Some((entry.path.as_str(), entry.file.as_ref()?)))
    }

    /// The file of that number in the layout.
    #[must_use]
    pub fn file(&self, number: usize) -> Option<(&str, &ListedFile)> {
        let entry = self.entries.get(*self.files.get(number)? as usize)?;
        Some((&entry.path, entry.file.as_ref()?))
    }

    /// The empty folders.
    pub fn empty_folders(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| entry.file.is_none()).map(|entry| entry.path.as_str())
    }

    /// How the files are cut into pieces of this length.
    ///
    /// # Errors
    /// When a limit is broken.
    pub fn layout(&self, piece_length: u32) -> Result<Layout, LayoutError> {
        Layout::of_files(&self.sizes(), piece_length)
    }

    /// How Shoal cuts the files.
    ///
    /// # Errors
    /// When a limit is broken.
    pub fn usual_layout(&self) -> Result<Layout, LayoutError> {
        Layout::for_files(&self.sizes())
    }

    /// Two paths that a file system may take for one, because they differ only in upper and lower case or in the normal form
    /// of letters; `None` if there are none.
    #[must_use]
    pub fn colliding(&self) -> Option<(&str, &str)> {
        let mut seen: HashMap<String, &str> = HashMap::with_capacity(self.entries.len());
        self.entries.iter().find_map(|entry| {
            let folded: String = entry.path.to_lowercase().nfd().collect();
            let before = seen.insert(folded, &entry.path)?;
            Some((before, entry.path.as_str()))
        })
    }

    fn sizes(&self) -> Vec<u64> {
        self.files().map(|(_, file)| file.size).collect()
    }

    /// Checks what the digests of the files' pieces say of the files: a file of one piece is that piece.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn check_pieces(&self, layout: &Layout, pieces: &[Sha1]) -> Result<(), ListingError> {
        for (number, (path, file)) in self.files().enumerate() {
            let mut of_file = layout.pieces_of(number);
            if let (Some(only), None) = (of_file.next(), of_file.next())
                && pieces.get(only.as_usize()) != Some(&file.sha1)
            {
                return Err(ListingError::Digest(path.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, content: &[u8]) -> Entry {
        let mut hasher = FileHasher::default();
        hasher.update(content);
        let FileDigest { sha1, blake3 } = hasher.finish();
        let file = ListedFile { size: content.len() as u64, sha1, blake3, exec: false, mtime_s: -1 };
        Entry { path: path.to_owned(), file: Some(file) }
    }

    fn folder(path: &str) -> Entry {
        Entry { path: path.to_owned(), file: None }
    }

    #[test]
    fn a_listing_comes_back_as_it_was() {
        let entries = vec![file("b/c", b"x"), folder("b/d"), file("a", b""), file("b-", b"yz")];
        let listing = Listing::new(entries).unwrap();
        let paths: Vec<_> = listing.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "b-", "b/c", "b/d"]);
        assert_eq!(Listing::decode(&listing.encode()), Ok(listing.clone()));
        let layout = listing.usual_layout().unwrap();
        assert_eq!((layout.files(), layout.size(), layout.pieces()), (3, 3, 2));
        let pieces = [Sha1::of(b"yz"), Sha1::of(b"x")];
        assert_eq!(listing.check_pieces(&layout, &pieces), Ok(()));
        let swapped = [pieces[1], pieces[0]];
        assert_eq!(listing.check_pieces(&layout, &swapped), Err(ListingError::Digest("b-".into())));
        let none = Listing::new(Vec::new()).unwrap();
        assert_eq!(Listing::decode(&none.encode()), Ok(none));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(256);
        let deep = ["d"; 33].join("/");
        let longer = format!("{0}/{0}/{0}/{0}/{0}", "y".repeat(250));
        for (path, problem) in [
            ("", PathProblem::Escapes),
            ("/etc/passwd", PathProblem::Escapes),
            ("..", PathProblem::Escapes),
            ("a/../../b", PathProblem::Escapes),
            ("a//b", PathProblem::Escapes),
            ("a/", PathProblem::Escapes),
            ("./a", PathProblem::Escapes),
            ("a\0", PathProblem::Character),
            ("a\nb", PathProblem::Character),
            ("\u{1b}[2J", PathProblem::Character),
            ("..\\..\\a", PathProblem::Character),
            (&long, PathProblem::LongName),
            (&deep, PathProblem::TooDeep),
            (&longer, PathProblem::TooLong),
        ] {
            let refused = Err(ListingError::Path(path.to_owned(), problem));
            assert_eq!(Listing::new(vec![file(path, b"x")]), refused, "{path:?}");
            // As it comes from a hostile peer.
            let bytes = minicbor::to_vec(vec![file(path, b"x")]).unwrap();
            assert_eq!(Listing::decode(&bytes), refused, "{path:?}");
        }
        assert_eq!(check_path("a b/..c/.shoal/\u{e9}"), Ok(()));
    }

    #[test]
    fn names_that_a_file_system_may_take_for_one_are_found() {
        let of = |paths: [&str; 2]| {
            let listing = Listing::new(paths.map(|path| file(path, b"x")).into()).unwrap();
            listing.colliding().map(|(one, other)| [one.to_owned(), other.to_owned()])
        };
        assert_eq!(of(["a/README", "a/readme"]).unwrap(), ["a/README", "a/readme"]);
        assert!(of(["\u{e9}", "E\u{301}"]).is_some() && of(["a/b", "A/c"]).is_none());
    }

    #[test]
    fn contradictions_are_refused() {
        let decode = |entries: Vec<Entry>| Listing::decode(&minicbor::to_vec(entries).unwrap());
        assert_eq!(decode(vec![file("b", b""), file("a", b"")]), Err(ListingError::Order("a".into())));
        assert_eq!(decode(vec![file("a", b""), file("a", b"x")]), Err(ListingError::Order("a".into())));
        for above in [file("a", b"x"), folder("a")] {
            // Others lie between them in the order of bytes.
            let entries = vec![above, file("a-", b"x"), file("a/b/c", b"x")];
            assert_eq!(decode(entries), Err(ListingError::Below("a".into())));
        }
        let mut lie = file("a", b"x");
        lie.file.as_mut().unwrap().size = 0;
        assert_eq!(decode(vec![lie]), Err(ListingError::Digest("a".into())));
        let many: Vec<Entry> = (0..=MAX_FOLDER_ENTRIES).map(|n| folder(&format!("{n:06}"))).collect();
        assert_eq!(decode(many), Err(ListingError::TooMany));
        let mut longer = Listing::new(vec![file("a", b"x")]).unwrap().encode();
        longer.push(0);
        assert_eq!(Listing::decode(&longer), Err(ListingError::Malformed));
        // The same entries in an array without a length.
        assert_eq!(Listing::decode(&[0x9f, 0xff]), Err(ListingError::Malformed));
    }

    proptest! {
        #[test]
        fn whatever_decodes_is_written_in_one_way(
            names in proptest::collection::vec("[a-c./]{1,5}", 0..8), noise in any::<(usize, u8)>(),
        ) {
            if let Ok(listing) = Listing::new(names.iter().map(|name| file(name, b"x")).collect()) {
                let mut bytes = listing.encode();
                prop_assert_eq!(Listing::decode(&bytes), Ok(listing));
                let at = noise.0 % bytes.len();
                bytes[at] ^= noise.1;
                if let Ok(other) = Listing::decode(&bytes) {
                    prop_assert_eq!(other.encode(), bytes);
                    prop_assert!(other.entries().iter().all(|entry| check_path(&entry.path).is_ok()));
                }
            }
        }
    }
}
