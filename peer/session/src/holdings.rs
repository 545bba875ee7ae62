//! What this client holds and serves now: the one list that is announced to the trackers. Written by `shares` and
//! `transfers`, read by the tracker session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_ANNOUNCED;
use shoal_common::tracker_api::{Completeness, Holding};
use tokio::sync::{Notify, watch};

use shoal_policy::FileKey;

/// The list. Cheap to clone; all clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Holdings(Arc<Announced>);

#[derive(Debug, Default)]
struct Announced {
    list: Mutex<List>,
    changed: Notify,
    /// The version up to which a tracker knows the list.
    acknowledged: watch::Sender<u64>,
}

/// What is to be announced to a tracker, and the version of the list that it then knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What is held, or what changed.
    pub holdings: Vec<Holding>,
    version: u64,
}

#[derive(Debug, Default)]
struct List {
    held: BTreeMap<FileKey, Completeness>,
    /// Changed since they were last taken.
    changes: BTreeSet<FileKey>,
    /// Counts the changes.
    version: u64,
}

impl Holdings {
    /// Says how much of a file is held now. Beyond [`MAX_ANNOUNCED`] files, others are not taken: false.
    pub fn set(&self, key: FileKey, completeness: Completeness) -> bool {
        let mut list = self.list();
        let before = list.held.get(&key).copied().unwrap_or(Completeness::None);
        if before == completeness {
            return true;
        }
        if completeness == Completeness::None {
            list.held.remove(&key);
        } else if before == Completeness::None && list.held.len() >= MAX_ANNOUNCED {
            return false;
        } else {
            list.held.insert(key, completeness);
        }
        list.changes.insert(key);
        list.version += 1;
        drop(list);
        self.0.changed.notify_one();
        true
    }

    /// A part of a file is held, unless the whole is; false as for [`Holdings::set`].
    pub fn set_part(&self, key: FileKey) -> bool {
        self.completeness(key) == Completeness::Complete || self.set(key, Completeness::Some)
    }

    /// How much of a file is held.
    #[must_use]
    pub fn completeness(&self, key: FileKey) -> Completeness {
        self.list().held.get(&key).copied().unwrap_or(Completeness::None)
    }

    /// Empties the list without announcing that: the session is over.
    pub fn clear(&self) {
        let mut list = self.list();
        list.held.clear();
        list.changes.clear();
        let version = list.version;
        drop(list);
        self.0.acknowledged.send_replace(version);
    }

    /// Everything that is held; what changed before is thereby taken, too.
    #[must_use]
    pub fn take_all(&self) -> Announcement {
        let mut list = self.list();
        list.changes.clear();
        let holdings = list.held.iter().map(|(&key, &completeness)| holding(key, completeness)).collect();
        Announcement { holdings, version: list.version }
    }

    /// What changed since changes were last taken; a file that is not held any more comes with [`Completeness::None`].
    #[must_use]
    pub fn take_changes(&self) -> Announcement {
        let mut list = self.list();
        let changes = std::mem::take(&mut list.changes);
        let completeness = |key| list.held.get(&key).copied().unwrap_or(Completeness::None);
        let holdings = changes.into_iter().map(|key| holding(key, completeness(key))).collect();
        Announcement { holdings, version: list.version }
    }

    /// Announces these again: a tracker did not take them, or knows by now what it did not.
    pub fn again(&self, holdings: &[Holding]) {
        if holdings.is_empty() {
            return;
        }
        let keys = holdings.iter().map(|holding| FileKey { group: holding.group, file: holding.file });
        self.list().changes.extend(keys);
        self.0.changed.notify_one();
    }

    /// A tracker acknowledged the announcement.
    pub fn acknowledged(&self, announcement: &Announcement) {
        self.0.acknowledged.send_if_modified(|known| {
            let newer = announcement.version > *known;
            *known = announcement.version.max(*known);
            newer
        });
    }

    /// Completes when a tracker knows the list as it is now, or after that long. Safe to drop.
    pub async fn settled(&self, within: Duration) {
        let version = self.list().version;
        let mut known = self.0.acknowledged.subscribe();
        let _ = tokio::time::timeout(within, known.wait_for(|known| *known >= version)).await;
    }

    /// Completes when something changed since it last did. Safe to drop.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holding(key: FileKey, completeness: Completeness) -> Holding {
    Holding { group: key.group, file: key.file, completeness }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{Fid, Gid};

    fn key(n: u8) -> FileKey {
        FileKey { group: Gid([1; 16]), file: Fid([n; 16]) }
    }

    #[test]
    fn changes_are_announced_once_and_as_they_are_now() {
        let holdings = Holdings::default();
        assert!(holdings.set(key(1), Completeness::Some) && holdings.set(key(2), Completeness::Complete));
        holdings.set(key(1), Completeness::Complete);
        assert_eq!(
            holdings.take_changes().holdings,
            [holding(key(1), Completeness::Complete), holding(key(2), Completeness::Complete)]
        );
        assert_eq!(holdings.take_changes().holdings, []);
        holdings.set(key(2), Completeness::Complete);
        assert_eq!(holdings.take_changes().holdings, [], "nothing changed");
        holdings.set(key(2), Completeness::None);
        assert_eq!(holdings.take_all().holdings, [holding(key(1), Completeness::Complete)]);
        assert_eq!(holdings.take_changes().holdings, []);
    }

    #[test]
    fn what_a_tracker_did_not_take_is_announced_again_as_it_is_then() {
        let holdings = Holdings::default();
        holdings.set(key(1), Completeness::Some);
        let announcement = holdings.take_changes();
        holdings.set(key(1), Completeness::Complete);
        let _ = holdings.take_changes();
        holdings.again(&announcement.holdings);
        assert_eq!(holdings.take_changes().holdings, [holding(key(1), Completeness::Complete)]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_settled_when_a_tracker_knows_it() {
        let (holdings, within) = (Holdings::default(), Duration::from_secs(1));
        let begun = tokio::time::Instant::now();
        holdings.settled(within).await;
        holdings.set(key(1), Completeness::Some);
        let announcement = holdings.take_changes();
        holdings.acknowledged(&announcement);
        holdings.settled(within).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        holdings.set(key(1), Completeness::Complete);
        holdings.acknowledged(&announcement);
        holdings.settled(within).await;
        assert_eq!(begun.elapsed(), within, "the last change is not known");
    }
}
