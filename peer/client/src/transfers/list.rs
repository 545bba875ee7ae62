//! The list of downloads in memory: the records of the user who is logged in, and a handle on each that runs. It neither
//! waits nor touches the disk; the lock around it is held for a few lines.

mod facts;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_common::{Gid, GroupName, Manifest};
use shoal_engine::{Lack, Phase, Progress};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use facts::{Doing, DownloadFacts, Working};

use super::end::Stop;
use super::known::Known;
use super::row::{NoSource, activity, percent};
use super::{DownloadRow, RowState};
use crate::FileRef;
use crate::store::{DownloadRecord, DownloadState};
use shoal_swarm::FileKey;

/// Most failures that wait to be asked for; beyond that the oldest are dropped.
const MAX_FAILURES: usize = 1_000;

/// A handle on a download that runs.
pub(super) struct Running {
    /// Distinguishes it from other runs of the same download.
    pub(super) number: u64,
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) ended: CancellationToken,
    pub(super) now: Now,
    /// `Some(None)` once the engine works, `Some(Some(error))` once it failed before it did.
    pub(super) opened: watch::Sender<Option<Option<String>>>,
    /// When it began.
    pub(super) since: Instant,
    /// Bytes that were verified and written then.
    pub(super) had: u64,
    /// Ends its wait for something that is lacking.
    pub(super) hurry: Arc<Notify>,
}

/// What a download that runs does now.
pub(super) enum Now {
    /// It is about to begin, or to try again.
    Begins,
    /// The engine works on it.
    Works(Works),
    /// It waits for something that is lacking.
    Waits(Wait),
}

/// What a download waits for that is lacking here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// What is lacking; `None` is its turn among the downloads.
    pub(crate) lack: Option<Lack>,
    /// In words.
    pub(crate) words: String,
}

/// A download on which the engine works.
pub(super) struct Works {
    pub(super) progress: watch::Receiver<Progress>,
    /// What it waits for while none of its holders can be asked for pieces.
    pub(super) waits_for: watch::Receiver<Option<String>>,
    /// What it knows of the places that it could come from.
    pub(super) known: watch::Receiver<Known>,
}

struct Entry {
    record: DownloadRecord,
    running: Option<Running>,
}

#[derive(Default)]
pub(super) struct List {
    entries: Vec<Entry>,
    /// Runs so far.
    runs: u64,
    /// Runs that are not listed any more and have not ended: their files are still open.
    lingering: HashMap<FileKey, CancellationToken>,
    failures: Vec<(FileKey, FileRef)>,
}

impl List {
    /// Lists these, of which none runs, instead of those before.
    pub(super) fn replace(&mut self, records: Vec<DownloadRecord>) {
        self.lingering.retain(|_, ended| !ended.is_cancelled());
        for entry in self.entries.drain(..) {
            if let Some(running) = entry.running {
                self.lingering.insert(entry.record.key, running.ended);
            }
        }
        self.entries = records.into_iter().map(|record| Entry { record, running: None }).collect();
        self.failures.clear();
    }

    /// Lists a download at the end.
    pub(super) fn put(&mut self, record: DownloadRecord) {
        self.remove(record.key);
        self.entries.push(Entry { record, running: None });
    }

    pub(super) fn remove(&mut self, key: FileKey) {
        self.entries.retain(|entry| entry.record.key != key);
    }

    pub(super) fn find(&self, key: FileKey) -> Option<DownloadRecord> {
        self.entry(key).map(|entry| entry.record.clone())
    }

    /// The download of that name. Of several, the one that runs, else the one that began last.
    pub(super) fn named(&self, file: &FileRef) -> Option<DownloadRecord> {
        let same =
            |entry: &&Entry| entry.record.manifest.name == file.file && entry.record.group == file.group;
        let mut all: Vec<&Entry> = self.entries.iter().filter(same).collect();
        all.sort_by_key(|entry| entry.running.is_some());
        all.last().map(|entry| entry.record.clone())
    }

    /// Where the file goes, if it is being downloaded.
    pub(super) fn running(&self, key: FileKey) -> Option<PathBuf> {
        self.entry(key).filter(|entry| entry.running.is_some()).map(|entry| entry.record.path.clone())
    }

    pub(super) fn running_keys(&self) -> Vec<FileKey> {
        self.entries.iter().filter(|entry| entry.running.is_some()).map(|entry| entry.record.key).collect()
    }

    /// Another file's unfinished download that goes to this path.
    pub(super) fn going_to(&self, path: &Path, key: FileKey) -> Option<FileRef> {
        let unfinished = |entry: &&Entry| entry.record.state != DownloadState::Complete;
        let there = |entry: &&Entry| entry.record.path == path && entry.record.key != key;
        self.entries.iter().filter(unfinished).find(there).map(|entry| file_ref(&entry.record))
    }

    /// The number of the next run.
    pub(super) fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }

    pub(super) fn began(&mut self, key: FileKey, running: Running) {
        if let Some(entry) = self.entry_mut(key) {
            entry.running = Some(Running { had: entry.record.verified, ..running });
        }
    }

    /// What is cancelled when an earlier run that is not listed any more has ended, if there is one.
    pub(super) fn lingering(&mut self, key: FileKey) -> Option<CancellationToken> {
        self.lingering.remove(&key)
    }

    /// Whether this is the run that is listed; without a number, whether none is.
    pub(super) fn is_current(&self, key: FileKey, run: Option<u64>) -> bool {
        let listed = |entry: &Entry| entry.running.as_ref().map(|running| running.number) == run;
        self.entry(key).is_some_and(listed)
    }

    /// Notes what this run of a download does now; a run that is not listed any more does not count.
    pub(super) fn is_now(&mut self, key: FileKey, run: u64, now: Now) {
        if !self.is_current(key, Some(run)) {
            return;
        }
        let Some(entry) = self.entry_mut(key) else { return };
        entry.record.verified = verified(entry);
        if let Some(running) = &mut entry.running {
            running.now = now;
        }
    }

    /// Ends the wait of a download for something that is lacking; gives where its next result arrives, unless it has ended.
    pub(super) fn hurry(&self, key: FileKey) -> Option<watch::Receiver<Option<Option<String>>>> {
        let running = self.entry(key)?.running.as_ref()?;
        running.opened.send_replace(None);
        running.hurry.notify_one();
        Some(running.opened.subscribe())
    }

    /// What a download waits for, if it lacks something.
    pub(super) fn waits(&self, key: FileKey) -> Option<String> {
        match &self.entry(key)?.running.as_ref()?.now {
            Now::Waits(wait) => Some(wait.words.clone()),
            Now::Begins | Now::Works(_) => None,
        }
    }

    /// Nothing of a download is there any more.
    pub(super) fn reset(&mut self, key: FileKey) {
        if let Some(entry) = self.entry_mut(key) {
            entry.record.verified = 0;
        }
    }

    /// The run is over; its record is in this state now.
    pub(super) fn ended(&mut self, key: FileKey, run: Option<u64>, state: DownloadState) {
        if !self.is_current(key, run) {
            return;
        }
        let Some(entry) = self.entry_mut(key) else { return };
        entry.record.verified = verified(entry);
        entry.running = None;
        let file = matches!(state, DownloadState::Failed(_)).then(|| file_ref(&entry.record));
        entry.record.state = state;
        if let Some(file) = file {
            if self.failures.len() >= MAX_FAILURES {
                self.failures.remove(0);
            }
            self.failures.push((key, file));
        }
    }

    /// Updates the names of groups.
    pub(super) fn rename(&mut self, groups: &[(Gid, GroupName)]) {
        for entry in &mut self.entries {
            let now = groups.iter().find(|(gid, _)| *gid == entry.record.key.group);
            if let Some((_, name)) = now.filter(|(_, name)| *name != entry.record.group) {
                entry.record.group = name.clone();
            }
        }
    }

    /// How much of a download is verified.
    pub(super) fn verified(&self, key: FileKey) -> u64 {
        self.entry(key).map_or(0, verified)
    }

    pub(super) fn set_path(&mut self, key: FileKey, path: &Path) {
        if let Some(entry) = self.entry_mut(key) {
            entry.record.path = path.to_owned();
        }
    }

    pub(super) fn set_state(&mut self, key: FileKey, state: DownloadState) {
        if let Some(entry) = self.entry_mut(key) {
            entry.record.state = state;
        }
    }

    /// Asks a run to stop; gives what is cancelled when it has.
    pub(super) fn stop(&self, key: FileKey, stop: Stop) -> Option<CancellationToken> {
        let running = self.entry(key)?.running.as_ref()?;
        running.stop.send_if_modified(|wish| {
            let first = wish.is_none();
            if first {
                *wish = Some(stop);
            }
            first
        });
        Some(running.ended.clone())
    }

    /// Marks an unfinished download as not to be shared; false if there is none.
    pub(super) fn unshare(&mut self, key: FileKey) -> bool {
        match self.entry_mut(key) {
            Some(entry) if entry.record.state != DownloadState::Complete => {
                entry.record.share = false;
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_shared(&self, key: FileKey) -> bool {
        self.entry(key).is_some_and(|entry| entry.record.share)
    }

    pub(super) fn take_failures(&mut self) -> Vec<FileRef> {
        std::mem::take(&mut self.failures).into_iter().map(|(_, file)| file).collect()
    }

    pub(super) fn take_failure(&mut self, key: FileKey) {
        self.failures.retain(|(failed, _)| *failed != key);
    }

    /// All downloads; `has_ticket` says for which groups the user has a ticket.
    pub(super) fn rows(&self, has_ticket: impl Fn(Gid) -> bool) -> Vec<DownloadRow> {
        self.entries.iter().map(|entry| row(entry, &has_ticket)).collect()
    }

    /// How much of a download is there, in whole percent.
    pub(super) fn percent(&self, key: FileKey) -> Option<u8> {
        self.entry(key).map(|entry| row(entry, |_| true).percent)
    }

    /// How long the present run of a download takes, and the bytes that it brought.
    pub(super) fn took(&self, key: FileKey) -> Option<(Duration, u64)> {
        let entry = self.entry(key)?;
        let running = entry.running.as_ref()?;
        Some((running.since.elapsed(), verified(entry).saturating_sub(running.had)))
    }

    fn entry(&self, key: FileKey) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.record.key == key)
    }

    fn entry_mut(&mut self, key: FileKey) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.record.key == key)
    }
}

fn file_ref(record: &DownloadRecord) -> FileRef {
    FileRef { group: record.group.clone(), file: record.manifest.name.clone() }
}

/// Bytes of a download that are verified and written.
fn verified(entry: &Entry) -> u64 {
    match entry.running.as_ref().map(|running| &running.now) {
        _ if entry.record.state == DownloadState::Complete => entry.record.manifest.size,
        Some(Now::Works(Works { progress, .. })) if progress.borrow().phase != Phase::Opening => {
            progress.borrow().verified_bytes
        }
        _ => entry.record.verified,
    }
}

fn row(entry: &Entry, has_ticket: impl Fn(Gid) -> bool) -> DownloadRow {
    let Manifest { name, size, .. } = &entry.record.manifest;
    let state = match &entry.record.state {
        DownloadState::Running => RowState::Downloading,
        DownloadState::Paused => RowState::Paused,
        DownloadState::Complete => RowState::Complete,
        DownloadState::Failed(error) => RowState::Failed(error.clone()),
    };
    let verified = verified(entry);
    let mut row = DownloadRow {
        percent: percent(&state, verified, *size),
        verified,
        state,
        group: entry.record.group.clone(),
        file: name.clone(),
        path: entry.record.path.clone(),
        size: *size,
        rate: 0,
        sources: 0,
        eta: None,
        activity: None,
    };
    match entry.running.as_ref().map(|running| &running.now) {
        Some(Now::Waits(wait)) => row.activity = Some(wait.words.clone()),
        Some(Now::Works(Works { progress, waits_for, .. })) => {
            let progress = progress.borrow();
            let waiting = progress.phase == Phase::Waiting;
            let lack = NoSource {
                needs_ticket: waiting && !has_ticket(entry.record.key.group),
                waits_for: waits_for.borrow().clone(),
            };
            row.rate = progress.rate;
            row.sources = progress.sources;
            row.eta = progress.eta.filter(|_| progress.sources > 0);
            row.activity = activity(progress.phase, progress.limit, progress.sources, lack);
        }
        Some(Now::Begins) | None => {}
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Sha1, Uid};

    fn record(n: u8, name: &str, state: DownloadState) -> DownloadRecord {
        let digest = FileDigest { sha1: Sha1([n; 20]), blake3: Blake3([n; 32]) };
        let layout = Layout::for_size(10).unwrap();
        let manifest =
            Manifest::new(FileName::create(name).unwrap(), layout, &[Sha1([n; 20])], digest, vec![]).0;
        DownloadRecord {
            verified: 0,
            user: Uid([1; 16]),
            key: FileKey { group: Gid([1; 16]), file: Fid([n; 16]) },
            group: GroupName::create("g").unwrap(),
            manifest,
            path: format!("/tmp/{name}").into(),
            overwrite: false,
            share: true,
            state,
        }
    }

    #[test]
    fn the_last_of_one_name_is_meant() {
        let mut list = List::default();
        let (old, new) = (record(1, "a", DownloadState::Complete), record(2, "a", DownloadState::Paused));
        list.replace(vec![old.clone(), record(3, "b", DownloadState::Running)]);
        list.put(new.clone());
        let file = file_ref(&old);
        assert_eq!(list.named(&file), Some(new.clone()));
        assert_eq!(list.going_to(&new.path, FileKey { file: Fid([9; 16]), ..new.key }), Some(file));
        assert_eq!(list.going_to(&new.path, new.key), None);
        list.remove(new.key);
        assert_eq!(list.find(old.key), Some(old.clone()));
        assert!(!list.unshare(old.key), "it is complete");
    }

    #[test]
    fn groups_go_by_the_names_that_they_have_now() {
        let mut list = List::default();
        let download = record(1, "a", DownloadState::Paused);
        list.put(download.clone());
        let now = GroupName::refer("g~0a1b2c").unwrap();
        list.rename(&[
            (Gid([99; 16]), GroupName::refer("other").unwrap()),
            (download.key.group, now.clone()),
        ]);
        let named = |group: &GroupName| {
            list.named(&FileRef { group: group.clone(), file: download.manifest.name.clone() })
        };
        assert_eq!(named(&download.group), None);
        assert_eq!(named(&now).map(|record| record.key), Some(download.key));
    }

    fn running(list: &mut List) -> Running {
        Running {
            number: list.next_run(),
            stop: watch::Sender::new(None),
            ended: CancellationToken::new(),
            now: Now::Begins,
            opened: watch::Sender::new(None),
            since: Instant::now(),
            had: 0,
            hurry: Arc::default(),
        }
    }

    #[test]
    fn a_run_that_is_not_listed_any_more_ends_no_other() {
        let (mut list, download) = (List::default(), record(1, "a", DownloadState::Running));
        list.replace(vec![download.clone()]);
        let old = running(&mut list);
        let (number, ended) = (old.number, old.ended.clone());
        list.began(download.key, old);
        // The session ends, and the next one lists the download again.
        list.replace(vec![]);
        list.replace(vec![download.clone()]);
        let lingering = list.lingering(download.key).unwrap();
        let new = running(&mut list);
        list.began(download.key, new);
        list.is_now(download.key, number, Now::Waits(Wait { lack: None, words: "for the old".into() }));
        list.ended(download.key, Some(number), DownloadState::Failed("the old".into()));
        assert_eq!((list.waits(download.key), list.running_keys()), (None, vec![download.key]));
        assert_eq!(list.take_failures(), []);
        ended.cancel();
        assert!(lingering.is_cancelled(), "the new one waits for the end of the old");
    }

    #[test]
    fn failures_are_told_once() {
        let mut list = List::default();
        let download = record(1, "a", DownloadState::Running);
        list.put(download.clone());
        list.ended(download.key, None, DownloadState::Failed("full".into()));
        assert_eq!(list.rows(|_| true)[0].state, RowState::Failed("full".into()));
        assert_eq!(list.take_failures(), [file_ref(&download)]);
        assert_eq!(list.take_failures(), []);
    }
}
