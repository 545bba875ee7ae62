//! Where a daemon listens: one Unix socket per data folder in the user's runtime folder and one in the data folder itself, and
//! who may connect to them. Callers find the sockets here too.
//!
//! The runtime folder goes at the last logout, and not every program of the user knows it: the data folder stays.
//!
//! The data folder is locked while its client runs, so a socket of that name on which nothing answers is a killed client's.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use shoal_common::Blake3;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{UnixListener, UnixStream};

/// The folder for sockets in the runtime folder of the user.
pub(crate) const FOLDER: &str = "shoal";
/// How a socket's file name ends.
const ENDING: &str = ".sock";
/// The socket's file name in a data folder.
const IN_DATA: &str = "shoal.sock";
/// Characters of the data folder's name in that of the socket: a socket's path has at most 107 bytes.
const MAX_NAME: usize = 24;
/// Sockets and data folders that are looked at, at most.
const MAX_FOUND: usize = 256;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("another client answers at {} already; stop that one first", .0.display())]
    InUse(PathBuf),
    /// It cannot be made.
    #[error("cannot listen at {}: {error}; set XDG_RUNTIME_DIR to a short path that you may write to", .path.display())]
    Unusable {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A socket that listens. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // One that is gone already needs no removing.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens for the client of that data folder: in the user's runtime folder, and in the data folder itself. One of them is enough;
/// the first is the one to be named. A socket that a killed client left is replaced.
///
/// # Errors
/// See [`SocketError`].
pub(crate) fn listen(data: &Path, runtime: Option<&Path>) -> Result<Vec<Socket>, SocketError> {
    let mut sockets = Vec::with_capacity(2);
    if let Some(runtime) = runtime {
        let folder = runtime.join(FOLDER);
        let path = folder.join(name_for(data));
        match own_folder(&folder).map_err(|error| SocketError::Unusable { path: path.clone(), error }) {
            Ok(()) => match listen_at(path) {
                Ok(socket) => sockets.push(socket),
                Err(SocketError::Unusable { path, error }) => {
                    tracing::warn!("cannot listen at {}: {error}; the data folder is used", path.display());
                }
                Err(in_use) => return Err(in_use),
            },
            Err(error) => tracing::warn!("{error}; the data folder is used"),
        }
    }
    match listen_at(in_data(data)) {
        Ok(socket) => sockets.push(socket),
        Err(error) if sockets.is_empty() => return Err(error),
        Err(error) => tracing::warn!("{error}; until then commands come only where XDG_RUNTIME_DIR is set"),
    }
    Ok(sockets)
}

/// The socket in a data folder.
#[must_use]
pub fn in_data(data: &Path) -> PathBuf {
    data.join(IN_DATA)
}

/// The user's runtime folder, if there is one.
pub(crate) fn runtime_folder() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Makes the folder for its owner alone; one that another user has is not used.
pub(crate) fn own_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let what = format!("{} is no folder of this user", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn listen_at(path: PathBuf) -> Result<Socket, SocketError> {
    let unusable = |path: &Path, error| SocketError::Unusable { path: path.to_owned(), error };
    if let Ok(found) = std::fs::symlink_metadata(&path) {
        if answers(&path) {
            return Err(SocketError::InUse(path));
        }
        if !found.file_type().is_socket() {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "another file is there");
            return Err(unusable(&path, error));
        }
        std::fs::remove_file(&path).map_err(|error| unusable(&path, error))?;
    }
    let listener = UnixListener::bind(&path).map_err(|error| unusable(&path, error))?;
    let socket = Socket { listener, path };
    // Until then the check of each caller's user is what keeps others out.
    std::fs::set_permissions(&socket.path, Permissions::from_mode(0o600))
        .map_err(|error| unusable(&socket.path, error))?;
    Ok(socket)
}

/// The file name of the socket for a data folder: the folder's name, and what tells it from others of that name.
fn name_for(data: &Path) -> String {
    let whole = std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(MAX_NAME).collect();
    let digest = Blake3::of(whole.as_os_str().as_encoded_bytes()).to_string();
    let digest: String = digest.chars().take(8).collect();
    format!("{name}-{digest}{ENDING}")
}

/// Whether the process at the other end is of this user, or root's.
pub(crate) fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let uid = stream.peer_cred()?.uid();
    Ok(may_connect(uid, rustix::process::geteuid().as_raw()))
}

fn may_connect(theirs: u32, own: u32) -> bool {
    theirs == own || theirs == 0
}

/// Whether a daemon of the user `theirs` may be told this user's secrets: it is this user's or root's, and root trusts all.
pub(crate) fn may_be_told(theirs: u32) -> bool {
    let own = rustix::process::geteuid().as_raw();
    own == 0 || may_connect(theirs, own)
}

/// The sockets of this user's daemons at which something listens, one each, in the order of their paths. What another user put
/// there does not count.
#[must_use]
pub fn find() -> Vec<PathBuf> {
    let base = etcetera::choose_base_strategy().ok();
    find_in(runtime_folder().as_deref(), base.map(|base| base.data_dir().join("shoal")).as_deref())
}

fn find_in(runtime: Option<&Path>, base: Option<&Path>) -> Vec<PathBuf> {
    let listens = |path: &PathBuf| is_own(path) && answers(path);
    let mut found = Vec::new();
    if let Some(folder) = runtime.map(|runtime| runtime.join(FOLDER))
        && is_own(&folder)
    {
        let sockets = entries(&folder).into_iter();
        found.extend(sockets.filter(|path| path.to_string_lossy().ends_with(ENDING)).filter(listens));
    }
    // A client's folder, and that of `shoal up` within its own.
    for folder in base.map(entries).unwrap_or_default() {
        let known = name_for(&folder);
        if !found.iter().any(|path| path.ends_with(&known)) {
            found.extend(Some(in_data(&folder)).filter(listens));
        }
    }
    found.sort();
    found
}

/// Whether it is there and belongs to this user.
fn is_own(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|found| found.uid() == own)
}

/// Whether something listens there. One that has no room for a connection at this moment does; it is not waited for.
fn answers(path: &Path) -> bool {
    let connected = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    });
    connected.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |()| true)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.take(MAX_FOUND).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_data_folder_has_a_socket_of_its_own_with_a_short_plain_name() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a/client"), dir.path().join("b/client"));
        for folder in [&one, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        assert_ne!(name_for(&one), name_for(&other));
        assert!(name_for(&one).starts_with("client-") && name_for(&one).ends_with(".sock"));
        let odd = name_for(&dir.path().join(format!("a b\u{1b}/{}\n", "x".repeat(200))));
        assert!(odd.len() < 40 && odd.bytes().all(|b| b.is_ascii_graphic()), "{odd}");
        std::os::unix::fs::symlink(&one, dir.path().join("link")).unwrap();
        assert_eq!(name_for(&dir.path().join("link")), name_for(&one), "one folder by two paths");
    }

    #[test]
    fn only_the_same_user_and_root_may_connect() {
        for (theirs, own, expected) in
            [(1000, 1000, true), (0, 1000, true), (1001, 1000, false), (1000, 0, false)]
        {
            assert_eq!(may_connect(theirs, own), expected, "{theirs} to {own}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let (data, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = listen(data.path(), Some(runtime.path())).unwrap().remove(0);
        assert_eq!(std::fs::metadata(first.path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(&first.path).unwrap().mode() & 0o777, 0o600);
        let again = listen(data.path(), Some(runtime.path()));
        assert!(matches!(again, Err(SocketError::InUse(_))), "{again:?}");
        // Killed: the file stays, and nothing listens.
        let path = first.path.clone();
        let stale = std::os::unix::net::UnixListener::bind(runtime.path().join("other.sock")).unwrap();
        drop(first);
        assert!(!path.exists(), "one that ends in order leaves nothing");
        drop(stale);
        std::fs::rename(runtime.path().join("other.sock"), &path).unwrap();
        let replaced = listen(data.path(), Some(runtime.path())).unwrap().remove(0);
        assert_eq!(replaced.path, path);
        assert!(answers(&path));
    }

    #[tokio::test]
    async fn one_daemon_is_found_once_also_after_the_runtime_folder_went() {
        let (base, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = base.path().join("client");
        std::fs::create_dir(&data).unwrap();
        let sockets = listen(&data, Some(runtime.path())).unwrap();
        assert_eq!(sockets.len(), 2);
        let find = |runtime| find_in(runtime, Some(base.path()));
        assert_eq!(find(Some(runtime.path())), [sockets[0].path.clone()]);
        assert_eq!(find(None), [in_data(&data)], "a program that does not know the runtime folder");
        std::fs::remove_dir_all(runtime.path().join(FOLDER)).unwrap();
        assert_eq!(find(Some(runtime.path())), [in_data(&data)]);
        drop(sockets);
        assert!(find(None).is_empty() && !in_data(&data).exists());
    }

    #[test]
    fn a_listener_whose_queue_is_full_is_there_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stopped.sock");
        let stopped = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stopped.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert!(!answers(&path), "nobody listens");
        stopped.listen(1).unwrap();
        let mut queue = Vec::new();
        loop {
            let next = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            next.set_nonblocking(true).unwrap();
            match next.connect(&SockAddr::unix(&path).unwrap()) {
                Ok(()) => queue.push(next),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(answers(&path) && is_own(&path));
        drop((queue, stopped));
        assert!(!answers(&path), "killed");
    }

    #[tokio::test]
    async fn without_a_runtime_folder_that_can_be_used_it_is_in_the_data_folder() {
        let (data, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(runtime.path().join(FOLDER), "a file in the way").unwrap();
        for runtime in [None, Some(runtime.path()), Some(Path::new("/nowhere/at/all"))] {
            let sockets = listen(data.path(), runtime).unwrap();
            assert_eq!(
                sockets.iter().map(|socket| &socket.path).collect::<Vec<_>>(),
                [&in_data(data.path())]
            );
        }
        std::fs::write(data.path().join(IN_DATA), "mine").unwrap();
        let kept = listen(data.path(), None);
        assert!(matches!(kept, Err(SocketError::Unusable { .. })), "no other file is removed: {kept:?}");
        let deep = data.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let long = listen(&deep, None).unwrap_err().to_string();
        assert!(long.contains("XDG_RUNTIME_DIR"), "{long}");
    }
}
