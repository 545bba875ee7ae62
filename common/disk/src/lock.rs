//! Locks between processes, also where the file system has none.

use std::fs::{File, TryLockError};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::lost::Lost;
use crate::{is, is_refused};

/// How often a lock that another process has is asked for again where the system cannot wait for it.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long it is: whoever edits a small file is done long before.
const ASK_FOR: Duration = Duration::from_secs(30);

/// A lock on a file: the system's, which the file holds, or this one's in its place. It ends with this value and with the
/// process.
#[derive(Debug)]
pub struct Lock {
    /// A socket without a file; its name is the file's number. It excludes processes of this machine (strictly: of this
    /// network namespace), which the file system cannot.
    _instead: Option<UnixListener>,
}

/// Locks a file against other processes.
///
/// # Errors
/// [`TryLockError::WouldBlock`] when another process has it, else what the system says.
pub fn try_lock(file: &File) -> Result<Lock, TryLockError> {
    match file.try_lock() {
        Ok(()) => Ok(Lock { _instead: None }),
        Err(TryLockError::Error(error)) if has_none(&error) => {
            Lost::Lock.warn(|| error.to_string());
            instead(file)
        }
        Err(error) => Err(error),
    }
}

/// As [`try_lock`], and waits for it.
///
/// # Errors
/// When it cannot be had.
pub fn lock(file: &File) -> io::Result<Lock> {
    match file.lock() {
        Ok(()) => return Ok(Lock { _instead: None }),
        Err(error) if has_none(&error) => {}
        Err(error) => return Err(error),
    }
    let until = Instant::now() + ASK_FOR;
    loop {
        match try_lock(file) {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(ASK_EVERY),
            locked => return locked.map_err(io::Error::from),
        }
    }
}

fn has_none(error: &io::Error) -> bool {
    is_refused(error) || is(error, Errno::NOLCK)
}

fn instead(file: &File) -> Result<Lock, TryLockError> {
    let found = file.metadata().map_err(TryLockError::Error)?;
    let name = format!("shoal-lock-{:x}-{:x}", found.dev(), found.ino());
    match SocketAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name)) {
        Ok(socket) => Ok(Lock { _instead: Some(socket) }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(TryLockError::WouldBlock),
        // Without sockets either, only the warning is left.
        Err(_) => Ok(Lock { _instead: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| File::create(dir.path().join(name)).unwrap();
        let held = instead(&open("a")).unwrap();
        assert!(matches!(instead(&open("a")), Err(TryLockError::WouldBlock)));
        instead(&open("b")).unwrap();
        drop(held);
        instead(&open("a")).unwrap();
        let file = open("a");
        let _held = try_lock(&file).unwrap();
        assert!(matches!(try_lock(&open("a")), Err(TryLockError::WouldBlock)));
        drop(lock(&open("b")).unwrap());
    }

    #[test]
    fn a_file_system_without_locks_says_so_in_several_ways() {
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL, Errno::PERM] {
            assert!(has_none(&errno.into()), "{errno}");
        }
        assert!(!has_none(&Errno::IO.into()) && !has_none(&Errno::WOULDBLOCK.into()));
    }
}
