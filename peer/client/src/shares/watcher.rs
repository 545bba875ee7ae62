//! Reports what the system notices in the folders of shared files. Where the system cannot watch, or its limits are
//! reached, the monitor looks more often instead. Used by the monitor alone.
//!
//! Folders are watched, not files: a program that saves a file by replacing it would remove the watch with the old one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Most folders that are watched: a fraction of what systems allow for all programs together.
const MAX_FOLDERS: usize = 4_096;
/// Most wishes and events that wait. A wish that finds no room is made again; polling finds what a lost event reported.
const MAX_WAITING: usize = 1_024;

/// What the watcher noticed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WatchEvent {
    /// Something happened to the file or the folder at this path.
    Touched(PathBuf),
    /// The folder is watched, or cannot be.
    Watched(PathBuf, bool),
    /// Something may have happened anywhere.
    Anything,
}

enum Wish {
    Watch(PathBuf),
    Forget(PathBuf),
}

/// See the module. Its thread ends when it is dropped. A drive that does not answer may hold the thread, and nothing else,
/// until it answers.
pub(super) struct Watcher {
    wishes: Option<SyncSender<Wish>>,
    interest: Interest,
}

/// The paths whose events are wanted: folders hold much that is not shared.
type Interest = Arc<Mutex<HashSet<PathBuf>>>;

impl Watcher {
    /// Starts it; its events arrive at the receiver.
    pub(super) fn start() -> (Self, mpsc::Receiver<WatchEvent>) {
        let (events, receiver) = mpsc::channel(MAX_WAITING);
        let (wishes, wanted) = sync_channel(MAX_WAITING);
        let interest = Interest::default();
        let seen = interest.clone();
        let thread = std::thread::Builder::new().name("share-watcher".into());
        let started = thread.spawn(move || run(&wanted, &events, seen));
        if let Err(error) = &started {
            tracing::warn!(%error, "shared files are not watched, only looked at from time to time");
        }
        (Self { wishes: started.is_ok().then_some(wishes), interest }, receiver)
    }

    /// Watches a folder, again if it is watched already: another folder may have its name now. False if the caller has to
    /// ask again later.
    pub(super) fn watch(&self, folder: &Path) -> bool {
        self.wish(Wish::Watch(folder.to_owned()))
    }

    /// Watches a folder no longer.
    pub(super) fn forget(&self, folder: &Path) {
        self.wish(Wish::Forget(folder.to_owned()));
    }

    /// Events of this path are wanted, or not any more.
    pub(super) fn interest(&self, path: &Path, wanted: bool) {
        let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted {
            interest.insert(path.to_owned());
        } else {
            interest.remove(path);
        }
    }

    fn wish(&self, wish: Wish) -> bool {
        self.wishes.as_ref().is_some_and(|wishes| wishes.try_send(wish).is_ok())
    }
}

fn run(wanted: &Receiver<Wish>, events: &mpsc::Sender<WatchEvent>, interest: Interest) {
    let sender = events.clone();
    let mut watcher = match notify::recommended_watcher(move |event| hear(event, &interest, &sender)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "shared files are not watched, only looked at from time to time");
            None
        }
    };
    let mut watched = HashSet::new();
    while let Ok(wish) = wanted.recv() {
        match (wish, &mut watcher) {
            (Wish::Watch(folder), Some(watcher)) => {
                let is_watched = watch(watcher, &mut watched, &folder);
                let _ = events.try_send(WatchEvent::Watched(folder, is_watched));
            }
            (Wish::Watch(folder), None) => {
                let _ = events.try_send(WatchEvent::Watched(folder, false));
            }
            (Wish::Forget(folder), Some(watcher)) => unwatch(watcher, &mut watched, &folder),
            (Wish::Forget(_), None) => {}
        }
    }
}

fn watch(watcher: &mut RecommendedWatcher, watched: &mut HashSet<PathBuf>, folder: &Path) -> bool {
    unwatch(watcher, watched, folder);
    if watched.len() >= MAX_FOLDERS {
        return false;
    }
    match watcher.watch(folder, RecursiveMode::NonRecursive) {
        Ok(()) => watched.insert(folder.to_owned()),
        Err(error) => {
            tracing::debug!(%error, folder = %folder.display(), "a folder is not watched");
            false
        }
    }
}

fn unwatch(watcher: &mut RecommendedWatcher, watched: &mut HashSet<PathBuf>, folder: &Path) {
    if watched.remove(folder) {
        // The system may have ended the watch itself, with the folder.
        let _ = watcher.unwatch(folder);
    }
}

/// Called on the watcher's own thread for each event in a watched folder.
fn hear(event: notify::Result<notify::Event>, interest: &Interest, events: &mpsc::Sender<WatchEvent>) {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            tracing::debug!(%error, "watching shared files");
            let _ = events.try_send(WatchEvent::Anything);
            return;
        }
    };
    if event.need_rescan() {
        let _ = events.try_send(WatchEvent::Anything);
    }
    // Shared files are read all the time, by this client too.
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return;
    }
    let interest = interest.lock().unwrap_or_else(PoisonError::into_inner);
    for path in event.paths.into_iter().filter(|path| interest.contains(path)) {
        let _ = events.try_send(WatchEvent::Touched(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(events: &mut mpsc::Receiver<WatchEvent>) -> WatchEvent {
        tokio::time::timeout(std::time::Duration::from_secs(20), events.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_happens_to_a_shared_file_is_heard_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let (watcher, mut events) = Watcher::start();
        watcher.interest(&path, true);
        assert!(watcher.watch(folder.path()));
        assert_eq!(next(&mut events).await, WatchEvent::Watched(folder.path().to_owned(), true));
        std::fs::write(folder.path().join("other"), b"content").unwrap();
        std::fs::read(&path).unwrap();
        assert!(events.try_recv().is_err());
        let touch = || std::fs::File::options().write(true).open(&path).unwrap().set_len(3).unwrap();
        touch();
        assert_eq!(next(&mut events).await, WatchEvent::Touched(path.clone()));
        // Moved away and back, and the folder watched again.
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        while events.try_recv().is_ok() {}
        assert!(watcher.watch(folder.path()));
        while next(&mut events).await != WatchEvent::Watched(folder.path().to_owned(), true) {}
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(next(&mut events).await, WatchEvent::Touched(path.clone()));
    }

    #[tokio::test]
    async fn what_cannot_be_watched_is_said() {
        let (watcher, mut events) = Watcher::start();
        let nowhere = Path::new("/nowhere/at/all");
        assert!(watcher.watch(nowhere));
        assert_eq!(next(&mut events).await, WatchEvent::Watched(nowhere.to_owned(), false));
    }
}
