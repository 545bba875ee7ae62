//! Names of stored files, proven valid. They never leave the client in the clear, but they become a file's name again
//! when it is fetched, so they are one component of a path.

use std::ffi::OsStr;
use std::fmt;

use shoal_common::names::{FileName, NameError, other_forms};

/// The name of a stored file. Names that differ only in their normal forms are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredName(FileName);

impl StoredName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        FileName::refer(text).map(Self)
    }

    /// A name as a user types it: hidden characters may be written as lists show them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn typed(text: &str) -> Result<Self, NameError> {
        FileName::typed(text).map(Self)
    }

    /// The name that a local file is stored under: the last part of its path.
    ///
    /// # Errors
    /// As [`new`](Self::new); a name that is not UTF-8 counts as one with a forbidden character.
    pub fn of_path(path: &std::path::Path) -> Result<Self, NameError> {
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let bad = NameError::Character { what: "file name", character: '\u{fffd}' };
        Self::new(name.to_str().ok_or(bad)?)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name in the other forms in which it may have been stored.
    #[must_use]
    pub fn other_forms(&self) -> Vec<Self> {
        other_forms(self.as_str()).iter().filter_map(|form| Self::new(form).ok()).collect()
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_a_folder_or_are_absurd_are_refused() {
        for bad in ["../x", "a/b", "..", "", "x\ny", &"x".repeat(5_000), &"x".repeat(256)] {
            assert!(StoredName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(StoredName::of_path("/tmp/a b.txt".as_ref()).unwrap().as_str(), "a b.txt");
        assert!(StoredName::of_path("/".as_ref()).is_err());
        assert!(StoredName::new(&"x".repeat(255)).is_ok());
    }
}
