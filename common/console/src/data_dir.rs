//! The folder with one process's key, database, history and log, which is locked while the process runs.

use std::cmp::Reverse;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcetera::BaseStrategy;
use shoal_disk::Lock;

/// The file that is locked. It holds the process id of the process that locked it.
const LOCK_FILE: &str = "lock";
/// The digits of a process id and a newline; a longer file is not ours.
const MAX_LOCK_BYTES: u64 = 32;
/// The address at which the client listened that used the folder last.
const ADDRESS_FILE: &str = "address";
/// Entries of the folder of default folders that are looked at, at most.
const MAX_ENTRIES: usize = 10_000;

/// A data directory that is ours while this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The system unlocks it when the process ends, however that comes.
    lock: File,
    _held: Lock,
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
        let held = match shoal_disk::try_lock(&lock) {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { path, pid: holder(&mut lock) });
            }
            Err(TryLockError::Error(error)) => return Err(DataDirError::Unusable { path, error }),
        };
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
        Ok(Self { path, lock, _held: held })
    }

    /// Opens the default folder of a client that listens at `listen`, and gives what its user should know of it. The folder
    /// is chosen by the port, because addresses change: a client at a new one is the same client. Among several, the one that
    /// was last used at this address comes first, then the one that was used last. While another client uses them all, a new
    /// one is made, named after port and address. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Self::open`], or when there is no home folder.
    pub fn open_default(listen: SocketAddr) -> Result<(Self, Vec<String>), DataDirError> {
        let base = etcetera::choose_base_strategy().map_err(|_| DataDirError::NoHome)?;
        Self::open_among(&base.data_dir().join("shoal"), listen)
    }

    fn open_among(base: &Path, listen: SocketAddr) -> Result<(Self, Vec<String>), DataDirError> {
        let plain = base.join(format!("client-{}", listen.port()));
        let own = base.join(format!("client-{}-{}", listen.ip(), listen.port()));
        let mut found = folders_of(base, listen.port());
        // `false` is less than `true`.
        found.sort_by_cached_key(|path| (!is_last_used_at(path, listen), Reverse(last_use(path))));
        let mut notes = Vec::new();
        for (at, path) in found.iter().enumerate() {
            match Self::open(path) {
                Ok(opened) => {
                    let others: Vec<_> =
                        found[at + 1..].iter().map(|path| path.display().to_string()).collect();
                    if !others.is_empty() && !is_last_used_at(path, listen) {
                        notes.push(format!(
                            "there are other data folders for port {}: {}; --data-dir chooses one",
                            listen.port(),
                            others.join(", ")
                        ));
                    }
                    return opened.used_at(listen, notes);
                }
                Err(DataDirError::InUse { path, pid }) => notes.push(format!(
                    "{} is in use by another client{pid}; this one has its own identity and shares",
                    path.display()
                )),
                Err(error) => return Err(error),
            }
        }
        Self::open(if found.contains(&plain) { &own } else { &plain })?.used_at(listen, notes)
    }

    /// Notes the address, so that the same client finds the folder among several.
    fn used_at(self, listen: SocketAddr, notes: Vec<String>) -> Result<(Self, Vec<String>), DataDirError> {
        if address_in(&self.path) != Some(listen) {
            let note = self.path.join(ADDRESS_FILE);
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&note);
            if let Err(error) = file.and_then(|mut file| file.write_all(listen.to_string().as_bytes())) {
                // It only decides between several folders.
                tracing::warn!("cannot write {}: {error}", note.display());
            }
        }
        Ok((self, notes))
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The default folders that there are for a port, at whatever address.
fn folders_of(base: &Path, port: u16) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let is_one = |name: &str| {
        let rest = name.strip_prefix("client-")?;
        let (address, of) = rest.rsplit_once('-').map_or((None, rest), |(address, of)| (Some(address), of));
        let known = address.is_none_or(|address| address.parse::<IpAddr>().is_ok());
        (known && of.parse() == Ok(port)).then_some(())
    };
    entries
        .filter(|entry| entry.file_name().to_str().and_then(is_one).is_some())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Whether the client that used the folder last listened at this address.
fn is_last_used_at(path: &Path, listen: SocketAddr) -> bool {
    // Folders of the version before are named after it.
    let is_named = || path.ends_with(format!("client-{}-{}", listen.ip(), listen.port()));
    address_in(path).map_or_else(is_named, |noted| noted == listen)
}

fn address_in(path: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(path.join(ADDRESS_FILE)).ok()?.trim().parse().ok()
}

/// When a client was last started on the folder.
fn last_use(path: &Path) -> Option<SystemTime> {
    path.join(LOCK_FILE).metadata().and_then(|lock| lock.modified()).ok()
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
    fn a_client_keeps_its_folder_at_a_new_address_and_takes_no_others() {
        let base = tempfile::tempdir().unwrap();
        let open = |listen: &str| DataDir::open_among(base.path(), listen.parse().unwrap()).unwrap();
        let name = |dir: &DataDir| dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let (first, notes) = open("192.168.1.5:4000");
        assert_eq!((name(&first).as_str(), notes), ("client-4000", vec![]));
        let (second, notes) = open("192.168.1.6:4000");
        assert_eq!(name(&second), "client-192.168.1.6-4000");
        assert!(notes[0].contains("client-4000 is in use by another client (pid "), "{notes:?}");
        drop((first, second));
        // Each finds its own again, in any order.
        let (second, notes) = open("192.168.1.6:4000");
        assert_eq!((name(&second).as_str(), notes), ("client-192.168.1.6-4000", vec![]));
        drop(second);
        let (first, _) = open("192.168.1.5:4000");
        assert_eq!(name(&first), "client-4000");
        drop(first);
        // At an address that is new to both, the one that was used last. The system's clock for files may not have ticked since.
        let hour_ago = SystemTime::now() - std::time::Duration::from_secs(3600);
        let other =
            File::options().write(true).open(base.path().join("client-192.168.1.6-4000").join(LOCK_FILE));
        other.unwrap().set_modified(hour_ago).unwrap();
        let (moved, notes) = open("10.0.0.9:4000");
        assert_eq!(name(&moved), "client-4000");
        assert!(notes[0].contains("client-192.168.1.6-4000"), "{notes:?}");
        assert_eq!(name(&open("10.0.0.9:4001").0), "client-4001");
    }

    #[test]
    fn a_folder_of_the_version_before_is_found() {
        let base = tempfile::tempdir().unwrap();
        for name in [
            "client-::1-4000",
            "client-127.0.0.1-4000",
            "client-4000x",
            "client-x-4000",
            "client-1.2.3.4-40000",
        ] {
            std::fs::create_dir(base.path().join(name)).unwrap();
        }
        let (dir, _) = DataDir::open_among(base.path(), "127.0.0.1:4000".parse().unwrap()).unwrap();
        assert!(dir.path().ends_with("client-127.0.0.1-4000"));
        let (other, _) = DataDir::open_among(base.path(), "10.0.0.1:4000".parse().unwrap()).unwrap();
        assert!(other.path().ends_with("client-::1-4000"));
    }
}
