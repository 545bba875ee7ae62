//! The list of downloads in memory: the records of the user who is logged in, and a handle on each that runs. It neither
//! waits nor touches the disk; the lock around it is held for a few lines.

mod detail;
mod facts;
mod rows;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_common::{Bitfield, Gid, GroupName};
use shoal_engine::rate::Limiter;
use shoal_engine::{Chosen, Lack, Overwrite, Progress, Target};
use shoal_session::text;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(super) use detail::{SourceName, SourceNames};
pub(crate) use facts::{Doing, DownloadFacts, Working};
pub(super) use rows::size;
use rows::{row, verified};

use super::DownloadRow;
use super::end::Stop;
use super::known::Known;
use crate::FileRef;
use crate::priority::{QueueEnd, Rank};
use crate::results::{PieceMap, SourceEntry};
use crate::store::{DownloadRecord, DownloadState};
use crate::taking::Take;
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
    /// Its own rate limit.
    pub(super) limiter: Limiter,
    /// Which files of a folder it fetches.
    pub(super) chosen: watch::Sender<Chosen>,
}

/// What a download that runs does now.
pub(super) enum Now {
    /// It is about to begin, or to try again.
    Begins,
    /// The engine works on it.
    Works(Works),
    /// It waits for something that is lacking.
    Waits(Wait),
    /// It waits for its turn.
    Queued,
}

/// What a download waits for that is lacking here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// What is lacking.
    pub(crate) lack: Lack,
    /// In words.
    pub(crate) words: String,
}

/// Who waits for their turn: the numbers of the runs, the next one first.
pub(super) struct Waiting {
    places: HashMap<u64, usize>,
    /// How many may run, if the limit of open files keeps the others waiting.
    by_files: Option<usize>,
}

impl Waiting {
    pub(super) fn new(numbers: Vec<u64>, by_files: Option<usize>) -> Self {
        Self { places: numbers.into_iter().zip(1..).collect(), by_files }
    }

    /// The place of a run in the queue, 1 for the next one; with words for it.
    fn place(&self, number: u64) -> Option<(usize, String)> {
        let place = *self.places.get(&number)?;
        let mut words = format!("waits its turn: {} before it", place - 1);
        if let Some(all) = self.by_files {
            let all = text::count(all, "download");
            words += &format!(" (only {all} at a time with this limit of open files, ulimit -n)");
        }
        Some((place, words))
    }
}

/// A download on which the engine works.
pub(super) struct Works {
    pub(super) progress: watch::Receiver<Progress>,
    /// What it waits for while none of its holders can be asked for pieces.
    pub(super) waits_for: watch::Receiver<Option<String>>,
    /// The pieces that are there.
    pub(super) verified: watch::Receiver<Arc<Bitfield>>,
    /// Who its sources are.
    pub(super) names: SourceNames,
    /// What it knows of the places that it could come from.
    pub(super) known: watch::Receiver<Known>,
}

/// A download in detail.
pub(super) struct Detail {
    pub(super) record: DownloadRecord,
    pub(super) row: DownloadRow,
    pub(super) pieces: Option<PieceMap>,
    pub(super) sources: Vec<SourceEntry>,
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

    /// Another download that is in the way of one to this path, and the path that both use: an unfinished one uses its
    /// destination and what is beside it until it ends, a complete one only its destination.
    pub(super) fn going_to(&self, path: &Path, key: FileKey) -> Option<(PathBuf, FileRef)> {
        let ours = uses(path);
        self.entries.iter().filter(|entry| entry.record.key != key).find_map(|entry| {
            let other = &entry.record;
            let both = match other.state {
                // Over a complete one the destination is judged by what is there.
                DownloadState::Complete => ours.iter().skip(1).find(|path| **path == other.path),
                _ => {
                    let theirs = uses(&other.path);
                    ours.iter().find(|path| theirs.contains(path))
                }
            };
            both.map(|path| (path.clone(), file_ref(other)))
        })
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

    /// Ends the wait of a download for something that is lacking, if it waits.
    pub(super) fn hurry_if_waiting(&self, key: FileKey) {
        if let Some(running) = self.entry(key).and_then(|entry| entry.running.as_ref())
            && matches!(running.now, Now::Waits(_))
        {
            running.hurry.notify_one();
        }
    }

    /// What a download waits for, if it lacks something or it is not its turn.
    pub(super) fn waits(&self, key: FileKey, waiting: &Waiting) -> Option<String> {
        let running = self.entry(key)?.running.as_ref()?;
        match &running.now {
            Now::Waits(wait) => Some(wait.words.clone()),
            Now::Queued => waiting.place(running.number).map(|(_, words)| words),
            Now::Begins | Now::Works(_) => None,
        }
    }

    /// Gives a download another rank; with the number of its run, if it runs.
    pub(super) fn set_rank(&mut self, key: FileKey, rank: Rank) -> Option<u64> {
        let entry = self.entry_mut(key)?;
        entry.record.rank = rank;
        entry.running.as_ref().map(|running| running.number)
    }

    /// Where a download stands in the queue.
    pub(super) fn rank(&self, key: FileKey) -> Option<Rank> {
        self.entry(key).map(|entry| entry.record.rank)
    }

    /// The position before or behind all other downloads.
    pub(super) fn position_at(&self, end: QueueEnd) -> i64 {
        let positions = self.entries.iter().map(|entry| entry.record.rank.position);
        match end {
            QueueEnd::First => positions.min().map_or(0, |first| first.saturating_sub(1)),
            QueueEnd::Last => positions.max().map_or(1, |last| last.saturating_add(1)),
        }
    }

    /// A folder is taken like this from now on.
    pub(super) fn choose(&mut self, key: FileKey, take: Take, chosen: Chosen) {
        let Some(entry) = self.entry_mut(key) else { return };
        entry.record.take = take;
        if let Some(running) = &entry.running {
            running.chosen.send_if_modified(|before| {
                let changed = *before != chosen;
                *before = chosen;
                changed
            });
        }
    }

    /// Which files of a folder a download that runs fetches.
    pub(super) fn chosen(&self, key: FileKey) -> Option<watch::Receiver<Chosen>> {
        Some(self.entry(key)?.running.as_ref()?.chosen.subscribe())
    }

    /// Limits the rate of a download from now on, in bytes per second.
    pub(super) fn set_limit(&mut self, key: FileKey, limit: Option<u64>) {
        let Some(entry) = self.entry_mut(key) else { return };
        entry.record.limit = limit;
        if let Some(running) = &entry.running {
            running.limiter.set_rate(limit);
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

    /// A file was moved: finished downloads of it are there now.
    pub(super) fn moved(&mut self, source: &Path, target: &Path) {
        let complete = |entry: &&mut Entry| entry.record.state == DownloadState::Complete;
        for entry in self.entries.iter_mut().filter(complete) {
            if entry.record.path == source {
                entry.record.path = target.to_owned();
            }
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

    /// Marks a download that is unfinished, or of a part of a folder, as not to be shared; false if there is none.
    pub(super) fn unshare(&mut self, key: FileKey) -> bool {
        match self.entry_mut(key) {
            Some(entry) if entry.record.state != DownloadState::Complete || is_part(entry) => {
                entry.record.share = false;
                true
            }
            _ => false,
        }
    }

    /// The complete downloads of parts of folders: they are served on.
    pub(super) fn part_keys(&self) -> Vec<FileKey> {
        self.entries.iter().filter(|entry| is_part(entry)).map(|entry| entry.record.key).collect()
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
    pub(super) fn rows(&self, waiting: &Waiting, has_ticket: impl Fn(Gid) -> bool) -> Vec<DownloadRow> {
        self.entries.iter().map(|entry| row(entry, waiting, &has_ticket)).collect()
    }

    /// A download in detail.
    pub(super) fn detail(
        &self,
        key: FileKey,
        waiting: &Waiting,
        has_ticket: impl Fn(Gid) -> bool,
    ) -> Option<Detail> {
        let entry = self.entry(key)?;
        let works = match entry.running.as_ref().map(|running| &running.now) {
            Some(Now::Works(works)) => Some(works),
            _ => None,
        };
        Some(Detail {
            row: row(entry, waiting, has_ticket),
            pieces: detail::in_memory(&entry.record, works),
            sources: works.map(detail::sources).unwrap_or_default(),
            record: entry.record.clone(),
        })
    }

    /// How much of a download is there, in whole percent.
    pub(super) fn percent(&self, key: FileKey) -> Option<u8> {
        let nobody = Waiting::new(Vec::new(), None);
        self.entry(key).map(|entry| row(entry, &nobody, |_| true).percent)
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

/// Whether it is of a part of a folder.
fn is_part(entry: &Entry) -> bool {
    entry.record.take.part.is_some()
}

/// The paths that a download to this path uses until it ends, that path first.
fn uses(path: &Path) -> [PathBuf; 4] {
    let target = Target::new(path.to_owned(), Overwrite::Refuse);
    [path.to_owned(), target.part_path(), target.state_path(), target.info_path()]
}

fn file_ref(record: &DownloadRecord) -> FileRef {
    FileRef { group: record.group.clone(), file: record.manifest.name.clone() }
}

#[cfg(test)]
mod tests;
