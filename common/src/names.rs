//! Names of users, groups, storage nodes and shared files. A value of these types is a valid name and need not be checked
//! again.
//!
//! - A name that is created is in NFC and holds no hidden character, except where its script needs one (`characters`). File
//!   names stay as they were shared: a file may be called anything but a control character.
//! - A name may be *referred to* under the rules of the first version, because names of that time stay valid.
//! - Two names in different normal forms are equal. So whatever is looked up is found in whichever form it was typed.
//! - Users and groups are unique by [`Skeleton`]: names that look alike are one name.
//! - Displaying a name escapes its hidden characters. `as_str` is the name itself.
//!
//! A claim that lost its name to another one after a partition is renamed to `name~xxxxxx` (six hex digits). Such a name may be
//! referred to but not created, so that no one can take one by typing it.

mod characters;
mod earlier;
mod skeleton;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use unicode_normalization::{UnicodeNormalization, is_nfc};

pub use characters::{is_hidden, shown};
pub use earlier::is_later;
pub use skeleton::{Skeleton, TABLES};

use crate::limits::{MAX_FILE_NAME_BYTES, MAX_NAME_BYTES};

/// Hex digits behind the `~` of a name that was renamed on conflict.
const RENAMED_DIGITS: usize = 6;
/// Bytes that renaming adds.
const SUFFIX_BYTES: usize = RENAMED_DIGITS + 1;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// Over the limit.
    #[error("a {what} of {got} bytes is too long: {limit} bytes are the most")]
    TooLong {
        /// What kind of name.
        what: &'static str,
        /// Its length in bytes.
        got: usize,
        /// The most that is allowed, in bytes.
        limit: usize,
    },
    /// A control character, or one that reorders or hides text.
    #[error("a {what} must not contain the character {character:?}")]
    Character {
        /// What kind of name.
        what: &'static str,
        /// The offender.
        character: char,
    },
    /// A combining mark in front.
    #[error("a {0} must not begin with an accent that stands alone")]
    MarkFirst(&'static str),
    /// Marks on marks.
    #[error("a {0} must not have one accent twice, or more than four, on a letter")]
    Marks(&'static str),
    /// Space at an end.
    #[error("a {0} must not begin or end with a space")]
    Space(&'static str),
    /// `.` or `..`, which name folders.
    #[error("{0:?} is not a file name")]
    Folder(String),
    /// Ends like a name that was renamed on conflict.
    #[error("a {0} must not end with ~ and six hex digits: that is kept for names that were taken twice")]
    Renamed(&'static str),
}

/// Checks what holds for all names: length, control characters, spaces at the ends.
fn check(what: &'static str, text: &str, limit: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > limit {
        return Err(NameError::TooLong { what, got: text.len(), limit });
    }
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        return Err(NameError::Character { what, character });
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(NameError::Space(what));
    }
    Ok(())
}

/// Further rules for names that are created and must be told from others by looking at them.
fn check_new(what: &'static str, text: &str) -> Result<(), NameError> {
    if let Some(character) = characters::first_hidden(text) {
        return Err(NameError::Character { what, character });
    }
    if text.trim() != text {
        return Err(NameError::Space(what));
    }
    characters::check_marks(text).map_err(|marks| match marks {
        characters::Marks::First => NameError::MarkFirst(what),
        characters::Marks::Stacked => NameError::Marks(what),
    })?;
    if looks_renamed(text) { Err(NameError::Renamed(what)) } else { Ok(()) }
}

/// Whether a name only looks as if it were renamed on conflict: `ann~аbcdef` with a Cyrillic letter.
fn looks_renamed(text: &str) -> bool {
    let digits: Vec<String> =
        "0123456789abcdefABCDEF".chars().map(|c| skeleton::text(&c.to_string())).collect();
    let skeleton: Vec<char> = skeleton::text(text).chars().collect();
    let Some(at) = skeleton.len().checked_sub(SUFFIX_BYTES) else { return false };
    let is_digit = |c: &char| digits.iter().any(|digit| digit.chars().eq([*c]));
    skeleton::text("~").chars().eq([skeleton[at]]) && skeleton[at + 1..].iter().all(is_digit)
}

/// A new name's text, composed and checked.
fn new(what: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    // The length first: nothing is computed for a text that is no name.
    if text.len() > MAX_NAME_BYTES * 4 {
        return Err(NameError::TooLong { what, got: text.len(), limit: MAX_NAME_BYTES });
    }
    let text = composed(text);
    check(what, &text, MAX_NAME_BYTES)?;
    check_new(what, &text)?;
    Ok(text)
}

/// The text in Unicode's composed normal form.
fn composed(text: &str) -> Arc<str> {
    if is_nfc(text) { text.into() } else { text.nfc().collect::<String>().into() }
}

/// A text in Unicode's composed normal form: names that look the same are the same then.
#[must_use]
pub fn normal_form(text: &str) -> String {
    composed(text).as_ref().to_owned()
}

/// Whether two names are one name, in whichever normal forms.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    compare(one, other) == Ordering::Equal
}

/// The forms in which a name may have been written, other than its own: composed and decomposed.
#[must_use]
pub fn other_forms(name: &str) -> Vec<String> {
    let mut forms = vec![name.nfc().collect::<String>(), name.nfd().collect()];
    forms.retain(|form| form != name);
    forms
}

/// The order of two texts by their composed forms.
fn compare(one: &str, other: &str) -> Ordering {
    if one == other {
        Ordering::Equal
    } else if one.is_ascii() && other.is_ascii() {
        one.cmp(other)
    } else {
        one.nfc().cmp(other.nfc())
    }
}

/// Further rules for file names: they become one component of a path at every downloader.
fn check_file(text: &str) -> Result<(), NameError> {
    if text == "." || text == ".." {
        return Err(NameError::Folder(text.to_owned()));
    }
    match text.chars().find(|c| matches!(c, '/' | '\\')) {
        Some(character) => Err(NameError::Character { what: "file name", character }),
        None => Ok(()),
    }
}

/// Where the `~xxxxxx` of a name that was renamed on conflict begins.
fn suffix_at(text: &str) -> Option<usize> {
    let at = text.len().checked_sub(SUFFIX_BYTES)?;
    let suffix = text.get(at..)?.strip_prefix('~')?;
    suffix
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b.to_ascii_lowercase()))
        .then_some(at)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr, $most:expr, $new:expr, $more:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A name to be created, in the form in which it is kept: everything that is forbidden in names is refused.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn create(text: &str) -> Result<Self, NameError> {
                let new: fn(&str) -> Result<Arc<str>, NameError> = $new;
                let text = new(text)?;
                check($what, &text, $limit)?;
                let name = Self::refer(&text)?;
                if name.is_renamed() { Err(NameError::Renamed($what)) } else { Ok(name) }
            }

            /// A name of something that may exist, also one that was renamed on conflict.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn refer(text: &str) -> Result<Self, NameError> {
                check($what, text, $most)?;
                let more: fn(&str) -> Result<(), NameError> = $more;
                more(text)?;
                let name = Self(text.into());
                if name.is_renamed() || text.len() <= $limit {
                    Ok(name)
                } else {
                    Err(NameError::TooLong { what: $what, got: text.len(), limit: $limit })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether this name was renamed on conflict: `name~xxxxxx`.
            #[must_use]
            pub fn is_renamed(&self) -> bool {
                suffix_at(&self.0).is_some()
            }

            /// The name without the `~xxxxxx`.
            #[must_use]
            pub fn base(&self) -> Self {
                suffix_at(&self.0).map_or_else(|| self.clone(), |at| Self(self.0[..at].into()))
            }

            /// The name of the claim `id` after it lost this name: `name~` and the first six hex digits of the id. A name that
            /// would get too long is cut.
            #[must_use]
            pub fn renamed(&self, id: &[u8; 16]) -> Self {
                let base = self.base();
                let base = &base.0[..base.0.floor_char_boundary($most - SUFFIX_BYTES)];
                Self(format!("{base}~{:02x}{:02x}{:02x}", id[0], id[1], id[2]).into())
            }

            /// What is equal for this name in every normal form, renamed on conflict or not.
            #[must_use]
            pub fn lookup_key(&self) -> String {
                let base = self.base();
                composed(&base.0[..base.0.floor_char_boundary($most - SUFFIX_BYTES)]).as_ref().to_owned()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                compare(&self.0, &other.0) == Ordering::Equal
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                compare(&self.0, &other.0)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                if self.0.is_ascii() { self.0.hash(state) } else { composed(&self.0).hash(state) }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&shown(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::refer(d.str()?).map_err(|_| minicbor::decode::Error::message(concat!("not a valid ", $what)))
            }
        }
    };
}

name!(
    /// A user's name, at most 64 bytes.
    UserName, "user id", MAX_NAME_BYTES, MAX_NAME_BYTES + SUFFIX_BYTES, |text| new("user id", text), |_| Ok(())
);
name!(
    /// A group's name, at most 64 bytes.
    GroupName, "group id", MAX_NAME_BYTES, MAX_NAME_BYTES + SUFFIX_BYTES, |text| new("group id", text), |_| Ok(())
);
name!(
    /// What an operator calls a storage node, at most 64 bytes.
    NodeName, "server name", MAX_NAME_BYTES, MAX_NAME_BYTES + SUFFIX_BYTES, |text| new("server name", text), |_| Ok(())
);
impl FileName {
    /// A name as a user types it: hidden characters may be written as lists show them, `\\u{202e}`.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn typed(text: &str) -> Result<Self, NameError> {
        Self::refer(&characters::unescaped(text))
    }
}

name!(
    /// The name of a shared file, one component of a path: at most 255 bytes, no `/` and no `\`, neither `.` nor `..`.
    FileName, "file name", MAX_FILE_NAME_BYTES, MAX_FILE_NAME_BYTES, |text| Ok(text.into()), check_file
);

#[cfg(test)]
mod tests;
