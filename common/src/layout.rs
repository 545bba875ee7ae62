//! How a file is cut into pieces: the one place where an index becomes an offset.

use crate::limits::{MAX_FILE_SIZE, MAX_PIECE_LENGTH, MAX_PIECES, MIN_PIECE_LENGTH, USUAL_MAX_PIECE_LENGTH};
use crate::storage::{MAX_CHUNK, MAX_CHUNKS};

/// Number of pieces aimed at, before the bounds on a piece's length: enough to spread over many sources,
/// few enough that digests and announcements cost nothing.
const AIMED_PIECES: u64 = 2_000;
/// Chunks of a stored file at least (F4).
const STORED_CHUNKS: u64 = 4;

/// The index of a piece of one file, counted from 0. Only that file's [`Layout`] makes one, so it is always in range.
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

/// A file's size and piece length, proven to be within the limits. An empty file has no piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    size: u64,
    piece_length: u32,
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
}

impl Layout {
    /// The layout that Shoal gives a file of `size` bytes: a power of two aimed at 2,000 pieces, from 64 KiB to 1 MiB,
    /// and longer only if there were more than 100,000 pieces of 1 MiB.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`].
    pub fn for_size(size: u64) -> Result<Self, LayoutError> {
        let mut piece_length = MIN_PIECE_LENGTH;
        while piece_length < USUAL_MAX_PIECE_LENGTH && size.div_ceil(u64::from(piece_length)) > AIMED_PIECES {
            piece_length *= 2;
        }
        while piece_length < MAX_PIECE_LENGTH
            && size.div_ceil(u64::from(piece_length)) > u64::from(MAX_PIECES)
        {
            piece_length *= 2;
        }
        Self::new(size, piece_length)
    }

    /// A layout that another program chose.
    ///
    /// # Errors
    /// When a limit is broken; see [`LayoutError`].
    pub fn new(size: u64, piece_length: u32) -> Result<Self, LayoutError> {
        if size > MAX_FILE_SIZE {
            return Err(LayoutError::TooLong(size));
        }
        if !piece_length.is_power_of_two() || !(MIN_PIECE_LENGTH..=MAX_PIECE_LENGTH).contains(&piece_length) {
            return Err(LayoutError::PieceLength(piece_length));
        }
        let pieces = size.div_ceil(u64::from(piece_length));
        if pieces > u64::from(MAX_PIECES) {
            return Err(LayoutError::TooManyPieces(pieces));
        }
        Ok(Self { size, piece_length })
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
        Ok(Self { size, piece_length: u32::try_from(length).unwrap_or(MAX_CHUNK) })
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The length in bytes of every piece except, possibly, the last.
    #[must_use]
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// How many pieces the file has; 0 for an empty file.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_PIECES by construction")]
    pub fn pieces(&self) -> u32 {
        self.size.div_ceil(u64::from(self.piece_length)) as u32
    }

    /// The piece of that number, if the file has it.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.pieces()).then_some(PieceIndex(index))
    }

    /// All pieces in file order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator + use<> {
        (0..self.pieces()).map(PieceIndex)
    }

    /// Where a piece begins, in bytes from the file's start.
    #[must_use]
    pub fn offset(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// A piece's length in bytes: the piece length, but for the last piece what remains.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most piece_length, a u32")]
    pub fn length(&self, piece: PieceIndex) -> u32 {
        (self.size - self.offset(piece)).min(u64::from(self.piece_length)) as u32
    }
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

    proptest! {
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
