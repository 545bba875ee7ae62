//! Which names look alike: two whose *skeletons* are equal (UTS 39, section 4).
//!
//! A skeleton follows from Unicode's tables, which change. So the claim on a name keeps the skeleton as it was computed
//! when the claim was made, with the version of the tables.

use minicbor::{Decode, Encode};
use unicode_normalization::UnicodeNormalization;

use super::characters::is_hidden;
use crate::Blake3;

/// Version of the tables with which this build computes skeletons: Unicode's major version.
pub const TABLES: u64 = unicode_security::UNICODE_VERSION.0;
/// The first version of the tables with which claims were made. An older one in a claim is made up.
const FIRST_TABLES: u64 = 18;
/// Longest key of a skeleton in bytes: what a key of the replicated records has room for. A longer skeleton, which only a few
/// ligatures of a whole phrase give, is replaced by its digest.
const MAX_KEY_BYTES: usize = 255;

/// What names that look alike have in common.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Skeleton {
    /// The version of the tables that it was computed with.
    #[n(0)]
    tables: u64,
    /// The skeleton as UTF-8, or its digest if it is long.
    #[cbor(n(1), with = "minicbor::bytes")]
    key: Vec<u8>,
}

impl Skeleton {
    /// The skeleton of a name, by this build's tables.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let text = text(name);
        let key = if text.is_empty() {
            // Nothing but ignorable characters, which only an earlier version took.
            name.as_bytes().to_vec()
        } else if text.len() > MAX_KEY_BYTES {
            Blake3::of(text.as_bytes()).0.to_vec()
        } else {
            text.into_bytes()
        };
        Self { tables: TABLES, key }
    }

    /// What is equal for names that look alike, at most 255 bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether a claim on `name` may say that this is its skeleton. By this build's tables it must be the very one. What other
    /// tables give cannot be computed here, so only what is impossible is refused.
    #[must_use]
    pub fn is_possible(&self, name: &str) -> bool {
        let bounded = !self.key.is_empty() && self.key.len() <= MAX_KEY_BYTES;
        bounded && self.tables >= FIRST_TABLES && (self.tables != TABLES || self.is_own(name))
    }

    /// Whether this build's tables give the same.
    #[must_use]
    pub fn is_own(&self, name: &str) -> bool {
        Self::of(name).key == self.key
    }
}

/// The skeleton of UTS 39. Spaces of all kinds and lengths are one space, because nobody counts them.
pub(super) fn text(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    // Composed first: UTS 39 maps some letters with marks as a whole.
    for character in unicode_security::skeleton(&name.nfc().collect::<String>()) {
        if !character.is_whitespace() && !is_blank(character) {
            text.push(character);
        } else if !text.ends_with(' ') {
            text.push(' ');
        }
    }
    text.trim().to_owned()
}

/// What takes room and shows nothing.
fn is_blank(character: char) -> bool {
    is_hidden(character) && !character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pinned crate decides which names look alike. When its tables change, names that were claimed keep their skeletons;
    /// read `Skeleton::is_possible` and `FIRST_TABLES` before this number is changed.
    #[test]
    fn the_tables_are_those_that_this_version_was_made_with() {
        assert_eq!(TABLES, 18);
    }

    #[test]
    fn a_claim_cannot_say_any_skeleton() {
        let right = Skeleton::of("ann");
        assert!(right.is_possible("ann") && right.is_own("ann"));
        assert_eq!(right.key(), b"ann");
        let lie = Skeleton { key: b"zzz".to_vec(), ..right.clone() };
        assert!(!lie.is_possible("ann"));
        assert!(!Skeleton { tables: 3, ..right.clone() }.is_possible("ann"), "no version had these tables");
        for key in [vec![], vec![b'x'; 256]] {
            assert!(!Skeleton { tables: TABLES + 1, key }.is_possible("ann"));
        }
        let later = Skeleton { tables: TABLES + 1, ..lie };
        assert!(later.is_possible("ann") && !later.is_own("ann"), "later tables cannot be checked");
    }

    #[test]
    fn a_skeleton_of_any_length_has_a_short_key() {
        let long = Skeleton::of(&"\u{fdfa}".repeat(21));
        assert_eq!(long.key().len(), 32);
        assert_ne!(long, Skeleton::of(&"\u{fdfa}".repeat(20)));
    }
}
