//! What is at a shared file's path, without reading it; and what reading it shows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use shoal_common::FileDigest;
use shoal_engine::hash::{FileIdentity, HashError};
use tokio::sync::watch;

use super::health::{Absence, Checked, Found};
use crate::hashing::{Hashing, hash};

/// A drive that delivers nothing for this long while a file is read does not answer.
const STALLED: Duration = Duration::from_secs(30);

/// Extra time: after this process was stopped, or the machine slept, the read may just be continuing.
const DOUBT: Duration = Duration::from_secs(2);

/// Looks at a file without reading it. Blocks on the disk.
pub(super) fn look(path: &Path) -> Found {
    let found = std::fs::metadata(path)
        .and_then(|found| if found.is_file() { FileIdentity::of(path).map(Some) } else { Ok(None) });
    match found {
        Ok(Some(found)) => Found::File(found),
        Ok(None) => Found::Absent(Absence::NotAFile),
        Err(error) => Found::Absent(absence(&error)),
    }
}

/// Reads a file, and compares it with what was shared. Dropping the future stops it, but for a read from a drive that
/// does not answer.
pub(super) async fn check(
    path: PathBuf,
    expected: FileDigest,
    progress: &watch::Sender<Option<Hashing>>,
) -> Checked {
    let mut seen = progress.subscribe();
    let hashed = tokio::select! {
        hashed = hash(path.clone(), progress) => hashed,
        () = stalled(&mut seen) => return Checked::Absent(Absence::Silent),
    };
    match hashed {
        Ok(hashed) if hashed.digest == expected => Checked::Same(hashed.identity),
        Ok(hashed) => Checked::Other(hashed.identity),
        Err(HashError::Changed(_) | HashError::Cancelled) => Checked::Written,
        Err(HashError::NotAFile(_)) => Checked::Absent(Absence::NotAFile),
        Err(HashError::Unreadable { error, .. }) => Checked::Absent(absence(&error)),
        Err(error @ (HashError::Layout(_) | HashError::MadeUp { .. })) => {
            Checked::Absent(Absence::Unreadable(error.to_string()))
        }
    }
}

/// Completes when nothing was read for too long.
async fn stalled(progress: &mut watch::Receiver<Option<Hashing>>) {
    let mut moves = async |within| {
        tokio::time::timeout(within, progress.changed()).await.is_ok_and(|changed| changed.is_ok())
    };
    while moves(STALLED).await || moves(DOUBT).await {}
}

fn absence(error: &io::Error) -> Absence {
    // A link in a loop leads nowhere.
    let nowhere = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    match error.raw_os_error() {
        Some(code) if nowhere.iter().any(|errno| errno.raw_os_error() == code) => Absence::Gone,
        _ => Absence::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_stands_at_a_path_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(look(&path), Found::Absent(Absence::Gone));
        fs::write(&path, b"content").unwrap();
        assert_eq!(look(&path), Found::File(FileIdentity::of(&path).unwrap()));
        assert_eq!(look(&path.join("below")), Found::Absent(Absence::Gone));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert_eq!(look(&link), Found::Absent(Absence::Gone));
        assert_eq!(look(folder.path()), Found::Absent(Absence::NotAFile));
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(look(&pipe), Found::Absent(Absence::NotAFile));
        let long = folder.path().join("x".repeat(300));
        assert!(matches!(look(&long), Found::Absent(Absence::Unreadable(_))), "a name that is no name");
    }
}
