//! Finds out at the start whether the database is as this tracker left it, blank, or put back from a backup.
//!
//! Each start writes the same random mark into the database and into a file beside it. A database whose mark differs from the
//! file's is not the one that this tracker used last.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{Store, StoreError, disk};

/// The file with the mark, beside the database.
const MARK: &str = "tracker.start";
const SETTING: &str = "start";

/// How the database was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// As this tracker left it.
    Known,
    /// There was none.
    Blank,
    /// Another one than this tracker used last: a backup, most likely.
    Restored,
}

impl Store {
    /// Compares the marks and writes new ones. After a crash in between the next start looks like a restored one, which only
    /// delays deletions.
    pub(super) fn note_start(&self, dir: &Path, blank: bool) -> Result<Beginning, StoreError> {
        let sql = "SELECT value FROM setting WHERE name = ?1";
        let stored: Option<String> = self.db.query_row(sql, [SETTING], |row| row.get(0)).optional()?;
        let written = std::fs::read_to_string(dir.join(MARK)).ok();
        let beginning = match (blank, stored == written) {
            (true, _) => Beginning::Blank,
            (false, true) => Beginning::Known,
            (false, false) => Beginning::Restored,
        };
        let mark = format!("{:032x}", fastrand::u128(..));
        let sql = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
        self.db.execute(sql, [SETTING, &mark])?;
        write_mark(dir, &mark).map_err(|error| disk(&dir.join(MARK), &error))?;
        Ok(beginning)
    }
}

/// Removes the mark from a copy of the database.
pub(super) fn unmark(copy: &Connection) -> Result<(), StoreError> {
    copy.execute("DELETE FROM setting WHERE name = ?1", [SETTING])?;
    Ok(())
}

fn write_mark(dir: &Path, mark: &str) -> std::io::Result<()> {
    shoal_disk::replace(&dir.join(MARK), mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_and_a_restored_database_are_distinguished_from_the_one_used_last() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path()).unwrap().beginning();
        assert_eq!(open(), Beginning::Blank);
        assert_eq!(open(), Beginning::Known);
        std::fs::copy(dir.path().join("tracker.db"), dir.path().join("backup")).unwrap();
        assert_eq!(open(), Beginning::Known);
        std::fs::copy(dir.path().join("backup"), dir.path().join("tracker.db")).unwrap();
        assert_eq!(open(), Beginning::Restored);
        assert_eq!(open(), Beginning::Known);
        Store::set_aside(dir.path(), 1).unwrap();
        assert_eq!(open(), Beginning::Blank);
    }
}
