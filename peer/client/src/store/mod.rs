//! What this client remembers: its shares, its downloads, its settings. The only place on this side that knows SQLite.
//!
//! Called by `shares` and `transfers`, which own what the rows mean, and by `archive`, which moves them all. Every call runs on a blocking thread; a write is
//! durable when its future completes. Dropping a future does not undo its call.

mod commands;
mod downloads;
mod moves;
mod rows;
mod settings;
mod shares;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use shoal_console::secrets::private_database;
use shoal_engine::Lack;

pub(crate) use commands::Completed;
pub(crate) use downloads::{DownloadRecord, DownloadState};
pub(crate) use moves::MoveRecord;
pub(crate) use shares::{ShareRecord, time, time_column};
pub(crate) use whole::Whole;

/// Version of the schema below; a database of a later one is refused.
const SCHEMA: i64 = 5;

/// How long a call waits for another process that looks into the database (a backup, say).
const BUSY: Duration = Duration::from_secs(5);

/// Moves of finished downloads that are under way.
const MOVES: &str = "
    create table move (
        source blob primary key, target blob not null, copy blob,
        size integer, mtime_ns integer, inode integer, device integer, ctime_ns integer
    ) strict, without rowid;
";

/// Completed downloads whose commands have not begun.
const COMMANDS: &str = "
    create table command (
        id integer primary key, group_name text not null, file_name text not null, path blob not null,
        size integer not null, sha1 blob not null
    ) strict;
";

const TABLES: &str = "
    create table setting (name text primary key, value text not null) strict, without rowid;
    create table piece_list (hash blob primary key, list blob not null) strict;
    create table share (
        user blob not null, gid blob not null, fid blob not null,
        group_name text not null, manifest blob not null, piece_list blob not null, path blob not null,
        size integer not null, mtime_ns integer not null, inode integer not null, device integer not null,
        ctime_ns integer,
        primary key (user, gid, fid)
    ) strict, without rowid;
    create table download (
        id integer primary key,
        user blob not null, gid blob not null, fid blob not null,
        group_name text not null, manifest blob not null, piece_list blob not null, path blob not null,
        overwrite integer not null, share integer not null, state text not null, error text,
        verified integer not null default 0,
        priority text not null default 'normal', position integer, rate_limit integer,
        folder_options text, part_files integer, part_bytes integer,
        unique (user, gid, fid)
    ) strict;
    create index share_list on share (piece_list);
    create index download_list on download (piece_list);
";

/// Changes a database of version 1 into version 2.
const FROM_1: &str = "alter table download add column verified integer not null default 0;";
/// Changes a database of version 2 into version 3.
const FROM_2: &str = "alter table share add column ctime_ns integer;";
/// Changes a database of version 3 into version 4, with [`MOVES`].
const FROM_3: &str = "alter table download add column priority text not null default 'normal';
    alter table download add column position integer;
    alter table download add column rate_limit integer;";

/// Changes a database of version 4 into this version.
const FROM_4: &str = "alter table download add column folder_options text;
    alter table download add column part_files integer;
    alter table download add column part_bytes integer;";

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room: nothing was changed.
    #[error("the disk with {0} is full; make room and try again")]
    Full(PathBuf),
    /// Not a database, or a damaged one.
    #[error(
        "{path} is damaged ({problem}); move it away and start again: files must then be shared, and downloads started, again"
    )]
    Damaged {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
    /// Written by a later version.
    #[error(
        "{path} was written by a later version of this program (schema {found}); use that version, or another --data-dir"
    )]
    Later {
        /// The database's file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
    },
    /// Something else is lacking that may be there again: nothing was changed.
    #[error("{path} cannot be used now ({problem}); try again when that has passed")]
    Short {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
        /// What is lacking.
        lack: Lack,
    },
    /// Anything else.
    #[error("{path} cannot be used: {problem}")]
    Failed {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        problem: String,
    },
}

impl StoreError {
    /// What is lacking, if that may pass by itself.
    #[must_use]
    pub fn lack(&self) -> Option<Lack> {
        match self {
            Self::Full(_) => Some(Lack::Space),
            Self::Short { lack, .. } => Some(*lack),
            Self::Damaged { .. } | Self::Later { .. } | Self::Failed { .. } => None,
        }
    }
}

/// The client's database. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the database at `path`, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or is a later version's.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let fault = |error: rusqlite::Error| explain(&error, path);
        // A file that cannot be made is what SQLite finds too, and says better.
        let _ = private_database(path);
        let mut connection = shoal_disk::sqlite::open(path).map_err(fault)?;
        connection.busy_timeout(BUSY).map_err(fault)?;
        connection.pragma_update(None, "trusted_schema", false).map_err(fault)?;
        let found: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fault)?;
        let changes: &[&str] = match found {
            SCHEMA => &[],
            0 => &[TABLES, MOVES, COMMANDS],
            1 => &[FROM_1, FROM_2, FROM_3, MOVES, FROM_4, COMMANDS],
            2 => &[FROM_2, FROM_3, MOVES, FROM_4, COMMANDS],
            3 => &[FROM_3, MOVES, FROM_4, COMMANDS],
            4 => &[FROM_4, COMMANDS],
            _ => return Err(StoreError::Later { path: path.to_owned(), found }),
        };
        if !changes.is_empty() {
            change(&mut connection, &changes.concat()).map_err(fault)?;
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)), path: path.into() })
    }

    /// Runs `work` in one transaction on a blocking thread.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = store.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await;
        match done {
            Ok(result) => result.map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
                // It was opened before.
                Some(ErrorCode::CannotOpen) => {
                    let (path, problem) = (self.path.to_path_buf(), error.to_string());
                    StoreError::Short { path, problem, lack: Lack::Descriptors }
                }
                _ => explain(&error, &self.path),
            }),
            Err(stopped) => {
                Err(StoreError::Failed { path: self.path.to_path_buf(), problem: stopped.to_string() })
            }
        }
    }
}

/// Changes the schema to the present version.
fn change(connection: &mut Connection, statements: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(statements)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

fn explain(error: &rusqlite::Error, path: &Path) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(path),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { path, problem: error.to_string() }
        }
        code => {
            let problem = error.to_string();
            match code.and_then(lack_of) {
                Some(lack) => StoreError::Short { path, problem, lack },
                None => StoreError::Failed { path, problem },
            }
        }
    }
}

/// What is lacking when SQLite says that.
fn lack_of(code: ErrorCode) -> Option<Lack> {
    match code {
        ErrorCode::ReadOnly => Some(Lack::ReadOnly),
        ErrorCode::SystemIoFailure => Some(Lack::Drive),
        ErrorCode::OutOfMemory => Some(Lack::Memory),
        ErrorCode::PermissionDenied => Some(Lack::Permission),
        // Another process looks into it for longer than [`BUSY`].
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Lack::Drive),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.db");
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Damaged { .. })));

        let later = folder.path().join("later.db");
        Store::open(&later)
            .unwrap()
            .connection
            .lock()
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(Store::open(&later), Err(StoreError::Later { found: 99, .. })));

        let missing = folder.path().join("no/such/folder.db");
        assert!(matches!(Store::open(&missing), Err(StoreError::Failed { .. })));
    }

    #[tokio::test]
    async fn a_database_of_an_earlier_version_is_brought_up_to_this_one() {
        let last = "        priority text not null default 'normal', position integer, rate_limit integer,\n";
        let folders = "        folder_options text, part_files integer, part_bytes integer,\n";
        let fourth = TABLES.replace(folders, "");
        let third = fourth.replace(last, "");
        let second = third.replace("        ctime_ns integer,\n", "");
        let first = second.replace("        verified integer not null default 0,\n", "");
        let lengths = [&*first, &second, &third, &fourth, TABLES].map(str::len);
        assert!(lengths.is_sorted_by(|one, next| one < next), "{lengths:?}");
        for (version, then) in [(1, first), (2, second), (3, third), (4, fourth + MOVES)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("client.db");
            let mut connection = Connection::open(&path).unwrap();
            change(&mut connection, &then).unwrap();
            connection.pragma_update(None, "user_version", version).unwrap();
            drop(connection);
            for _ in 0..2 {
                let store = Store::open(&path).unwrap();
                assert_eq!(store.downloads(shoal_common::Uid([1; 16])).await.unwrap(), []);
                assert_eq!(store.shares(shoal_common::Uid([1; 16])).await.unwrap(), []);
                assert_eq!(store.take_command().await.unwrap(), None);
            }
        }
    }
}
