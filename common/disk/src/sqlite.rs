//! Opening a database of SQLite so that it works on any file system.
//!
//! | the file system | the journal | the locks |
//! |---|---|---|
//! | as usual | WAL | SQLite's |
//! | no shared memory (SMB, many in user space) | TRUNCATE | SQLite's |
//! | no record locks (NFS without a lock server) | TRUNCATE | a folder beside the database |
//! | no sync | as above | as above; `synchronous` is off |

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, OpenFlags, ffi};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::is_refused;
use crate::lost::Lost;

/// SQLite's own locks by a folder `NAME.lock`, for file systems without record locks.
const BY_FOLDER: &str = "unix-dotfile";

/// Opens a database for writing, or makes it, with the journal that the file system allows and as durable as it allows. The
/// caller has locked the folder: no other process writes to the database.
///
/// # Errors
/// What SQLite says.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let features = Features::of(path);
    let connection = if features.locks { with_log(path, features)? } else { None };
    match connection {
        Some(connection) => Ok(connection),
        None => without_log(path, features),
    }
}

/// Opens a database for reading while another connection may write to it.
///
/// # Errors
/// What SQLite says.
pub fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if Features::of(path).locks {
        Connection::open_with_flags(path, flags)
    } else {
        Connection::open_with_flags_and_vfs(path, flags, BY_FOLDER)
    }
}

/// With a write-ahead log; `None` where there is no shared memory for it.
fn with_log(path: &Path, features: Features) -> rusqlite::Result<Option<Connection>> {
    let connection = Connection::open(path)?;
    features.set_syncs(&connection)?;
    let begun = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
        // Only a transaction opens the shared memory for certain.
        .and_then(|mode| connection.execute_batch("BEGIN IMMEDIATE; COMMIT").map(|()| mode == "wal"));
    match begun {
        Ok(true) => Ok(Some(connection)),
        Ok(false) => Ok(None),
        Err(error) if is_about_shared_memory(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_about_shared_memory(error: &Error) -> bool {
    let about = [ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMOPEN, ffi::SQLITE_IOERR_SHMLOCK];
    error.sqlite_error().is_some_and(|error| about.contains(&error.extended_code))
}

fn without_log(path: &Path, features: Features) -> rusqlite::Result<Connection> {
    Lost::SharedMemory.warn(|| path.display().to_string());
    let connection = if features.locks {
        Connection::open(path)?
    } else {
        // A process that was killed leaves its lock; another one that writes there is not there.
        match fs::remove_dir(beside(path, ".lock")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove the old lock of {}: {error}", path.display());
            }
            _ => {}
        }
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), BY_FOLDER)?
    };
    // A log of a time when there was shared memory is read without it by one who has the database alone. Before that, every
    // other question fails.
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    features.set_syncs(&connection)?;
    connection.pragma_update(None, "journal_mode", "truncate")?;
    connection.pragma_update(None, "locking_mode", "normal")?;
    // The next reading gives the lock back.
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

/// What the file system has of what SQLite needs and fails without.
#[derive(Debug, Clone, Copy)]
struct Features {
    locks: bool,
    syncs: bool,
}

impl Features {
    /// To be set before anything is written: SQLite takes a sync that fails for a disk that fails.
    fn set_syncs(self, connection: &Connection) -> rusqlite::Result<()> {
        connection.pragma_update(None, "synchronous", if self.syncs { "full" } else { "off" })
    }

    /// Tries on a file beside the database: to close the database itself would end this process's locks on it (SQLite, "How
    /// To Corrupt", 2.2). Where no file can be made, SQLite finds out and says why.
    fn of(path: &Path) -> Self {
        let probe = beside(path, &format!(".probe-{}-{:?}", std::process::id(), std::thread::current().id()));
        let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&probe);
        let Ok(file) = made else { return Self { locks: true, syncs: true } };
        let locked = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
        let locks = !matches!(locked, Err(error) if error == Errno::NOLCK || is_refused(&error.into()));
        let syncs = !matches!(file.sync_data(), Err(error) if is_refused(&error));
        if !syncs {
            Lost::FileSync.warn(|| path.display().to_string());
        }
        let _ = fs::remove_file(&probe);
        Self { locks, syncs }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Features = Features { locks: false, syncs: true };
    const PRESENT: Features = Features { locks: true, syncs: true };

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_database_goes_from_one_kind_of_file_system_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let usual = open(&path).unwrap();
        usual.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        // As a folder is copied whose process was killed: what was written last is in the log only.
        for name in ["a.db", "a.db-wal"] {
            fs::copy(dir.path().join(name), dir.path().join(format!("copy-{name}"))).unwrap();
        }
        fs::rename(dir.path().join("copy-a.db"), dir.path().join("b.db")).unwrap();
        fs::rename(dir.path().join("copy-a.db-wal"), dir.path().join("b.db-wal")).unwrap();
        let path = dir.path().join("b.db");
        for (features, rows) in [(ABSENT, 1), (PRESENT, 2), (ABSENT, 3)] {
            // As kill -9 leaves it.
            fs::create_dir_all(beside(&path, ".lock")).unwrap();
            if features.locks {
                fs::remove_dir(beside(&path, ".lock")).unwrap();
            }
            let connection = without_log(&path, features).unwrap();
            assert_eq!(count(&connection), rows);
            connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
            // Nobody else is kept out between two transactions.
            let other = if features.locks {
                Connection::open(&path).unwrap()
            } else {
                Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), BY_FOLDER).unwrap()
            };
            assert_eq!(count(&other), rows + 1);
        }
        let again = open(&path).unwrap();
        let mode: String = again.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), count(&again)), ("wal", 4));
        assert_eq!(count(&open_to_read(&path).unwrap()), 4);
    }
}
