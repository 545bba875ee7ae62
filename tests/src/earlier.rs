//! The programs of an earlier version, for tests that mix it with this one.

use std::path::PathBuf;

use crate::skip;

/// Names the folder that holds them; `scripts/versions` builds them and sets it.
const VARIABLE: &str = "SHOAL_EARLIER";

/// The folder of an earlier version's programs.
pub struct Earlier(PathBuf);

impl Earlier {
    /// The earlier version that this run of the tests was given; without one the test is skipped, and noted.
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Self> {
        let folder = std::env::var_os(VARIABLE).map(|folder| Self(folder.into()));
        if folder.is_none() {
            skip(test, "needs an earlier version's programs (scripts/versions COMMIT)");
        }
        folder
    }

    /// One of its programs.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(path.is_file(), "{} is not built", path.display());
        path
    }
}
