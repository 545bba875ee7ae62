//! The files of a client's data folder by their names, and how a secret one goes.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// The client's key.
pub(crate) const IDENTITY_FILE: &str = "identity.key";
/// The database.
pub(crate) const STORE_FILE: &str = "client.db";
/// The kept session.
pub(crate) const SESSION_FILE: &str = "session.key";

/// Overwrites the file and removes it; whether there was one. A drive may keep what was overwritten all the same.
pub(crate) fn wipe(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened,
    };
    // What counts is that it goes; its mode may forbid writing.
    if let Ok(mut file) = file
        && let Ok(length) = file.metadata().map(|found| found.len().min(64 * 1024))
    {
        let _ = io::copy(&mut io::Read::take(io::repeat(0), length), &mut file).and_then(|_| file.sync_all());
    }
    std::fs::remove_file(path)?;
    shoal_disk::sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_and_one_that_is_not_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SESSION_FILE);
        std::fs::write(&path, "a session").unwrap();
        assert!(wipe(&path).unwrap() && !path.exists());
        assert!(!wipe(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
