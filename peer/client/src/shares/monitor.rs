//! Looks after the shared files on disk. One task owns what is known of each ([`Health`]). It looks at files from time to
//! time, and when the system or a failed read says so. It reads those that were touched, and serves or withholds them.
//! Shares reach it through a [`Handle`]. Looks and reads run on other threads, so a drive that does not answer delays no
//! other.

mod reports;
mod serving;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_common::tracker_api::Completeness;
use shoal_engine::hash::FileIdentity;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::checks::Checks;
use super::drives::Drives;
use super::handle::{Command, Handle};
use super::health::{Absence, Action, Checked, Found, Health};
use super::look::look;
use super::watcher::{WatchEvent, Watcher};
use super::{Parts, ShareError};
use crate::store::ShareRecord;
use shoal_swarm::{FileKey, SwarmEvent};

/// How often a file in a watched folder is looked at. A watch does not see that a folder above was renamed, or that another
/// drive took the folder's place.
const WATCHED: Duration = Duration::from_secs(10);
/// How often otherwise.
const UNWATCHED: Duration = Duration::from_secs(2);
/// Each file adds this to both, so that all together cost no more than 200 looks per second.
const PER_FILE: Duration = Duration::from_millis(5);
/// Each file of a shared folder adds this to the folder's: a look at 10,000 takes 40 ms, every 12 s.
const PER_LISTED_FILE: Duration = Duration::from_millis(1);
/// The shortest time between two looks at a file that is written to all the time.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long a login waits for the first look at all files.
const FIRST_LOOKS: Duration = Duration::from_secs(2);

/// A shared file.
struct Entry {
    record: ShareRecord,
    health: Health,
    /// When it is looked at next, unless a look is under way.
    next: Instant,
    /// Whether it waits for a look, or one is under way.
    looking: bool,
    /// Another look is needed after the one that is under way.
    again: bool,
    /// When it was looked at last.
    looked: Instant,
}

/// A folder with shared files.
#[derive(Default)]
struct Folder {
    keys: BTreeSet<FileKey>,
    /// Whether the watcher was asked to watch it.
    asked: bool,
    watched: bool,
}

/// What a look at a share's path showed.
type Looked = (FileKey, PathBuf, Found);

/// A login that waits for the first looks.
struct Restoring {
    keys: Vec<FileKey>,
    until: Instant,
    done: oneshot::Sender<usize>,
}

/// See the module.
pub(crate) struct Monitor {
    parts: Arc<Parts>,
    commands: mpsc::Receiver<Command>,
    entries: HashMap<FileKey, Entry>,
    /// When each entry is looked at next, unless it waits for a look.
    schedule: BTreeSet<(Instant, FileKey)>,
    drives: Drives,
    looks: JoinSet<(u64, Vec<Looked>)>,
    folders: HashMap<PathBuf, Folder>,
    /// A file may be shared with several groups.
    by_path: HashMap<PathBuf, Vec<FileKey>>,
    watcher: Watcher,
    events: mpsc::Receiver<WatchEvent>,
    checks: Checks,
    restoring: Vec<Restoring>,
}

impl Monitor {
    /// A monitor without files, and the way to it.
    pub(super) fn new(parts: Arc<Parts>) -> (Self, Handle) {
        let (handle, commands) = Handle::new();
        let (watcher, events) = Watcher::start();
        let monitor = Self {
            parts,
            commands,
            entries: HashMap::new(),
            schedule: BTreeSet::new(),
            drives: Drives::default(),
            looks: JoinSet::new(),
            folders: HashMap::new(),
            by_path: HashMap::new(),
            watcher,
            events,
            checks: Checks::default(),
            restoring: Vec::new(),
        };
        (monitor, handle)
    }

    /// Looks after the shared files until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut swarm = self.parts.swarm.events();
        loop {
            self.begin_looks();
            self.begin_check();
            self.answer_logins();
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                event = swarm.recv() => match event {
                    Ok(SwarmEvent::FileChanged(key)) => self.suspect(key),
                    Ok(SwarmEvent::FileUnreadable(key, reason)) => {
                        tracing::info!(?key, reason, "a shared file cannot be read");
                        self.suspect(key);
                    }
                    Err(RecvError::Lagged(_)) => self.suspect_all(),
                    // The swarm is shut down last of all.
                    Err(RecvError::Closed) => return,
                },
                Some(events) = self.events.recv() => self.hear(events),
                Some(looked) = self.looks.join_next() => {
                    if let Ok((drive, found)) = looked {
                        self.looked(drive, found).await;
                    }
                }
                (key, checked, took) = self.checks.ended() => self.checked(key, checked, took).await,
                () = sleep_until(wake) => self.note_silence().await,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Put(record, done) => {
                let now = Instant::now();
                let served = self.serve(&record, record.identity);
                if served.is_ok() {
                    let health = Health::known(record.identity, now);
                    self.insert(*record, health, now);
                }
                // A caller that gave up waiting finds it shared.
                let _ = done.send(served);
            }
            Command::Restore(records, done) => {
                let now = Instant::now();
                let keys = records.iter().map(|record| record.key).collect();
                for record in records {
                    let health = Health::unknown(record.identity, now);
                    self.insert(record, health, now);
                }
                self.restoring.push(Restoring { keys, until: now + FIRST_LOOKS, done });
            }
            Command::Remove(key, done) => {
                self.remove(key);
                let _ = done.send(());
            }
            Command::PartEnded(key, done) => {
                self.part_ended(key);
                let _ = done.send(());
            }
            Command::Served(key, done) => {
                let entry = self.entries.get(&key).filter(|entry| entry.health.is_served());
                let _ = done.send(entry.map(|entry| Box::new(entry.record.clone())));
            }
            Command::Facts(file, done) => {
                let _ = done.send(self.facts(file.as_ref()));
            }
            Command::Clear(done) => {
                let keys: Vec<FileKey> = self.entries.keys().copied().collect();
                keys.into_iter().for_each(|key| self.remove(key));
                let _ = done.send(());
            }
        }
    }

    fn insert(&mut self, record: ShareRecord, health: Health, next: Instant) {
        let key = record.key;
        self.forget(key);
        self.watcher.interest(&record.path, true);
        let path = folder(&record.path);
        self.watcher.interest(path, true);
        self.folders.entry(path.to_owned()).or_default().keys.insert(key);
        self.by_path.entry(record.path.clone()).or_default().push(key);
        let (looking, again, looked) = (false, false, next);
        self.entries.insert(key, Entry { record, health, next, looking, again, looked });
        self.schedule.insert((next, key));
    }

    /// Shares a file no longer.
    fn remove(&mut self, key: FileKey) {
        self.forget(key);
        self.parts.swarm.stop(key);
        self.parts.holdings.set(key, Completeness::None);
    }

    /// Stops offering the parts of a download. What is left of that file is its share, if there is one.
    fn part_ended(&mut self, key: FileKey) {
        self.parts.swarm.stop_part(key);
        match self.entries.get(&key) {
            Some(entry) if entry.health.is_served() => {}
            Some(entry) => {
                self.parts.swarm.withhold(key, entry.health.trouble());
                self.parts.holdings.set(key, Completeness::None);
            }
            None => {
                self.parts.swarm.stop(key);
                self.parts.holdings.set(key, Completeness::None);
            }
        }
    }

    /// Looks after a file no longer.
    fn forget(&mut self, key: FileKey) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.schedule.remove(&(entry.next, key));
        self.checks.stop(key);
        let path = &entry.record.path;
        if let Some(keys) = self.by_path.get_mut(path) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_path.remove(path);
                self.parts.folders.forget(path);
                self.watcher.interest(path, false);
            }
        }
        let path = folder(path);
        if let Some(folder) = self.folders.get_mut(path) {
            folder.keys.remove(&key);
            if folder.keys.is_empty() {
                self.folders.remove(path);
                self.watcher.interest(path, false);
                self.watcher.forget(path);
            }
        }
    }

    /// Reading a served file failed, or showed another file. The swarm withholds it already.
    fn suspect(&mut self, key: FileKey) {
        let Some(entry) = self.entries.get_mut(&key) else {
            // A download's partial file: it is offered no more.
            return self.part_ended(key);
        };
        let actions = entry.health.suspected(Instant::now());
        self.withhold(key, &actions);
        self.look_soon(key);
    }

    /// Some of the swarm's events were lost.
    fn suspect_all(&mut self) {
        let served = self.entries.iter().filter(|(_, entry)| entry.health.is_served());
        let lost: Vec<FileKey> =
            served.map(|(&key, _)| key).filter(|&key| !self.parts.swarm.serves(key)).collect();
        lost.into_iter().for_each(|key| self.suspect(key));
    }

    fn hear(&mut self, events: WatchEvent) {
        let keys: Vec<FileKey> = match events {
            WatchEvent::Touched(path) => match self.folders.get_mut(&path) {
                Some(folder) => {
                    // Its watch may be gone.
                    (folder.asked, folder.watched) = (false, false);
                    folder.keys.iter().copied().collect()
                }
                None => self.by_path.get(&path).cloned().unwrap_or_default(),
            },
            WatchEvent::Watched(path, watched) => match self.folders.get_mut(&path) {
                Some(folder) => {
                    folder.watched = watched;
                    // Something may have happened before.
                    folder.keys.iter().copied().collect()
                }
                None => Vec::new(),
            },
            WatchEvent::Anything => self.entries.keys().copied().collect(),
        };
        keys.into_iter().for_each(|key| self.look_soon(key));
    }

    /// The shares on this drive.
    fn on(&self, drive: u64) -> Vec<FileKey> {
        let on_it = self.entries.iter().filter(|(_, entry)| entry.record.identity.device == drive);
        on_it.map(|(&key, _)| key).collect()
    }

    fn look_soon(&mut self, key: FileKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let soon = Instant::now().max(entry.looked + AT_MOST_EVERY);
        if entry.looking {
            entry.again = true;
        } else if entry.next > soon {
            self.schedule.remove(&(entry.next, key));
            entry.next = soon;
            self.schedule.insert((soon, key));
        }
    }

    /// Begins the looks that are due, on each drive one batch at a time.
    fn begin_looks(&mut self) {
        let now = Instant::now();
        while let Some(&(at, key)) = self.schedule.first() {
            if at > now {
                break;
            }
            self.schedule.pop_first();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.looking = true;
                self.drives.queue(entry.record.identity.device, key);
            }
        }
        while let Some((drive, keys)) = self.drives.begin(now) {
            let place = |key: FileKey| {
                let record = &self.entries.get(&key)?.record;
                Some((key, record.path.clone(), record.manifest.clone()))
            };
            let paths: Vec<_> = keys.into_iter().filter_map(place).collect();
            let folders = self.parts.folders.clone();
            self.looks.spawn_blocking(move || {
                let look = |(key, path, manifest): (_, PathBuf, _)| {
                    let found = look(&path, &manifest, &folders);
                    (key, path, found)
                };
                (drive, paths.into_iter().map(look).collect())
            });
        }
    }

    async fn looked(&mut self, drive: u64, looked: Vec<Looked>) {
        if self.drives.end(drive) {
            // It answers again: all that is on it is looked at.
            self.on(drive).into_iter().for_each(|key| self.look_soon(key));
        }
        for (key, path, found) in looked {
            // Meanwhile it may be shared from another place.
            if self.entries.get(&key).is_some_and(|entry| entry.record.path == path) {
                self.found(key, found).await;
                self.plan(key);
            }
        }
    }

    async fn found(&mut self, key: FileKey, found: Found) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (is_file, was_missing) = (matches!(found, Found::File(_)), entry.health.is_missing());
        let actions = entry.health.looked(found, Instant::now());
        // A file that came back may be in another folder of that name.
        let is_back = was_missing && !entry.health.is_missing();
        let path = folder(&entry.record.path);
        if let Some(folder) = self.folders.get_mut(path)
            && is_file
            && (is_back || !folder.asked)
        {
            (folder.asked, folder.watched) = (self.watcher.watch(path), false);
        }
        self.carry_out(key, actions).await;
    }

    /// A look is over: when is the next?
    fn plan(&mut self, key: FileKey) {
        let now = Instant::now();
        let files = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let watched = self.folders.get(folder(&entry.record.path)).is_some_and(|folder| folder.watched);
        // A watch does not see what happens within a shared folder.
        let watched = watched && entry.record.manifest.folder.is_none();
        let listed = entry.record.manifest.folder.as_ref().map_or(0, |folder| folder.files);
        let usual = if watched && !entry.health.is_missing() { WATCHED } else { UNWATCHED };
        let usual = usual + PER_FILE * files + PER_LISTED_FILE * listed;
        let usual = if std::mem::take(&mut entry.again) { AT_MOST_EVERY } else { usual };
        let due = entry.health.due().unwrap_or(now + usual).min(now + usual);
        self.schedule.remove(&(entry.next, key));
        (entry.looking, entry.looked) = (false, now);
        entry.next = due.max(now + Duration::from_millis(1));
        self.schedule.insert((entry.next, key));
    }

    /// Files on a drive that does not answer are not served.
    async fn note_silence(&mut self) {
        for drive in self.drives.silent(Instant::now()) {
            tracing::warn!(drive, "a drive with shared files does not answer");
            for key in self.on(drive) {
                self.found(key, Found::Absent(Absence::Silent)).await;
            }
        }
    }

    fn begin_check(&mut self) {
        let entries = &self.entries;
        let reading = |key: FileKey| entries.get(&key).filter(|entry| entry.health.is_reading());
        self.checks.begin(&self.parts.folders, |key| reading(key).map(|entry| &entry.record));
    }

    async fn checked(&mut self, key: FileKey, checked: Checked, took: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let actions = entry.health.checked(checked, took, Instant::now());
        self.carry_out(key, actions).await;
        if self.entries.get(&key).is_some_and(|entry| !entry.looking) {
            self.plan(key);
        }
    }

    async fn carry_out(&mut self, key: FileKey, actions: Vec<Action>) {
        self.withhold(key, &actions);
        for action in actions {
            match action {
                Action::Serve(identity) => self.serve_again(key, identity).await,
                Action::Report(report) => self.report(key, &report),
                Action::Check => {
                    if let Some(entry) = self.entries.get(&key) {
                        self.checks.want(entry.record.manifest.size, key);
                    }
                }
                // Done above.
                Action::Withhold(_) => {}
            }
        }
    }

    fn withhold(&self, key: FileKey, actions: &[Action]) {
        for action in actions {
            if let Action::Withhold(trouble) = action {
                // A download of the same file goes on being offered.
                let whole = self.parts.swarm.withhold(key, *trouble);
                self.parts.holdings.set(key, if whole { Completeness::None } else { Completeness::Some });
            }
        }
    }

    async fn serve_again(&mut self, key: FileKey, identity: FileIdentity) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let touched = entry.record.identity != identity;
        entry.record.identity = identity;
        let record = entry.record.clone();
        if let Err(error) = self.serve(&record, identity) {
            self.remove(key);
            self.parts.report_lost(&record, error.to_string());
            return;
        }
        if touched && let Err(error) = self.record(record).await {
            // The next login checks it once more.
            tracing::error!(%error, "a shared file's new time cannot be recorded");
        }
    }

    async fn record(&self, record: ShareRecord) -> Result<(), ShareError> {
        let piece_list = self.parts.store.piece_list(&record.manifest).await?;
        Ok(self.parts.store.put_share(record, piece_list).await?)
    }

    fn serve(&self, record: &ShareRecord, identity: FileIdentity) -> Result<(), ShareError> {
        let (served, listing) = self.served(record, identity)?;
        if !self.parts.holdings.set(record.key, Completeness::Complete) {
            return Err(ShareError::TooMany);
        }
        self.parts.swarm.serve(record.key, served);
        if let Some(listing) = listing {
            self.parts.swarm.serve_listing(record.key, listing);
        }
        Ok(())
    }

    fn wake(&self) -> Instant {
        let scheduled = self.schedule.first().map(|&(at, _)| at);
        let login = self.restoring.iter().map(|restoring| restoring.until).min();
        let moments = [scheduled, login, self.drives.patience_ends()];
        moments.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + WATCHED)
    }
}

fn folder(path: &Path) -> &Path {
    // Shared paths are absolute, and name files.
    path.parent().unwrap_or(path)
}
