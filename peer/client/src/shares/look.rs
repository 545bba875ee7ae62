//! What is at a shared file's path, without reading it; and what reading it shows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use shoal_common::{FileDigest, Manifest};
use shoal_engine::hash::{FileIdentity, HashError};
use tokio::sync::watch;

use super::health::{Absence, Checked, Found};
use crate::folders::{Folders, KnownFolder};
use crate::hashing::{Hashing, compare_folder, hash};

/// A drive that delivers nothing for this long while a file is read does not answer.
const STALLED: Duration = Duration::from_secs(30);

/// Extra time: after this process was stopped, or the machine slept, the read may just be continuing.
const DOUBT: Duration = Duration::from_secs(2);

/// Looks at a shared file or folder without reading it. Blocks on the disk.
pub(super) fn look(path: &Path, manifest: &Manifest, folders: &Folders) -> Found {
    if manifest.folder.is_none() {
        return look_at_file(path);
    }
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => Found::Absent(Absence::NotAFile),
        Ok(_) => match folders.look(path, manifest) {
            Ok(found) => Found::File(found),
            Err(error) => Found::Absent(absence(&error)),
        },
        Err(error) => Found::Absent(absence(&error)),
    }
}

fn look_at_file(path: &Path) -> Found {
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
        Err(error) => failed(error),
    }
}

fn failed(error: HashError) -> Checked {
    match error {
        HashError::Changed(_) | HashError::Cancelled => Checked::Written,
        HashError::NotAFile(_) => Checked::Absent(Absence::NotAFile),
        HashError::Unreadable { error, .. } => Checked::Absent(absence(&error)),
        error @ (HashError::Layout(_)
        | HashError::MadeUp { .. }
        | HashError::Name { .. }
        | HashError::Listing { .. }) => Checked::Absent(Absence::Unreadable(error.to_string())),
    }
}

/// As [`check`], for a folder.
pub(super) async fn check_folder(
    path: PathBuf,
    known: Arc<KnownFolder>,
    folders: &Folders,
    progress: &watch::Sender<Option<Hashing>>,
) -> Checked {
    let mut seen = progress.subscribe();
    let compared = tokio::select! {
        compared = compare_folder(path.clone(), known, progress) => compared,
        () = stalled(&mut seen) => return Checked::Absent(Absence::Silent),
    };
    match compared {
        Ok((true, found)) => Checked::Same(folders.remember(&path, found)),
        Ok((false, found)) => Checked::Other(found.whole),
        Err(error) => failed(error),
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
        assert_eq!(look_at_file(&path), Found::Absent(Absence::Gone));
        fs::write(&path, b"content").unwrap();
        assert_eq!(look_at_file(&path), Found::File(FileIdentity::of(&path).unwrap()));
        assert_eq!(look_at_file(&path.join("below")), Found::Absent(Absence::Gone));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert_eq!(look_at_file(&link), Found::Absent(Absence::Gone));
        assert_eq!(look_at_file(folder.path()), Found::Absent(Absence::NotAFile));
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(look_at_file(&pipe), Found::Absent(Absence::NotAFile));
        let long = folder.path().join("x".repeat(300));
        assert!(
            matches!(look_at_file(&long), Found::Absent(Absence::Unreadable(_))),
            "a name that is no name"
        );
    }
}
