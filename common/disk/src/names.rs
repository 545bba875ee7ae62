//! Names that a file system does not take, noticed before there is anything to put there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

use crate::is;

/// Whether an error says that a name is none here: too long, or with signs that exFAT and SMB do not take.
#[must_use]
pub fn is_about_name(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::ILSEQ, Errno::NAMETOOLONG].iter().any(|errno| is(error, *errno))
}

/// Takes a name and gives it back, so that one that the file system does not take is noticed now. Nothing happens to a file
/// that is there.
///
/// # Errors
/// What the system says; see [`is_about_name`].
pub fn try_name(path: &Path) -> io::Result<()> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_tried_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        try_name(&dir.path().join("a")).unwrap();
        fs::write(dir.path().join("b"), "kept").unwrap();
        try_name(&dir.path().join("b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"kept");
        assert!(is_about_name(&try_name(&dir.path().join("x".repeat(300))).unwrap_err()));
    }
}
