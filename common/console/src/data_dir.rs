//! The folder with one process's key, database, history and log, which is locked while the process runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// The file that is locked. It holds the process id of the process that locked it.
const LOCK_FILE: &str = "lock";
/// The digits of a process id and a newline; a longer file is not ours.
const MAX_LOCK_BYTES: u64 = 32;

/// A data directory that is ours while this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The system unlocks it when the process ends, however that comes.
    lock: File,
}

impl Drop for DataDir {
    /// Unlocks explicitly: a child process between fork and exec still has the open file, and the lock with it.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{} is already in use by another process{pid}; stop that one, or give another --data-dir", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// ` (pid N)`, if the other process wrote it.
        pid: String,
    },
    /// It cannot be made or written to.
    #[error("cannot use {} as data directory: {error}; give another --data-dir", .path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no home folder to put it in.
    #[error("there is no home folder to keep data in; give --data-dir")]
    NoHome,
}

impl DataDir {
    /// Makes the folder, readable by its owner only, if need be, and locks it. Blocks on the disk.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable { path: path.to_owned(), error };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = std::path::absolute(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { path, pid: holder(&mut lock) });
            }
            Err(TryLockError::Error(error)) => return Err(DataDirError::Unusable { path, error }),
        }
        let note = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        match note(&mut lock) {
            // It is only for information: a full disk is no reason not to start.
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                return Err(unusable(error));
            }
            _ => {}
        }
        Ok(Self { path, lock })
    }

    /// The default folder of a client that listens at `listen`.
    ///
    /// # Errors
    /// When there is no home folder.
    pub fn default_path(listen: SocketAddr) -> Result<PathBuf, DataDirError> {
        let base = etcetera::choose_base_strategy().map_err(|_| DataDirError::NoHome)?;
        Ok(base.data_dir().join("shoal").join(format!("client-{}-{}", listen.ip(), listen.port())))
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The process that holds the lock, in words.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(MAX_LOCK_BYTES).read_to_string(&mut text);
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!(" (pid {pid})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_and_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("already in use") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        // As a child process has it between fork and exec.
        let inherited = first.lock.try_clone().unwrap();
        drop(first);
        DataDir::open(&path).unwrap();
        drop(inherited);
        std::fs::write(folder.path().join("file"), b"").unwrap();
        assert!(matches!(DataDir::open(&folder.path().join("file")), Err(DataDirError::Unusable { .. })));
    }

    #[test]
    fn every_address_has_its_own() {
        let path = |listen: &str| DataDir::default_path(listen.parse().unwrap()).unwrap();
        assert!(path("127.0.0.1:4000").ends_with("shoal/client-127.0.0.1-4000"));
        assert_ne!(path("[::1]:4000"), path("[::1]:4001"));
    }
}
