//! Which shared files wait for a look, by the drive that they are on. A drive that does not answer delays its own files and
//! holds one thread, nothing else. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use shoal_swarm::FileKey;

/// A look takes microseconds, seconds where a disk has to start. A drive that takes longer does not answer.
const SILENT: Duration = Duration::from_secs(15);
/// Extra time: after this process was stopped, or the machine slept, the look may just be ending.
const DOUBT: Duration = Duration::from_secs(2);
/// Files that are looked at in one go.
const BATCH: usize = 64;
/// Drives that are looked at at once; each costs a thread.
const MAX_DRIVES: usize = 16;

#[derive(Debug, Default)]
struct Drive {
    waiting: VecDeque<FileKey>,
    /// Since when a look is under way.
    since: Option<Instant>,
    /// When it was found that this takes too long.
    doubted: Option<Instant>,
    silent: bool,
}

impl Drive {
    fn patience_ends(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.silent)?;
        Some(self.doubted.map_or(since + SILENT, |doubted| doubted + DOUBT))
    }
}

/// See the module. Drives are named by their device numbers.
#[derive(Debug, Default)]
pub(super) struct Drives(BTreeMap<u64, Drive>);

impl Drives {
    /// A file on this drive waits for a look.
    pub(super) fn queue(&mut self, drive: u64, key: FileKey) {
        self.0.entry(drive).or_default().waiting.push_back(key);
    }

    /// Files to look at now, and on which drive; call again until there is none.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(u64, Vec<FileKey>)> {
        if self.0.values().filter(|drive| drive.since.is_some()).count() >= MAX_DRIVES {
            return None;
        }
        let idle = |drive: &Drive| drive.since.is_none() && !drive.waiting.is_empty();
        let (&number, drive) = self.0.iter_mut().find(|(_, drive)| idle(drive))?;
        drive.since = Some(now);
        let count = drive.waiting.len().min(BATCH);
        Some((number, drive.waiting.drain(..count).collect()))
    }

    /// The looks at this drive's files are over; true if it had counted as not answering.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let Some(drive) = self.0.get_mut(&number) else { return false };
        (drive.since, drive.doubted) = (None, None);
        let was_silent = std::mem::take(&mut drive.silent);
        if drive.waiting.is_empty() {
            self.0.remove(&number);
        }
        was_silent
    }

    /// Drives that have not answered for too long; each is given once.
    pub(super) fn silent(&mut self, now: Instant) -> Vec<u64> {
        let mut silent = Vec::new();
        for (&number, drive) in &mut self.0 {
            if drive.patience_ends().is_some_and(|end| now >= end) {
                drive.silent = drive.doubted.replace(now).is_some();
                silent.extend(drive.silent.then_some(number));
            }
        }
        silent
    }

    /// When [`Drives::silent`] is to be asked next.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        self.0.values().filter_map(Drive::patience_ends).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{Fid, Gid};

    fn key(n: u8) -> FileKey {
        FileKey { group: Gid([1; 16]), file: Fid([n; 16]) }
    }

    #[test]
    fn a_drive_that_does_not_answer_holds_up_no_other() {
        let (mut drives, now) = (Drives::default(), Instant::now());
        for n in 0..100 {
            drives.queue(1, key(n));
        }
        assert_eq!(drives.begin(now).map(|(drive, keys)| (drive, keys.len())), Some((1, BATCH)));
        drives.queue(2, key(200));
        assert_eq!(drives.begin(now), Some((2, vec![key(200)])));
        assert_eq!(drives.begin(now), None, "one look at a time on each");
        assert!(!drives.end(2));
        assert_eq!(drives.patience_ends(), Some(now + SILENT));
        assert_eq!(drives.silent(now + SILENT), [0; 0], "perhaps nobody listened");
        assert_eq!(drives.patience_ends(), Some(now + SILENT + DOUBT));
        assert_eq!(drives.silent(now + SILENT + DOUBT), [1]);
        assert_eq!(drives.silent(now + SILENT + DOUBT), [0; 0], "once");
        assert_eq!(drives.patience_ends(), None);
        drives.queue(2, key(200));
        assert_eq!(drives.begin(now), Some((2, vec![key(200)])));
        assert!(drives.end(1), "it answers again");
        assert_eq!(drives.begin(now).map(|(drive, keys)| (drive, keys.len())), Some((1, 100 - BATCH)));
    }

    #[test]
    fn threads_are_bounded() {
        let (mut drives, now) = (Drives::default(), Instant::now());
        (0..100).for_each(|n| drives.queue(n, key(1)));
        let begun = std::iter::from_fn(|| drives.begin(now)).count();
        assert_eq!(begun, MAX_DRIVES);
    }
}
