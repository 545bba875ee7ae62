//! The parts of a file that a server holds: `bytes 0-65535,131072-196607/1000000`, or `bytes */1000000` for none. `server`
//! answers so under `NAME.have`, and `fetch` reads it. Pure.

use std::fmt;

use shoal_common::limits::{MAX_FILE_SIZE, MAX_PIECES};
use shoal_common::{Bitfield, Layout};

/// The header that marks an answer about a file of which only a part is there. It names where the server says which.
pub(crate) const HAVE: &str = "shoal-have";
/// How that resource ends.
pub(crate) const HAVE_SUFFIX: &str = ".have";
/// Most separate parts: every second piece of the most pieces.
const MAX_PARTS: usize = MAX_PIECES as usize / 2 + 1;
/// Longest text that is read: the most parts with numbers of 13 digits, and the size.
pub(crate) const MAX_HELD_BYTES: usize = 28 * MAX_PARTS + 64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    size: u64,
    /// First and last byte of each part, in order and with gaps between.
    parts: Vec<(u64, u64)>,
}

impl Held {
    /// The whole of a file of that size.
    pub(crate) fn all(size: u64) -> Self {
        Self { size, parts: size.checked_sub(1).map(|last| (0, last)).into_iter().collect() }
    }

    /// These pieces.
    pub(crate) fn pieces(layout: &Layout, bits: &Bitfield) -> Self {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for piece in bits.iter(layout) {
            let first = layout.offset(piece);
            let last = first + u64::from(layout.length(piece)) - 1;
            match parts.last_mut() {
                Some((_, end)) if *end + 1 == first => *end = last,
                _ => parts.push((first, last)),
            }
        }
        Self { size: layout.size(), parts }
    }

    /// Reads the text; `None` if it makes no sense.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (parts, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let size = number(size).filter(|&size| size <= MAX_FILE_SIZE)?;
        let mut held = Self { size, parts: Vec::new() };
        if parts == "*" {
            return Some(held);
        }
        for part in parts.split(',') {
            let (first, last) = part.split_once('-')?;
            let (first, last) = (number(first)?, number(last)?);
            let follows = held.parts.last().is_none_or(|&(_, end)| first > end);
            if !follows || first > last || last >= size || held.parts.len() >= MAX_PARTS {
                return None;
            }
            held.parts.push((first, last));
        }
        Some(held)
    }

    /// Size of the whole file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|&(first, last)| last - first + 1).sum()
    }

    /// Whether nothing is missing.
    pub(crate) fn is_all(&self) -> bool {
        self.bytes() == self.size
    }

    /// The last byte of the part that `first` is in; `None` if that byte is missing.
    pub(crate) fn end_of(&self, first: u64) -> Option<u64> {
        let behind = self.parts.partition_point(|&(begins, _)| begins <= first);
        let &(_, last) = self.parts.get(behind.checked_sub(1)?)?;
        (first <= last).then_some(last)
    }

    /// The pieces of a layout that are held whole.
    pub(crate) fn bits(&self, layout: &Layout) -> Bitfield {
        let mut bits = Bitfield::none(layout);
        for piece in layout.iter() {
            let first = layout.offset(piece);
            let last = first + u64::from(layout.length(piece)) - 1;
            if self.end_of(first).is_some_and(|end| end >= last) {
                bits.insert(piece);
            }
        }
        bits
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes ")?;
        for (index, (first, last)) in self.parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{first}-{last}")?;
        }
        let none = if self.parts.is_empty() { "*" } else { "" };
        write!(f, "{none}/{}", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "bytes",
            "bytes /1",
            "bytes 0-1",
            "bytes 0-9/9",
            "bytes 5-4/9",
            "bytes 3-4,0-1/9",
            "bytes 0-1,1-2/9",
            "bytes 0-1,/9",
            "bytes +0-1/9",
            "bytes 0-1/x",
            "bytes 0-1/99999999999999999999",
            "items 0-1/9",
        ] {
            assert_eq!(Held::parse(text), None, "{text:?}");
        }
        assert_eq!(Held::parse("bytes 0-8/9\n"), Some(Held::all(9)));
        assert!(Held::all(0).is_all() && Held::parse("bytes */0").unwrap().is_all());
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(size in 1u64..3_000_000, held in proptest::collection::vec(any::<bool>(), 46)) {
            let layout = Layout::new(size, 65_536).unwrap();
            let mut bits = Bitfield::none(&layout);
            for piece in layout.iter().filter(|piece| held[piece.as_usize()]) {
                bits.insert(piece);
            }
            let said = Held::pieces(&layout, &bits);
            let read = Held::parse(&said.to_string()).unwrap();
            prop_assert_eq!(&read, &said);
            prop_assert!(read.bits(&layout) == bits);
            prop_assert_eq!(read.is_all(), bits.is_all());
            // Other cuts count only what is there whole.
            let coarse = Layout::new(size, 131_072).unwrap();
            for piece in coarse.iter() {
                let (one, two) = (piece.as_usize() * 2, piece.as_usize() * 2 + 1);
                let both = held[one] && (two >= layout.pieces() as usize || held[two]);
                prop_assert_eq!(read.bits(&coarse).has(piece), both);
            }
        }
    }
}
