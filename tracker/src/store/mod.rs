//! The only place on this side that knows SQLite: the rows, and projections of them that commands query.
//!
//! One connection, which the database thread owns. Projections change with the rows, in the same transaction, and are rebuilt
//! from the rows when their schema changed.

mod admission;
mod backup;
mod inspect;
mod memo;
mod projections;
mod queries;
mod rows;
mod start;
mod usage;
#[cfg(test)]
mod usage_tests;

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use shoal_console::disk::free_bytes;
use shoal_console::secrets::private_database;

use shoal_replica::Kind;

pub use backup::{BackupError, back_up};
pub use inspect::{Counts, Usages, count, usages};
pub use queries::FileRow;
pub use start::Beginning;
pub use usage::{GroupUsage, UserUsage, file_cost, pointer_cost, share_cost};
pub(crate) use usage::{ROW_BYTES, ShareOf};

use memo::Memo;

use crate::record::{ALLOWANCE, CAUTION, POINTER, STORAGE_NODE};

/// The kinds of rows that the encrypted store is made of.
pub const STORAGE_KINDS: [Kind; 4] = [POINTER, STORAGE_NODE, CAUTION, ALLOWANCE];

/// The space of user names in the `claim` projection.
const USERS: u8 = 0;
/// The space of group names there.
const GROUPS: u8 = 1;

/// Version of the rows' schema; a database of a later one is refused.
const SCHEMA: i64 = 1;
/// Pages in the write-ahead log at most, before a checkpoint copies them into the database. Many commits write the same pages,
/// which SQLite's own thousand copied each time.
const MAX_LOG_PAGES: u64 = 16_384;
/// The same at least: what SQLite takes by itself.
const MIN_LOG_PAGES: u64 = 1_000;
const PAGE_BYTES: u64 = 4_096;
/// Version of the projections, and of the tables by which names look alike; they are rebuilt if the database's is another one.
#[expect(clippy::cast_possible_wrap, reason = "versions of Unicode are small")]
const PROJECTIONS: i64 = 6_000 + shoal_common::names::TABLES as i64;
/// Free bytes from which on a disk does not count as full: a batch of small writes fits many times.
const ENOUGH_ROOM: u64 = 1 << 20;
/// Prepared statements kept: more than there are in the code, because to parse one costs more than to run it.
const MAX_STATEMENTS: usize = 256;
/// The database's file in the data directory.
const FILE: &str = "tracker.db";
/// What SQLite keeps beside it, and the file itself.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// What can go wrong below the service, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full: roll back, refuse writes, keep reading.
    #[error("the disk is full")]
    Full,
    /// The file is no database or a damaged one: set it aside and start blank.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// Written by a later version.
    #[error(
        "the database was written by a later version (schema {0}); use that version or another --data-dir"
    )]
    Later(i64),
    /// Anything else: what is durable is not known, so the process must stop.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // The index of the log grows with it, and a full disk stops that first or last.
        let extended = error.sqlite_error().map(|error| error.extended_code);
        if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::Full;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The tracker's database.
pub struct Store {
    db: Connection,
    path: PathBuf,
    generation: u64,
    beginning: Beginning,
    memo: Memo,
}

impl Store {
    /// Opens the database in a folder that exists, or makes one there.
    ///
    /// # Errors
    /// [`StoreError`]; `Corrupt` leaves the file as it is.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let blank = path.metadata().map_or(true, |file| file.len() == 0);
        private_database(&path).map_err(|error| disk(&path, &error))?;
        let db = shoal_disk::sqlite::open(&path)?;
        db.execute_batch(
            "PRAGMA trusted_schema = OFF;
             PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 67108864;",
        )?;
        db.pragma_update(None, "wal_autocheckpoint", log_pages(dir))?;
        db.set_prepared_statement_cache_capacity(MAX_STATEMENTS);
        // Otherwise SQLite plans a statement again whenever a bound value that it looks at, such as a limit, changed.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let (generation, beginning) = (fastrand::u64(..), Beginning::Known);
        let mut store = Self { db, path, generation, beginning, memo: Memo::default() };
        store.prepare()?;
        store.beginning = store.note_start(dir, blank)?;
        Ok(store)
    }

    /// Moves a damaged database out of the way and says where to.
    ///
    /// # Errors
    /// When a file cannot be renamed.
    pub fn set_aside(dir: &Path, now_ms: u64) -> std::io::Result<PathBuf> {
        let aside = dir.join(format!("{FILE}.damaged-{now_ms}"));
        for suffix in SUFFIXES {
            let from = dir.join(format!("{FILE}{suffix}"));
            if from.exists() {
                std::fs::rename(&from, dir.join(format!("{FILE}.damaged-{now_ms}{suffix}")))?;
            }
        }
        Ok(aside)
    }

    /// A number of this opening of the database; each opening has another.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the database was found.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        self.beginning
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the database fails, or a transaction is open.
    pub fn begin(&self) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE", &[])
    }

    /// Begins a transaction that only reads.
    ///
    /// # Errors
    /// When the database fails, or a transaction is open.
    pub fn begin_reading(&self) -> Result<(), StoreError> {
        self.run("BEGIN DEFERRED", &[])
    }

    /// Makes the transaction durable.
    ///
    /// # Errors
    /// When it cannot be made durable; `Full` when the disk is full.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.run("COMMIT", &[])
    }

    /// Undoes the transaction, if one is open.
    ///
    /// # Errors
    /// When the database fails.
    pub fn rollback(&self) -> Result<(), StoreError> {
        self.memo.clear();
        if self.db.is_autocommit() { Ok(()) } else { Ok(self.db.execute_batch("ROLLBACK")?) }
    }

    /// Whether the disk has room for writes again; yes if the file system does not say.
    #[must_use]
    pub fn has_room(&self) -> bool {
        free_bytes(&self.path).is_none_or(|bytes| bytes >= ENOUGH_ROOM)
    }

    /// Size of the database with its write-ahead log in bytes, for the operator.
    #[must_use]
    pub fn size(&self) -> u64 {
        let log = self.path.with_extension("db-wal");
        [&self.path, &log]
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        self.begin()?;
        let schema: i64 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if schema > SCHEMA {
            self.rollback()?;
            return Err(StoreError::Later(schema));
        }
        self.db.execute_batch(rows::SCHEMA_SQL)?;
        self.db.execute_batch(admission::SCHEMA_SQL)?;
        self.db.pragma_update(None, "user_version", SCHEMA)?;
        let sql = "SELECT value FROM setting WHERE name = 'projections'";
        let projections: Option<i64> = self.db.query_row(sql, [], |row| row.get(0)).optional()?;
        if projections != Some(PROJECTIONS) {
            self.rebuild_projections()?;
            let sql = "INSERT OR REPLACE INTO setting (name, value) VALUES ('projections', ?1)";
            self.db.execute(sql, [PROJECTIONS])?;
        }
        self.commit()
    }
}

/// How long the log may get. On a small disk it must leave the database room to grow.
fn log_pages(dir: &Path) -> u64 {
    let room = free_bytes(dir).unwrap_or(0) / PAGE_BYTES;
    (room / 16).clamp(MIN_LOG_PAGES, MAX_LOG_PAGES)
}

/// What an error on a file of the data directory means.
fn disk(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Failed(format!("cannot write {}: {error}", path.display())),
    }
}

/// A column that holds exactly `N` bytes.
fn blob<const N: usize>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    row.get::<_, [u8; N]>(column)
}
