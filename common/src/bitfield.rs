//! Which pieces of a file a peer holds: one bit per piece.

use crate::layout::{Layout, PieceIndex};

/// A set of pieces of one file. Its length is the number of that file's pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

/// Why bytes are not the bitfield of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not `pieces` bits, rounded up to bytes.
    #[error("{got} bytes where the file's bitfield has {expected}")]
    Length {
        /// Bytes that a bitfield of this file has.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A bit behind the last piece is set.
    #[error("a bit behind the last piece is set")]
    Trailing,
}

impl Bitfield {
    /// The empty set for a file of this layout.
    #[must_use]
    pub fn none(layout: &Layout) -> Self {
        let len = layout.pieces();
        Self { words: vec![0; len.div_ceil(64) as usize], len, ones: 0 }
    }

    /// The full set for a file of this layout.
    #[must_use]
    pub fn all(layout: &Layout) -> Self {
        let mut bits = Self::none(layout);
        bits.words.fill(u64::MAX);
        if let (Some(last), rest @ 1..) = (bits.words.last_mut(), bits.len % 64) {
            *last = (1 << rest) - 1;
        }
        bits.ones = bits.len;
        bits
    }

    /// Reads the wire form: piece 0 is the lowest bit of the first byte.
    ///
    /// # Errors
    /// When length or padding do not fit the layout.
    pub fn from_bytes(layout: &Layout, bytes: &[u8]) -> Result<Self, BitfieldError> {
        let mut bits = Self::none(layout);
        let expected = bits.len.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitfieldError::Length { expected, got: bytes.len() });
        }
        for (word, chunk) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(whole);
        }
        let padded = !bits.len.is_multiple_of(64)
            && bits.words.last().is_some_and(|last| last >> (bits.len % 64) != 0);
        if padded {
            return Err(BitfieldError::Trailing);
        }
        bits.ones = bits.words.iter().map(|word| word.count_ones()).sum();
        Ok(bits)
    }

    /// The wire form; see [`Bitfield::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// The set, 64 pieces per word, with piece 0 in the lowest bit of the first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether the piece is in the set.
    ///
    /// # Panics
    /// Never for a piece of the layout that the bitfield was made for.
    #[must_use]
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.words[piece.as_usize() / 64] >> (piece.get() % 64) & 1 == 1
    }

    /// Adds a piece; true if it was not there.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if self.has(piece) {
            return false;
        }
        self.words[piece.as_usize() / 64] |= 1 << (piece.get() % 64);
        self.ones += 1;
        true
    }

    /// Removes a piece; true if it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.has(piece) {
            return false;
        }
        self.words[piece.as_usize() / 64] &= !(1 << (piece.get() % 64));
        self.ones -= 1;
        true
    }

    /// The pieces that are in both sets, which must be of the same content.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let words: Vec<u64> = self.words.iter().zip(&other.words).map(|(one, other)| one & other).collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Self { words, len: self.len, ones }
    }

    /// How many pieces are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// How many pieces the file has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The bytes of the pieces in the set, as `layout` cuts them.
    #[must_use]
    pub fn bytes(&self, layout: &Layout) -> u64 {
        if self.is_all() {
            return layout.size();
        }
        if layout.files() != 1 {
            return self.iter(layout).map(|piece| u64::from(layout.length(piece))).sum();
        }
        // Only the last piece may be shorter.
        let whole = u64::from(self.ones) * u64::from(layout.piece_length());
        let last = layout.iter().next_back().filter(|&last| self.has(last));
        whole - last.map_or(0, |last| u64::from(layout.piece_length() - layout.length(last)))
    }

    /// How many pieces are in the set, in percent rounded down.
    #[must_use]
    pub fn percent(&self) -> u8 {
        Self::percent_of(self.ones, self.len)
    }

    /// `count` of `all` pieces in percent, rounded down; 100 for more than all.
    #[must_use]
    pub fn percent_of(count: u32, all: u32) -> u8 {
        let percent = u64::from(count) * 100 / u64::from(all.max(1));
        u8::try_from(percent).map_or(100, |percent| percent.min(100))
    }

    /// Whether no piece is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether every piece is in the set; so it is for an empty file.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.ones == self.len
    }

    /// The pieces of the set in file order, as indices of `layout`.
    pub fn iter<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = PieceIndex> + 'a {
        layout.iter().filter(|&piece| self.has(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(pieces: u32) -> Layout {
        Layout::new(u64::from(pieces) * 65_536, 65_536).unwrap()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(pieces in 0u32..300, steps in proptest::collection::vec((any::<bool>(), 0u32..300), 0..200)) {
            let layout = layout(pieces);
            let mut bits = Bitfield::none(&layout);
            let mut model = std::collections::BTreeSet::new();
            for (insert, index) in steps {
                let Some(piece) = layout.piece(index) else { continue };
                if insert {
                    prop_assert_eq!(bits.insert(piece), model.insert(piece));
                } else {
                    prop_assert_eq!(bits.remove(piece), model.remove(&piece));
                }
            }
            prop_assert_eq!(bits.iter(&layout).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(bits.count() as usize, model.len());
            prop_assert_eq!(Bitfield::from_bytes(&layout, &bits.to_bytes()), Ok(bits));
        }

        #[test]
        fn all_is_all(pieces in 0u32..300) {
            let layout = layout(pieces);
            let bits = Bitfield::all(&layout);
            prop_assert!(bits.is_all() && layout.iter().all(|piece| bits.has(piece)));
            prop_assert_eq!(Bitfield::from_bytes(&layout, &bits.to_bytes()), Ok(bits));
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces in 0u32..300, bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = Bitfield::from_bytes(&layout(pieces), &bytes);
        }
    }

    #[test]
    fn padding_must_be_clear() {
        assert_eq!(Bitfield::from_bytes(&layout(3), &[0b1000]), Err(BitfieldError::Trailing));
        assert_eq!(Bitfield::from_bytes(&layout(3), &[]), Err(BitfieldError::Length { expected: 1, got: 0 }));
    }
}
