//! What keeps the secrets of a process and its files from others.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use rustix::process::{Resource, Rlimit, setrlimit};
use shoal_common::Password;

use crate::read_key;

/// From now on no core dump of this process is made: it would hold keys and passwords. The limit is one byte, because with 0
/// Linux still dumps into a pipe (`fs/coredump.c`).
pub fn no_core_dumps() {
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    let _ = setrlimit(Resource::Core, one);
}

/// Opens a file to append to, and makes it if need be. Only its owner may read it, also where it was made otherwise.
///
/// # Errors
/// When it cannot be opened.
pub fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    keep_private(path);
    Ok(file)
}

/// Has a database of SQLite and the files beside it read by their owner only. The files beside it get the mode of the database. An
/// existing database is not opened: closing it would end this process's locks on it (SQLite, "How To Corrupt", 2.2).
///
/// # Errors
/// When the database cannot be made.
pub fn private_database(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        keep_private(Path::new(&beside));
    }
    Ok(())
}

/// Takes from others the right to read a file that exists.
fn keep_private(path: &Path) {
    if path.metadata().is_ok_and(|file| file.mode() & 0o077 != 0)
        && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(0o600))
    {
        // A file system without modes, or another owner's file.
        shoal_disk::warn_of_modes(path, &error.to_string());
    }
}

/// The variable that stands in for a password that is not given.
const PASSWORD_VARIABLE: &str = "SHOAL_PASSWORD";
/// The password of `--password-file`.
static FROM_FILE: OnceLock<Password> = OnceLock::new();

/// From now on the password in this file stands in for one that is not given.
///
/// # Errors
/// In words: it cannot be read, others may read it, or its first line is empty.
pub fn use_password_file(path: &Path) -> Result<()> {
    // The first one stays.
    let _ = FROM_FILE.set(password_file(path)?);
    Ok(())
}

/// The password that stands in for one that is not given: that of `--password-file`, else SHOAL_PASSWORD's.
#[must_use]
pub fn given_password() -> Option<Password> {
    FROM_FILE.get().cloned().or_else(|| std::env::var(PASSWORD_VARIABLE).ok().map(Password::new))
}

/// Reads a password: the first line of a file that only its owner may read.
///
/// # Errors
/// In words: it cannot be read, others may read it, or its first line is empty.
pub fn password_file(path: &Path) -> Result<Password> {
    let bytes = read_key(path, "the password file")?;
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        bail!("the first line of the password file {} is empty; write the password there", path.display());
    }
    Ok(Password::new(String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_private_whatever_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.db");
        for beside in ["client.db", "client.db-wal"] {
            std::fs::write(dir.path().join(beside), "x").unwrap();
            std::fs::set_permissions(dir.path().join(beside), Permissions::from_mode(0o666)).unwrap();
        }
        private_database(&path).unwrap();
        for beside in ["client.db", "client.db-wal"] {
            assert_eq!(std::fs::metadata(dir.path().join(beside)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        assert!(!dir.path().join("client.db-shm").exists());
    }

    #[test]
    fn a_password_is_the_first_line_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (text, password) in [("a b\n", "a b"), ("a b", "a b"), ("a\r\nb\n", "a")] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(password_file(&path).unwrap() == Password::new(password.to_owned()));
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(password_file(&path).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(password_file(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
