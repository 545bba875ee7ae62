//! Names of users, groups and shared files. A value of these types is a valid name and need not be checked again.
//!
//! A claim that lost its name to another one after a partition is renamed to `name~xxxxxx` (six hex digits). Such a name may be
//! *referred to* but not created, so that no one can take one by typing it.

use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_FILE_NAME_BYTES, MAX_NAME_BYTES};

/// Hex digits behind the `~` of a name that was renamed on conflict.
const RENAMED_DIGITS: usize = 6;

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

/// Characters that no name may hold: control characters, and the format characters that reorder or hide text and so
/// let one name look like another (Unicode TR 36, section 2.9).
fn is_forbidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn check(what: &'static str, text: &str, limit: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > limit {
        return Err(NameError::TooLong { what, got: text.len(), limit });
    }
    if let Some(character) = text.chars().find(|&c| is_forbidden(c)) {
        return Err(NameError::Character { what, character });
    }
    if text.starts_with(' ') || text.ends_with(' ') {
        return Err(NameError::Space(what));
    }
    Ok(())
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
    let at = text.len().checked_sub(RENAMED_DIGITS + 1)?;
    let suffix = text.get(at..)?.strip_prefix('~')?;
    suffix
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b.to_ascii_lowercase()))
        .then_some(at)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr, $more:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// A name to be created: everything that is forbidden in names is refused.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn create(text: &str) -> Result<Self, NameError> {
                check($what, text, $limit)?;
                let name = Self::refer(text)?;
                if name.is_renamed() { Err(NameError::Renamed($what)) } else { Ok(name) }
            }

            /// A name of something that may exist, also one that was renamed on conflict.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn refer(text: &str) -> Result<Self, NameError> {
                check($what, text, $limit + RENAMED_DIGITS + 1)?;
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

            /// The name of the claim `id` after it lost this name: `name~` and the first six hex digits of the id.
            #[must_use]
            pub fn renamed(&self, id: &[u8; 16]) -> Self {
                Self(format!("{}~{:02x}{:02x}{:02x}", self.base().0, id[0], id[1], id[2]).into())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
    UserName, "user id", MAX_NAME_BYTES, |_| Ok(())
);
name!(
    /// A group's name, at most 64 bytes.
    GroupName, "group id", MAX_NAME_BYTES, |_| Ok(())
);
name!(
    /// What an operator calls a storage node, at most 64 bytes.
    NodeName, "server name", MAX_NAME_BYTES, |_| Ok(())
);
name!(
    /// The name of a shared file, one component of a path: at most 240 bytes, no `/` and no `\`, neither `.` nor `..`.
    FileName, "file name", MAX_FILE_NAME_BYTES, check_file
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_names_are_refused_with_their_reason() {
        for (text, reason) in [
            ("", "empty"),
            (&"x".repeat(65) as &str, "too long"),
            (&"x".repeat(10_000), "too long: 64 bytes are the most"),
            ("a\nb", "character"),
            ("a\u{202e}b", "character"),
            (" a", "space"),
            ("bob~12abEF", "six hex digits"),
        ] {
            let error = UserName::create(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        for text in ["../../etc/x", "..", ".", "a/b", "a\\b", "a\0b", "", &"x".repeat(241)] {
            assert!(FileName::refer(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn good_names_pass() {
        for text in ["bob", "Zoë", "a b", "naïve~", "x~12345g", "-", "~123456x"] {
            assert_eq!(GroupName::create(text).unwrap().as_str(), text);
        }
        assert_eq!(FileName::create(".hidden file.tar.gz").unwrap().as_str(), ".hidden file.tar.gz");
    }

    #[test]
    fn renamed_names_are_known_and_undone() {
        let name = UserName::create(&"n".repeat(64)).unwrap();
        let renamed = name.renamed(&[0xab; 16]);
        assert_eq!(renamed.as_str(), format!("{}~ababab", "n".repeat(64)));
        assert!(renamed.is_renamed() && !name.is_renamed());
        assert_eq!(renamed.base(), name);
        assert_eq!(UserName::refer(renamed.as_str()), Ok(renamed));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_passes_is_safe(text in ".{0,300}") {
            let _ = UserName::refer(&text);
            if let Ok(name) = FileName::refer(&text) {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.components().count(), 1);
                prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
            }
        }
    }
}
