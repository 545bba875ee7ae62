//! How content is cut into pieces: the one place where an index becomes an offset. Content is one file, or the files of a folder laid end
//! to end, where no piece is of two files.

use std::ops::Range;
use std::sync::Arc;

use crate::limits::{MAX_FILE_SIZE, MAX_PIECE_LENGTH, MAX_PIECES, MIN_PIECE_LENGTH, USUAL_MAX_PIECE_LENGTH};
use crate::storage::{MAX_CHUNK, MAX_CHUNKS};

/// Number of pieces aimed at, before the bounds on a piece's length: enough to spread over many sources,
/// few enough that digests and announcements cost nothing.
const AIMED_PIECES: u64 = 2_000;
/// Chunks of a stored file at least (F4).
const STORED_CHUNKS: u64 = 4;

/// The index of a piece, counted from 0. Only its content's [`Layout`] makes one, so it is always in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The index as a number, for the wire and for arithmetic.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The index into arrays with one element per piece.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// Size and piece length of content, proven to be within the limits. Empty content has no piece. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    size: u64,
    piece_length: u32,
    /// Where its files begin; `None` for content that is one file.
    files: Option<Arc<Files>>,
}

/// The files of a folder in the packed content.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Files {
    /// All of them, empty ones too, in order.
    starts: Box<[Start]>,
    /// Pieces in all.
    pieces: u32,
}

/// Where a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Start {
    /// Bytes of the files before it.
    offset: u64,
    /// Pieces of the files before it.
    piece: u32,
}

/// A stretch of packed content that lies in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The number of the file, counted from 0 in the order of the layout.
    pub file: usize,
    /// Where it begins, in bytes from that file's start.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Why a size and a piece length make no layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Longer than [`MAX_FILE_SIZE`].
    #[error("a file of {0} bytes is too long: {MAX_FILE_SIZE} bytes are the most")]
    TooLong(u64),
    /// Not a power of two between the limits.
    #[error("a piece length of {0} bytes: it must be a power of two from 64 KiB to 16 MiB")]
    PieceLength(u32),
    /// More than [`MAX_PIECES`].
    #[error("{0} pieces are too many: {MAX_PIECES} are the most")]
    TooManyPieces(u64),
    /// It is a folder's, and what its files are is not known.
    #[error("it is a folder")]
    Folder,
}

impl Layout {
    /// The layout that Shoal gives a file of `size` bytes: a power of two aimed at 2,000 pieces, from 64 KiB to 1 MiB,
    /// and longer only if there were more than 100,000 pieces of 1 MiB.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`].
    pub fn for_size(size: u64) -> Result<Self, LayoutError> {
        let mut piece_length = usual_piece_length(size);
        while piece_length < MAX_PIECE_LENGTH
            && size.div_ceil(u64::from(piece_length)) > u64::from(MAX_PIECES)
        {
            piece_length *= 2;
        }
        Self::new(size, piece_length)
    }

    /// The layout that Shoal gives files of these sizes, in bytes: the piece length is the one of a file as long as all of them,
    /// and longer only if there were more than 100,000 pieces.
    ///
    /// # Errors
    /// When they are too long or too many; see [`LayoutError`].
    pub fn for_files(sizes: &[u64]) -> Result<Self, LayoutError> {
        let total = sizes.iter().try_fold(0_u64, |sum, &size| sum.checked_add(size));
        let mut piece_length = usual_piece_length(total.unwrap_or(u64::MAX));
        loop {
            match Self::of_files(sizes, piece_length) {
                Err(LayoutError::TooManyPieces(_)) if piece_length < MAX_PIECE_LENGTH => piece_length *= 2,
                made => return made,
            }
        }
    }

    /// A layout that another program chose.
    ///
    /// # Errors
    /// When a limit is broken; see [`LayoutError`].
    pub fn new(size: u64, piece_length: u32) -> Result<Self, LayoutError> {
        check_lengths(size, piece_length)?;
        let pieces = size.div_ceil(u64::from(piece_length));
        if pieces > u64::from(MAX_PIECES) {
            return Err(LayoutError::TooManyPieces(pieces));
        }
        Ok(Self { size, piece_length, files: None })
    }

    /// A layout of files, laid end to end in this order, that another program chose. Each file's last piece may be shorter.
    ///
    /// # Errors
    /// When a limit is broken; see [`LayoutError`].
    #[expect(clippy::cast_possible_truncation, reason = "pieces are at most MAX_PIECES where they are kept")]
    pub fn of_files(sizes: &[u64], piece_length: u32) -> Result<Self, LayoutError> {
        check_lengths(0, piece_length)?;
        let (mut offset, mut pieces) = (0_u64, 0_u64);
        let mut starts = Vec::with_capacity(sizes.len());
        for &size in sizes {
            starts.push(Start { offset, piece: pieces.min(u64::from(MAX_PIECES)) as u32 });
            offset = offset.checked_add(size).ok_or(LayoutError::TooLong(u64::MAX))?;
            pieces += size.div_ceil(u64::from(piece_length));
        }
        check_lengths(offset, piece_length)?;
        if pieces > u64::from(MAX_PIECES) {
            return Err(LayoutError::TooManyPieces(pieces));
        }
        let files = Files { starts: starts.into(), pieces: pieces as u32 };
        Ok(Self { size: offset, piece_length, files: Some(Arc::new(files)) })
    }

    /// How the encrypted store cuts a file of `size` bytes into chunks (F4): at least four if it has four bytes, of 4 MiB at
    /// most, all of one length but the last.
    ///
    /// # Errors
    /// [`LayoutError::TooManyPieces`] beyond [`MAX_CHUNKS`] chunks.
    pub fn stored(size: u64) -> Result<Self, LayoutError> {
        let most = u64::from(MAX_CHUNK);
        let chunks = size.div_ceil(most);
        if chunks > MAX_CHUNKS as u64 {
            return Err(LayoutError::TooManyPieces(chunks));
        }
        let mut length = (size / STORED_CHUNKS).clamp(1, most);
        if length > u64::from(MIN_PIECE_LENGTH) {
            length -= length % u64::from(MIN_PIECE_LENGTH);
        }
        Ok(Self { size, piece_length: u32::try_from(length).unwrap_or(MAX_CHUNK), files: None })
    }

    /// The size of the content in bytes; of a folder, that of all its files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The length in bytes of every piece except, possibly, the last of a file.
    #[must_use]
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces there are; 0 for empty content.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_PIECES by construction")]
    pub fn pieces(&self) -> u32 {
        match &self.files {
            None => self.size.div_ceil(u64::from(self.piece_length)) as u32,
            Some(files) => files.pieces,
        }
    }

    /// The piece of that number, if there is one.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.pieces()).then_some(PieceIndex(index))
    }

    /// All pieces in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.pieces()).map(PieceIndex)
    }

    /// Where a piece begins, in bytes from the start of the content.
    #[must_use]
    pub fn offset(&self, piece: PieceIndex) -> u64 {
        let start = self.files.as_ref().map_or(Start { offset: 0, piece: 0 }, |files| files.of_piece(piece));
        start.offset + u64::from(piece.0 - start.piece) * u64::from(self.piece_length)
    }

    /// A piece's length in bytes: the piece length, but for the last piece of a file what remains.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most piece_length, a u32")]
    pub fn length(&self, piece: PieceIndex) -> u32 {
        let end = self.files.as_ref().map_or(self.size, |files| files.end_of_piece(piece, self.size));
        (end - self.offset(piece)).min(u64::from(self.piece_length)) as u32
    }

    /// What a piece is taken for before it is known which one: the piece length; of a folder the mean, in bytes, because its
    /// pieces may all be as short as its files.
    #[must_use]
    pub fn usual_length(&self) -> u64 {
        match &self.files {
            None => self.piece_length.into(),
            Some(files) => self.size.div_ceil(files.pieces.max(1).into()).max(1),
        }
    }

    /// How many files there are, empty ones too; 1 for content that is one file.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.as_ref().map_or(1, |files| files.starts.len())
    }

    /// Where a file lies in the content, in bytes; empty for a number that no file has.
    #[must_use]
    pub fn extent(&self, file: usize) -> Range<u64> {
        let Some(files) = &self.files else { return 0..if file == 0 { self.size } else { 0 } };
        let start = |file: usize| files.starts.get(file).map_or(self.size, |start| start.offset);
        start(file)..start(file.saturating_add(1))
    }

    /// The pieces of a file; none for an empty one.
    pub fn pieces_of(
        &self,
        file: usize,
    ) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        let range = match &self.files {
            None if file == 0 => 0..self.pieces(),
            None => 0..0,
            Some(files) => {
                let start = |file: usize| files.starts.get(file).map_or(files.pieces, |start| start.piece);
                start(file)..start(file.saturating_add(1))
            }
        };
        range.map(PieceIndex)
    }

    /// The file that a piece is of.
    #[must_use]
    pub fn file_of(&self, piece: PieceIndex) -> usize {
        self.files
            .as_ref()
            .map_or(0, |files| files.starts.partition_point(|start| start.piece <= piece.0) - 1)
    }

    /// A range of the content, file by file; what lies behind its end is left out.
    pub fn stretches(&self, range: Range<u64>) -> impl Iterator<Item = Stretch> + '_ {
        let end = range.end.min(self.size);
        let first = match &self.files {
            None => 0,
            Some(files) => {
                files.starts.partition_point(|start| start.offset <= range.start).saturating_sub(1)
            }
        };
        let of_file = move |file| {
            let extent = self.extent(file);
            let (from, to) = (range.start.max(extent.start), end.min(extent.end));
            (extent, from, to)
        };
        (first..self.files())
            .map(move |file| (file, of_file(file)))
            .take_while(move |(_, (extent, ..))| extent.start < end)
            .filter(|(_, (_, from, to))| from < to)
            .map(|(file, (extent, from, to))| Stretch {
                file,
                offset: from - extent.start,
                length: to - from,
            })
    }
}

impl Files {
    /// The start of the file that a piece is of.
    fn of_piece(&self, piece: PieceIndex) -> Start {
        let after = self.starts.partition_point(|start| start.piece <= piece.0);
        self.starts[after - 1]
    }

    /// Where that file ends.
    fn end_of_piece(&self, piece: PieceIndex, size: u64) -> u64 {
        let after = self.starts.partition_point(|start| start.piece <= piece.0);
        self.starts.get(after).map_or(size, |start| start.offset)
    }
}

/// The piece length for that many bytes, before the bound on the number of pieces.
fn usual_piece_length(size: u64) -> u32 {
    let mut piece_length = MIN_PIECE_LENGTH;
    while piece_length < USUAL_MAX_PIECE_LENGTH && size.div_ceil(u64::from(piece_length)) > AIMED_PIECES {
        piece_length *= 2;
    }
    piece_length
}

fn check_lengths(size: u64, piece_length: u32) -> Result<(), LayoutError> {
    if size > MAX_FILE_SIZE {
        return Err(LayoutError::TooLong(size));
    }
    if !piece_length.is_power_of_two() || !(MIN_PIECE_LENGTH..=MAX_PIECE_LENGTH).contains(&piece_length) {
        return Err(LayoutError::PieceLength(piece_length));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn piece_lengths_are_as_documented() {
        let kib = 1024;
        for (size, length, pieces) in [
            (0, 64 * kib, 0),
            (1, 64 * kib, 1),
            (64 * 1024, 64 * kib, 1),
            (64 * 1024 + 1, 64 * kib, 2),
            (125 << 20, 64 * kib, 2_000),
            ((125 << 20) + 1, 128 * kib, 1_001),
            (1 << 30, 1024 * kib, 1_024),
            (100_000 << 20, 1024 * kib, 100_000),
            ((100_000 << 20) + 1, 2048 * kib, 50_001),
        ] {
            let layout = Layout::for_size(size).unwrap();
            assert_eq!((layout.piece_length(), layout.pieces()), (length, pieces), "{size}");
        }
        assert_eq!(Layout::for_size(MAX_FILE_SIZE + 1), Err(LayoutError::TooLong(MAX_FILE_SIZE + 1)));
    }

    #[test]
    fn foreign_layouts_are_checked() {
        assert_eq!(Layout::new(1, 100_000), Err(LayoutError::PieceLength(100_000)));
        assert_eq!(Layout::new(1, 32 * 1024), Err(LayoutError::PieceLength(32 * 1024)));
        assert_eq!(Layout::new(1, 0), Err(LayoutError::PieceLength(0)));
        assert_eq!(Layout::new(1 << 40, 64 * 1024), Err(LayoutError::TooManyPieces(1 << 24)));
    }

    #[test]
    fn stored_files_have_four_chunks_of_at_most_4_mib() {
        let mib = 1 << 20;
        for (size, length, chunks) in [
            (0, 1, 0),
            (1, 1, 1),
            (3, 1, 3),
            (4, 1, 4),
            (5, 1, 5),
            (8, 2, 4),
            (1_000, 250, 4),
            (16 * mib, 4 << 20, 4),
            (16 * mib + 1, 4 << 20, 5),
            (1 << 30, 4 << 20, 256),
            (50_000 * 4 * mib, 4 << 20, 50_000),
        ] {
            let layout = Layout::stored(size).unwrap();
            assert_eq!((layout.piece_length(), layout.pieces()), (length, chunks), "{size}");
        }
        assert_eq!(Layout::stored(50_000 * 4 * mib + 1), Err(LayoutError::TooManyPieces(50_001)));
    }

    /// The same cut plainly: for each piece its file, offset and length.
    fn plain(sizes: &[u64], piece_length: u32) -> Vec<(usize, u64, u32)> {
        let (mut pieces, mut offset) = (Vec::new(), 0);
        for (file, &size) in sizes.iter().enumerate() {
            let mut rest = size;
            while rest > 0 {
                let length = u32::try_from(rest.min(u64::from(piece_length))).unwrap();
                pieces.push((file, offset, length));
                offset += u64::from(length);
                rest -= u64::from(length);
            }
        }
        pieces
    }

    #[test]
    fn files_keep_the_limits_of_one_file() {
        assert_eq!(Layout::for_files(&[u64::MAX, 1]), Err(LayoutError::TooLong(u64::MAX)));
        assert_eq!(Layout::for_files(&[MAX_FILE_SIZE, 1]), Err(LayoutError::TooLong(MAX_FILE_SIZE + 1)));
        assert_eq!(Layout::for_files(&[1; 100_001]), Err(LayoutError::TooManyPieces(100_001)));
        let most = Layout::for_files(&[1; 100_000]).unwrap();
        assert_eq!((most.pieces(), most.size(), most.files()), (100_000, 100_000, 100_000));
        let longer = Layout::for_files(&[100_000 << 20, 1]).unwrap();
        assert_eq!((longer.piece_length(), longer.pieces()), (2 << 20, 50_001));
        let none = Layout::for_files(&[]).unwrap();
        assert_eq!((none.pieces(), none.size(), none.files()), (0, 0, 0));
    }

    #[test]
    fn one_file_is_its_own_only_one() {
        let layout = Layout::new(200_000, 65_536).unwrap();
        assert_eq!((layout.files(), layout.extent(0), layout.extent(1)), (1, 0..200_000, 0..0));
        assert_eq!((layout.pieces_of(0).len(), layout.pieces_of(1).len()), (4, 0));
        let one = Stretch { file: 0, offset: 5, length: 199_995 };
        assert_eq!(layout.stretches(5..u64::MAX).collect::<Vec<_>>(), [one]);
    }

    proptest! {
        #[test]
        fn files_are_cut_as_the_plain_rule_says(
            sizes in proptest::collection::vec(
                prop_oneof![Just(0), 1..10_u64, Just(65_536), Just(131_072), 0..500_000_u64], 0..30
            ),
            from in 0..6_000_000_u64, length in 0..6_000_000_u64,
        ) {
            let layout = Layout::of_files(&sizes, 65_536).unwrap();
            let expected = plain(&sizes, 65_536);
            let cut: Vec<_> = layout.iter()
                .map(|piece| (layout.file_of(piece), layout.offset(piece), layout.length(piece)))
                .collect();
            prop_assert_eq!(&cut, &expected);
            prop_assert_eq!(layout.size(), sizes.iter().sum::<u64>());
            for (file, &size) in sizes.iter().enumerate() {
                let extent = layout.extent(file);
                prop_assert_eq!(extent.end - extent.start, size);
                let of_file: Vec<_> = layout.pieces_of(file).map(|piece| layout.file_of(piece)).collect();
                prop_assert!(of_file.iter().all(|&of| of == file));
                prop_assert_eq!(of_file.len() as u64, size.div_ceil(65_536));
            }
            // Every byte of the range is in exactly one stretch, in order.
            let mut at = from;
            for stretch in layout.stretches(from..from + length) {
                prop_assert!(stretch.length > 0);
                prop_assert_eq!(layout.extent(stretch.file).start + stretch.offset, at);
                at += stretch.length;
                prop_assert!(at <= layout.extent(stretch.file).end);
            }
            prop_assert_eq!(at, (from + length).min(layout.size()).max(from));
        }

        #[test]
        fn chunks_of_a_stored_file_are_as_required(size in 4_u64..(64 << 20)) {
            let layout = Layout::stored(size).unwrap();
            prop_assert!(layout.pieces() >= 4 && layout.piece_length() <= MAX_CHUNK);
            let sum: u64 = layout.iter().map(|piece| u64::from(layout.length(piece))).sum();
            prop_assert_eq!(sum, size);
        }

        #[test]
        fn pieces_tile_the_file(size in 0..MAX_FILE_SIZE) {
            let layout = Layout::for_size(size).unwrap();
            let last = layout.iter().next_back();
            prop_assert_eq!(last.map_or(0, |p| layout.offset(p) + u64::from(layout.length(p))), size);
            prop_assert!(last.is_none_or(|p| layout.length(p) > 0));
            prop_assert_eq!(layout.piece(layout.pieces()), None);
        }
    }
}
