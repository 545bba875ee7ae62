//! Making durable what was written.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::lost::Lost;
use crate::{is, is_refused};

/// Makes a file durable. Where the file system has no such call, it is as durable as it gets.
///
/// # Errors
/// When the disk fails.
pub fn sync_file(file: &File) -> io::Result<()> {
    unless_refused(file.sync_all())
}

/// Makes a file's content durable, as [`sync_file`] does.
///
/// # Errors
/// When the disk fails.
pub fn sync_data(file: &File) -> io::Result<()> {
    unless_refused(file.sync_data())
}

fn unless_refused(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if is_refused(&error) => {
            Lost::FileSync.warn(|| error.to_string());
            Ok(())
        }
        synced => synced,
    }
}

/// Makes the names in a folder durable. The files have their names already: only what says that the disk fails is an error.
/// SMB alone answers EINVAL, ENOTSUP, EACCES and ENOENT, by server and kernel, to what it does not know.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if !is_failure(&error) => {
            Lost::FolderSync.warn(|| format!("{}: {error}", folder.display()));
            Ok(())
        }
        synced => synced,
    }
}

/// Whether an error says that the disk fails, or that the process is short of something.
fn is_failure(error: &io::Error) -> bool {
    let failures = [
        Errno::IO,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::ROFS,
        Errno::STALE,
        Errno::NODEV,
        Errno::NOTCONN,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::INTR,
    ];
    failures.iter().any(|failure| is(error, *failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out_and_a_failure_stays_one() {
        for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM] {
            assert!(unless_refused(Err(errno.into())).is_ok(), "{errno}");
            assert!(!is_failure(&errno.into()), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::ROFS] {
            assert!(unless_refused(Err(errno.into())).is_err(), "{errno}");
            assert!(is_failure(&errno.into()), "{errno}");
        }
        // Folders of SMB.
        assert!(!is_failure(&Errno::ACCESS.into()) && unless_refused(Err(Errno::ACCESS.into())).is_err());
        sync_folder(Path::new("")).unwrap();
    }
}
